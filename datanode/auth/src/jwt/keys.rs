//! Public keys of an issuer (a JWKS document), and which algorithms each takes.

use aws_lc_rs::signature::{
    self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::JwtDenied;

const LONGEST_DOCUMENT: usize = 256 << 10;
const MOST_KEYS: usize = 64;
const LEAST_RSA_BYTES: usize = 2_048 / 8;
const MOST_RSA_BYTES: usize = 8_192 / 8;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Jwks(Vec<Key>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    kid: Option<String>,
    /// The only algorithm it takes, when the issuer says so.
    alg: Option<String>,
    material: Material,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// A point, uncompressed.
    P256(Vec<u8>),
    P384(Vec<u8>),
    P521(Vec<u8>),
    Ed25519(Vec<u8>),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwksProblem {
    #[error("the key set is larger than 256 KiB or has more than 64 keys")]
    TooLarge,
    #[error("it is not a key set: {0}")]
    Malformed(String),
    #[error("the key set has no key that can be used for signatures here")]
    Empty,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Jwks {
    /// Keys for other uses and of kinds that we do not take are passed over.
    pub fn parse(document: &[u8]) -> Result<Self, JwksProblem> {
        if document.len() > LONGEST_DOCUMENT {
            return Err(JwksProblem::TooLarge);
        }
        let parsed: Document =
            serde_json::from_slice(document).map_err(|e| JwksProblem::Malformed(e.to_string()))?;
        if parsed.keys.len() > MOST_KEYS {
            return Err(JwksProblem::TooLarge);
        }
        let keys: Vec<Key> = parsed.keys.into_iter().filter_map(Jwk::usable).collect();
        match keys.is_empty() {
            true => Err(JwksProblem::Empty),
            false => Ok(Self(keys)),
        }
    }

    pub(super) fn verify(
        &self,
        alg: &str,
        kid: Option<&str>,
        signed: &[u8],
        sign: &[u8],
    ) -> Result<(), JwtDenied> {
        let algorithm = Algorithm::parse(alg).ok_or(JwtDenied::Algorithm)?;
        let named = self
            .0
            .iter()
            .filter(|key| kid.is_none() || key.kid.as_deref() == kid);
        let mut named = named.peekable();
        if named.peek().is_none() {
            return Err(JwtDenied::Key);
        }
        let mut fitting = named.filter(|key| {
            key.alg.as_deref().is_none_or(|only| only == alg) && algorithm.takes(&key.material)
        });
        let key = match (fitting.next(), fitting.next()) {
            (Some(key), None) => key,
            // Without a name there must be no choice.
            (Some(_), Some(_)) => return Err(JwtDenied::Key),
            (None, _) => return Err(JwtDenied::Algorithm),
        };
        match algorithm.holds(&key.material, signed, sign) {
            true => Ok(()),
            false => Err(JwtDenied::Signature),
        }
    }
}

impl Jwk {
    fn usable(self) -> Option<Key> {
        if self.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return None;
        }
        let material = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => rsa(&bytes(&self.n)?, &bytes(&self.e)?)?,
            ("EC", Some("P-256")) => Material::P256(point(&self.x, &self.y, 32)?),
            ("EC", Some("P-384")) => Material::P384(point(&self.x, &self.y, 48)?),
            ("EC", Some("P-521")) => Material::P521(point(&self.x, &self.y, 66)?),
            ("OKP", Some("Ed25519")) => Material::Ed25519(bytes(&self.x).filter(|x| x.len() == 32)?),
            _ => return None,
        };
        Some(Key {
            kid: self.kid,
            alg: self.alg,
            material,
        })
    }
}

fn bytes(text: &Option<String>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.as_ref()?).ok()
}

fn rsa(n: &[u8], e: &[u8]) -> Option<Material> {
    let trimmed = |number: &[u8]| {
        let from = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
        number[from..].to_vec()
    };
    let (n, e) = (trimmed(n), trimmed(e));
    let sound = (LEAST_RSA_BYTES..=MOST_RSA_BYTES).contains(&n.len()) && (1..=8).contains(&e.len());
    sound.then_some(Material::Rsa { n, e })
}

fn point(x: &Option<String>, y: &Option<String>, length: usize) -> Option<Vec<u8>> {
    let (x, y) = (bytes(x)?, bytes(y)?);
    let fits = x.len() == length && y.len() == length;
    fits.then(|| [&[4], x.as_slice(), y.as_slice()].concat())
}

enum Algorithm {
    Rsa(&'static RsaParameters),
    P256,
    P384,
    P521,
    Ed25519,
}

impl Algorithm {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            "RS384" => Self::Rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            "RS512" => Self::Rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            "PS256" => Self::Rsa(&signature::RSA_PSS_2048_8192_SHA256),
            "PS384" => Self::Rsa(&signature::RSA_PSS_2048_8192_SHA384),
            "PS512" => Self::Rsa(&signature::RSA_PSS_2048_8192_SHA512),
            "ES256" => Self::P256,
            "ES384" => Self::P384,
            "ES512" => Self::P521,
            "EdDSA" => Self::Ed25519,
            _ => return None,
        })
    }

    fn takes(&self, material: &Material) -> bool {
        matches!(
            (self, material),
            (Self::Rsa(_), Material::Rsa { .. })
                | (Self::P256, Material::P256(_))
                | (Self::P384, Material::P384(_))
                | (Self::P521, Material::P521(_))
                | (Self::Ed25519, Material::Ed25519(_))
        )
    }

    fn holds(&self, material: &Material, signed: &[u8], sign: &[u8]) -> bool {
        let with = |algorithm: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(algorithm, key)
                .verify(signed, sign)
                .is_ok()
        };
        match (self, material) {
            (Self::Rsa(parameters), Material::Rsa { n, e }) => RsaPublicKeyComponents { n, e }
                .verify(parameters, signed, sign)
                .is_ok(),
            (Self::P256, Material::P256(point)) => with(&signature::ECDSA_P256_SHA256_FIXED, point),
            (Self::P384, Material::P384(point)) => with(&signature::ECDSA_P384_SHA384_FIXED, point),
            (Self::P521, Material::P521(point)) => with(&signature::ECDSA_P521_SHA512_FIXED, point),
            (Self::Ed25519, Material::Ed25519(key)) => with(&signature::ED25519, key),
            _ => false,
        }
    }
}

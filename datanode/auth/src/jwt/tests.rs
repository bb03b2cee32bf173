use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    RsaEncoding, RsaKeyPair,
};
use proptest::prelude::*;
use serde_json::json;

use super::*;

const NOW_S: i64 = 1_800_000_000;

struct Keys {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

/// Modulus and exponent of `SEQUENCE { INTEGER, INTEGER }`.
fn numbers(der: &[u8]) -> (Vec<u8>, Vec<u8>) {
    fn integer(der: &[u8]) -> (&[u8], &[u8]) {
        let (length, rest) = match der[1] {
            0x82 => (usize::from(der[2]) << 8 | usize::from(der[3]), &der[4..]),
            0x81 => (usize::from(der[2]), &der[3..]),
            short => (usize::from(short), &der[2..]),
        };
        rest.split_at(length)
    }
    let (inside, _) = integer(der);
    let (n, rest) = integer(inside);
    (n.to_vec(), integer(rest).0.to_vec())
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Keys {
    fn new() -> Self {
        Self {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"),
            ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"),
            ed: Ed25519KeyPair::generate().expect("a key"),
        }
    }

    fn jwks(&self) -> Value {
        let (n, e) = numbers(self.rsa.public_key().as_ref());
        let point = self.ec.public_key().as_ref();
        json!({"keys": [
            {"kty": "RSA", "kid": "r1", "use": "sig",
             "n": b64(n), "e": b64(e)},
            {"kty": "EC", "crv": "P-256", "kid": "e1", "x": b64(&point[1..33]), "y": b64(&point[33..])},
            {"kty": "OKP", "crv": "Ed25519", "kid": "d1", "x": b64(self.ed.public_key().as_ref())},
            {"kty": "oct", "kid": "h1", "k": b64("secret")},
        ]})
    }

    fn issuer(&self) -> Issuer {
        Issuer {
            name: "https://id.example".into(),
            audiences: vec!["rhumb".into()],
            roles_claim: "realm.roles".into(),
            roles: BTreeMap::from([("dba".into(), vec![name("admin")])]),
            everybody: vec![name("reader")],
            keys: Jwks::parse(self.jwks().to_string().as_bytes()).expect("keys"),
        }
    }

    fn rsa_sign(&self, how: &'static dyn RsaEncoding, text: &str) -> Vec<u8> {
        let mut sign = vec![0; self.rsa.public_modulus_len()];
        let random = SystemRandom::new();
        self.rsa
            .sign(how, &random, text.as_bytes(), &mut sign)
            .expect("signed");
        sign
    }

    fn token(&self, alg: &str, kid: &str, claims: &Value) -> String {
        let said = said(&json!({"alg": alg, "kid": kid, "typ": "JWT"}), claims);
        let sign = match alg {
            "RS256" => self.rsa_sign(&RSA_PKCS1_SHA256, &said),
            "PS256" => self.rsa_sign(&RSA_PSS_SHA256, &said),
            "ES256" => self
                .ec
                .sign(&SystemRandom::new(), said.as_bytes())
                .expect("signed")
                .as_ref()
                .to_vec(),
            "EdDSA" => self.ed.sign(said.as_bytes()).as_ref().to_vec(),
            _ => Vec::new(),
        };
        format!("{said}.{}", b64(sign))
    }
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn said(header: &Value, claims: &Value) -> String {
    format!("{}.{}", b64(header.to_string()), b64(claims.to_string()))
}

fn good() -> Value {
    json!({"iss": "https://id.example", "sub": "ada", "aud": "rhumb", "exp": NOW_S + 300, "org": "x"})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = good();
    claims[name] = value;
    claims
}

fn verdict(keys: &Keys, token: &str) -> Result<Vouched, JwtDenied> {
    verify(token, [&keys.issuer()], NOW_S * 1_000)
}

#[test]
fn every_asymmetric_algorithm_is_taken_with_its_own_key() {
    let keys = Keys::new();
    for (alg, kid) in [("RS256", "r1"), ("PS256", "r1"), ("ES256", "e1"), ("EdDSA", "d1")] {
        let vouched = verdict(&keys, &keys.token(alg, kid, &good())).expect(alg);
        assert_eq!(vouched.subject, "ada");
        assert_eq!(vouched.roles, [name("reader")]);
        assert_eq!(vouched.claims["org"], "x");
    }
}

#[test]
fn no_algorithm_and_symmetric_ones_are_refused() {
    let keys = Keys::new();
    for alg in [
        "none", "None", "NONE", "nOnE", "", "HS256", "HS384", "HS512", "RS1", "ES256K", "rs256",
    ] {
        let said = said(&json!({"alg": alg, "kid": "r1"}), &good());
        for sign in [
            String::new(),
            b64("x"),
            b64(keys.rsa_sign(&RSA_PKCS1_SHA256, &said)),
        ] {
            assert_eq!(
                verdict(&keys, &format!("{said}.{sign}")),
                Err(JwtDenied::Algorithm),
                "{alg}"
            );
        }
    }
}

/// The public key is known to everybody: as an HMAC secret it must prove nothing.
#[test]
fn a_public_key_is_never_an_hmac_secret() {
    let keys = Keys::new();
    let jwks = keys.jwks();
    for secret in [
        jwks.to_string(),
        jwks["keys"][0]["n"].to_string(),
        "secret".into(),
    ] {
        for (alg, kid) in [("HS256", "r1"), ("RS256", "r1"), ("ES256", "e1"), ("HS256", "h1")] {
            let said = said(&json!({"alg": alg, "kid": kid}), &good());
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
            let token = format!("{said}.{}", b64(hmac::sign(&key, said.as_bytes()).as_ref()));
            assert!(verdict(&keys, &token).is_err(), "{alg}");
        }
    }
}

#[test]
fn a_key_takes_the_algorithms_of_its_kind_alone() {
    let keys = Keys::new();
    for (alg, kid) in [("RS256", "e1"), ("ES256", "r1"), ("EdDSA", "e1"), ("ES384", "e1")] {
        let said = said(&json!({"alg": alg, "kid": kid}), &good());
        let token = format!("{said}.{}", b64(keys.rsa_sign(&RSA_PKCS1_SHA256, &said)));
        assert_eq!(verdict(&keys, &token), Err(JwtDenied::Algorithm), "{alg} {kid}");
    }
    let mut jwks = keys.jwks();
    jwks["keys"][0]["alg"] = json!("PS256");
    let issuer = Issuer {
        keys: Jwks::parse(jwks.to_string().as_bytes()).expect("keys"),
        ..keys.issuer()
    };
    let token = keys.token("RS256", "r1", &good());
    assert_eq!(
        verify(&token, [&issuer], NOW_S * 1_000),
        Err(JwtDenied::Algorithm)
    );
}

#[test]
fn a_kid_is_the_name_of_a_known_key_and_nothing_else() {
    let keys = Keys::new();
    for kid in [
        "../../dev/null",
        "' OR 1=1 --",
        "",
        "r2",
        "/etc/passwd",
        "http://evil/",
    ] {
        let token = keys.token("RS256", kid, &good());
        assert_eq!(verdict(&keys, &token), Err(JwtDenied::Key), "{kid}");
    }
}

#[test]
fn keys_that_a_token_brings_along_are_not_looked_at() {
    let (keys, strangers) = (Keys::new(), Keys::new());
    let header = json!({"alg": "RS256", "kid": "r1", "jwk": strangers.jwks()["keys"][0], "jku": "https://evil/jwks", "x5u": "https://evil"});
    let said = said(&header, &good());
    let token = format!("{said}.{}", b64(strangers.rsa_sign(&RSA_PKCS1_SHA256, &said)));
    assert_eq!(verdict(&keys, &token), Err(JwtDenied::Signature));
}

#[test]
fn without_a_kid_there_must_be_no_choice() {
    let keys = Keys::new();
    let said = said(&json!({"alg": "RS256"}), &good());
    let token = format!("{said}.{}", b64(keys.rsa_sign(&RSA_PKCS1_SHA256, &said)));
    assert!(verdict(&keys, &token).is_ok());
    let mut jwks = keys.jwks();
    let mut second = Keys::new().jwks()["keys"][0].clone();
    second["kid"] = json!("r2");
    jwks["keys"].as_array_mut().expect("a list").push(second);
    let issuer = Issuer {
        keys: Jwks::parse(jwks.to_string().as_bytes()).expect("keys"),
        ..keys.issuer()
    };
    assert_eq!(verify(&token, [&issuer], NOW_S * 1_000), Err(JwtDenied::Key));
}

#[test]
fn a_token_is_for_us_from_somebody_we_know_and_for_now() {
    let keys = Keys::new();
    for (claims, why) in [
        (with("iss", json!("https://other")), JwtDenied::Issuer),
        (with("iss", json!(7)), JwtDenied::Malformed),
        (with("aud", json!("other")), JwtDenied::Audience),
        (with("aud", json!(["other"])), JwtDenied::Audience),
        (with("aud", Value::Null), JwtDenied::Audience),
        (with("exp", json!(NOW_S - 60)), JwtDenied::Expired),
        (with("exp", json!("never")), JwtDenied::Malformed),
        (with("nbf", json!(NOW_S + 61)), JwtDenied::TooEarly),
        (with("iat", json!(NOW_S + 61)), JwtDenied::TooEarly),
        (with("sub", json!("")), JwtDenied::Subject),
        (with("sub", json!("a\nb")), JwtDenied::Subject),
        (with("sub", json!("x".repeat(300))), JwtDenied::Subject),
    ] {
        assert_eq!(
            verdict(&keys, &keys.token("ES256", "e1", &claims)),
            Err(why),
            "{claims}"
        );
    }
    let mut forever = good();
    forever.as_object_mut().expect("claims").remove("exp");
    assert_eq!(
        verdict(&keys, &keys.token("ES256", "e1", &forever)),
        Err(JwtDenied::Expired)
    );
    // Clocks may be a minute apart.
    for claims in [
        with("exp", json!(NOW_S - 59)),
        with("nbf", json!(NOW_S + 59)),
        with("aud", json!(["other", "rhumb"])),
    ] {
        assert!(
            verdict(&keys, &keys.token("ES256", "e1", &claims)).is_ok(),
            "{claims}"
        );
    }
}

#[test]
fn roles_come_from_the_map_and_only_from_there() {
    let keys = Keys::new();
    let roles = |claims: &Value| {
        verdict(&keys, &keys.token("EdDSA", "d1", claims))
            .expect("valid")
            .roles
    };
    assert_eq!(
        roles(&with("realm", json!({"roles": ["dba", "other"]}))),
        [name("admin"), name("reader")]
    );
    assert_eq!(roles(&with("realm", json!({"roles": "other dba"}))).len(), 2);
    assert_eq!(
        roles(&with("realm", json!({"roles": ["admin"]}))),
        [name("reader")]
    );
    assert_eq!(roles(&with("roles", json!(["dba"]))), [name("reader")]);
}

#[test]
fn what_is_huge_or_no_token_is_refused_before_it_is_worked_on() {
    let keys = Keys::new();
    let huge = keys.token("EdDSA", "d1", &with("x", json!("y".repeat(LONGEST))));
    assert_eq!(verdict(&keys, &huge), Err(JwtDenied::TooLarge));
    let header = json!({"alg": "EdDSA", "kid": "k".repeat(LONGEST_HEADER)});
    assert_eq!(
        verdict(&keys, &format!("{}.", said(&header, &good()))),
        Err(JwtDenied::TooLarge)
    );
    let crit = said(&json!({"alg": "EdDSA", "kid": "d1", "crit": ["exp"]}), &good());
    let token = format!("{crit}.{}", b64(keys.ed.sign(crit.as_bytes()).as_ref()));
    assert_eq!(verdict(&keys, &token), Err(JwtDenied::Malformed));
    for text in ["", ".", "..", "a.b.c", "eyJ.eyJ.eyJ", "é.é.é"] {
        assert!(verdict(&keys, text).is_err(), "{text}");
    }
}

#[test]
fn weak_and_foreign_keys_are_not_taken_into_the_set() {
    let short = json!({"keys": [{"kty": "RSA", "kid": "w", "n": b64([255; 128]), "e": "AQAB"}]});
    assert_eq!(Jwks::parse(short.to_string().as_bytes()), Err(JwksProblem::Empty));
    let oct = json!({"keys": [{"kty": "oct", "k": "AAAA"}, {"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"}]});
    assert_eq!(Jwks::parse(oct.to_string().as_bytes()), Err(JwksProblem::Empty));
    let mut encryption = Keys::new().jwks();
    encryption["keys"][0]["use"] = json!("enc");
    assert_eq!(
        Jwks::parse(encryption.to_string().as_bytes()).map(|k| k == Jwks::default()),
        Ok(false)
    );
    assert!(matches!(Jwks::parse(b"[]"), Err(JwksProblem::Malformed(_))));
    assert_eq!(Jwks::parse(&vec![b' '; 300 << 10]), Err(JwksProblem::TooLarge));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn one_changed_letter_makes_a_token_nothing(at in 0usize..400, letter in "[A-Za-z0-9_-]") {
        let ed = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a key");
        let jwks = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "d1", "x": b64(ed.public_key().as_ref())}]});
        let said = said(&json!({"alg": "EdDSA", "kid": "d1"}), &good());
        let token = format!("{said}.{}", b64(ed.sign(said.as_bytes()).as_ref()));
        let mut changed = token.clone();
        prop_assume!(at < changed.len());
        changed.replace_range(at..=at, &letter);
        prop_assume!(changed != token);
        let issuer = Issuer {
            name: "https://id.example".into(), audiences: vec!["rhumb".into()], roles_claim: "roles".into(),
            roles: BTreeMap::new(), everybody: Vec::new(),
            keys: Jwks::parse(jwks.to_string().as_bytes()).expect("keys"),
        };
        prop_assert!(verify(&token, [&issuer], NOW_S * 1_000).is_ok());
        prop_assert!(verify(&changed, [&issuer], NOW_S * 1_000).is_err());
    }
}

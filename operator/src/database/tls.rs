//! Certificates of data nodes, for each other and for clients: an authority per database, and
//! one certificate for all its nodes, renewed long before it expires.  Nodes read the mounted
//! files again when they change; nothing restarts.
//!
//! Whoever has a certificate of this authority passes for a data node among them, so it signs
//! for nobody else, and no client of the REST API is asked for one of it.

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::tz::TimeZone;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rhumb_crds::names;
use rhumb_crds::vector_database::VectorDatabase;
use serde_json::{Value, json};

use super::{children, pod};

const RENEW_AFTER: &str = "rhumb.dev/renew-after";
/// Whose signature and which names a certificate carries.
const ISSUED_FOR: &str = "rhumb.dev/issued-for";

const DAY: SignedDuration = SignedDuration::from_hours(24);
const CA_DAYS: i32 = 3650;
const NODE_DAYS: i32 = 90;
const NODE_RENEWED_AFTER_DAYS: i32 = 60;

/// The three Secrets as they are.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    pub ca_key: Option<Secret>,
    pub ca: Option<Secret>,
    pub node: Option<Secret>,
}

struct Authority {
    certificate: String,
    key: KeyPair,
}

/// The Secrets that have to be written; none when all are good.
pub fn due(db: &VectorDatabase, found: &Secrets, now: Timestamp) -> Result<Vec<Value>, rcgen::Error> {
    let name = db.metadata.name.as_deref().unwrap_or_default();
    let mut write = Vec::new();
    let known = found.ca_key.as_ref().and_then(authority);
    let (authority, bundle) = match known {
        Some(authority) => {
            let bundle = found.ca.as_ref().and_then(|s| text(s, "ca.crt"));
            let bundle = bundle.filter(|bundle| bundle.contains(&authority.certificate));
            (authority, bundle)
        }
        None => {
            let authority = new_authority(name, now)?;
            let data = json!({ "tls.crt": authority.certificate, "tls.key": authority.key.serialize_pem() });
            write.push(children::secret(
                db,
                &names::ca_key(name),
                "kubernetes.io/tls",
                json!({}),
                data,
            ));
            (authority, None)
        }
    };
    let bundle = match bundle {
        Some(bundle) => bundle,
        None => {
            // The one before stays trusted, since certificates under it are still in use.
            let before = found
                .ca
                .as_ref()
                .and_then(|s| text(s, "ca.crt"))
                .unwrap_or_default();
            let bundle = format!("{}{}", authority.certificate, first_certificate(&before));
            write.push(children::secret(
                db,
                &names::ca(name),
                "Opaque",
                json!({}),
                json!({ names::CA_CERTIFICATE: bundle }),
            ));
            bundle
        }
    };
    let issued_for = pod::fingerprint(&json!([bundle, subject_names(db)]));
    if !found
        .node
        .as_ref()
        .is_some_and(|node| is_good(node, &issued_for, now))
    {
        let (certificate, key) = issue(db, &authority, now)?;
        let renew = now
            .saturating_add(DAY * NODE_RENEWED_AFTER_DAYS)
            .unwrap_or(Timestamp::MAX);
        let annotations = json!({ RENEW_AFTER: renew.to_string(), ISSUED_FOR: issued_for });
        let data = json!({ "tls.crt": certificate, "tls.key": key, "ca.crt": bundle });
        write.push(children::secret(
            db,
            &names::node_tls(name),
            "kubernetes.io/tls",
            annotations,
            data,
        ));
    }
    Ok(write)
}

fn is_good(node: &Secret, issued_for: &str, now: Timestamp) -> bool {
    let annotations = node.metadata.annotations.clone().unwrap_or_default();
    let renew = annotations
        .get(RENEW_AFTER)
        .and_then(|at| at.parse::<Timestamp>().ok());
    let complete = ["tls.crt", "tls.key", "ca.crt"]
        .iter()
        .all(|key| text(node, key).is_some());
    complete
        && renew.is_some_and(|renew| now < renew)
        && annotations
            .get(ISSUED_FOR)
            .is_some_and(|found| found == issued_for)
}

fn authority(secret: &Secret) -> Option<Authority> {
    let certificate = text(secret, "tls.crt")?;
    let key = KeyPair::from_pem(&text(secret, "tls.key")?).ok()?;
    Some(Authority { certificate, key })
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    let bytes = secret.data.as_ref()?.get(key)?;
    String::from_utf8(bytes.0.clone())
        .ok()
        .filter(|text| !text.is_empty())
}

fn first_certificate(bundle: &str) -> &str {
    const END: &str = "-----END CERTIFICATE-----\n";
    bundle.find(END).map_or("", |at| &bundle[..at + END.len()])
}

fn valid(params: &mut CertificateParams, now: Timestamp, days: i32) {
    // From the day before, for clocks that are behind.
    let day = |at: Timestamp| {
        let date = at.to_zoned(TimeZone::UTC).date();
        date_time_ymd(date.year().into(), date.month() as u8, date.day() as u8)
    };
    params.not_before = day(now.saturating_sub(DAY).unwrap_or(Timestamp::MIN));
    params.not_after = day(now.saturating_add(DAY * days).unwrap_or(Timestamp::MAX));
}

fn new_authority(name: &str, now: Timestamp) -> Result<Authority, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = common_name(&format!("rhumb {name}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(&mut params, now, CA_DAYS);
    let certificate = params.self_signed(&key)?.pem();
    Ok(Authority { certificate, key })
}

fn issue(
    db: &VectorDatabase,
    authority: &Authority,
    now: Timestamp,
) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(subject_names(db))?;
    params.distinguished_name = common_name("rhumb data node");
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    valid(&mut params, now, NODE_DAYS);
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate, &authority.key)?;
    let certificate = params.signed_by(&key, &issuer)?.pem();
    Ok((certificate, key.serialize_pem()))
}

/// Peers ask for the first; the others are what clients of the Service call it, the last two
/// through `kubectl port-forward`.
fn subject_names(db: &VectorDatabase) -> Vec<String> {
    let name = db.metadata.name.as_deref().unwrap_or_default();
    let namespace = db.metadata.namespace.as_deref().unwrap_or_default();
    vec![
        pod::peer_name(db),
        name.to_owned(),
        format!("{name}.{namespace}"),
        format!("{name}.{namespace}.svc"),
        format!("{name}.{namespace}.svc.cluster.local"),
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
    ]
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

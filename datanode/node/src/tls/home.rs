//! The authority and the certificate of a standalone server, in its home.
//!
//! Made when missing; the certificate is made again when less than `RENEW_MS` of it is left,
//! by the same authority, so clients that trust `ca.crt` notice nothing.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use rhumb_core::time;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::expiry;

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
const CA_DAYS: i64 = 3_650;
const CERT_DAYS: i64 = 397;
const RENEW_MS: i64 = 30 * DAY_MS;

#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("the certificates cannot be made: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// `ca.crt`, `ca.key`, `server.crt`, `server.key` in `folder`, for these names.
pub fn ensure(folder: &Path, names: &[String], now_ms: i64) -> Result<(), HomeError> {
    let at = |name: &str| folder.join(name);
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder);
    made.map_err(|source| HomeError::File {
        path: folder.to_owned(),
        source,
    })?;
    let is_there = |name: &str| at(name).exists();
    if is_there("server.crt") && is_there("server.key") && !is_due(&at("server.crt"), now_ms) {
        return Ok(());
    }
    let authority = if is_there("ca.key") && is_there("ca.crt") {
        let pem = std::fs::read_to_string(at("ca.key")).map_err(|source| HomeError::File {
            path: at("ca.key"),
            source,
        })?;
        KeyPair::from_pem(&pem)?
    } else if is_there("ca.crt") {
        // Somebody took the authority's key to a safe place: they renew.
        return Ok(());
    } else {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        write(&at("ca.key"), &key.serialize_pem(), 0o600)?;
        let certificate = authority_of(now_ms)?.self_signed(&key)?;
        write(&at("ca.crt"), &certificate.pem(), 0o644)?;
        key
    };
    let issuer = Issuer::new(authority_of(now_ms)?, authority);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name = named("rhumb server");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    valid(&mut params, now_ms, CERT_DAYS);
    let certificate = params.signed_by(&key, &issuer)?;
    write(&at("server.key"), &key.serialize_pem(), 0o600)?;
    write(&at("server.crt"), &certificate.pem(), 0o644)
}

/// Only what goes into the certificates it signs must be the same each time: its name.
fn authority_of(now_ms: i64) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = named("rhumb home authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(&mut params, now_ms, CA_DAYS);
    Ok(params)
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// From the day before `now_ms` (clocks differ) for so many days.
fn valid(params: &mut CertificateParams, now_ms: i64, days: i64) {
    let day = |ms| {
        let (year, month, day) = day_of(ms);
        date_time_ymd(year, month, day)
    };
    params.not_before = day(now_ms - DAY_MS);
    params.not_after = day(now_ms + days * DAY_MS);
}

fn day_of(ms: i64) -> (i32, u8, u8) {
    let text = time::format(ms);
    let digits = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
    (
        digits(0, 4).parse().unwrap_or(1970),
        digits(5, 7).parse().unwrap_or(1),
        digits(8, 10).parse().unwrap_or(1),
    )
}

fn is_due(certificate: &Path, now_ms: i64) -> bool {
    let left = std::fs::read(certificate)
        .ok()
        .and_then(|pem| CertificateDer::from_pem_slice(&pem).ok())
        .and_then(|der| expiry::not_after_ms(&der));
    // What cannot be read is for the one who loads it to name.
    left.is_some_and(|until| until - now_ms < RENEW_MS)
}

/// Whole or not at all: whoever reads it meanwhile sees the old one.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), HomeError> {
    let failed = |source| HomeError::File {
        path: path.to_owned(),
        source,
    };
    let fresh = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&fresh)
        .map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    std::fs::rename(&fresh, path).map_err(failed)
}

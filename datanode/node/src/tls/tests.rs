use rhumb_seams::{Ids, Rand};

use super::*;

const NOW_MS: i64 = 1_790_000_000_000;
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

struct Home(PathBuf);

impl Home {
    fn new() -> Self {
        let ids = Ids::new(Clock::starting_at(0), Rand::from_entropy());
        Self(std::env::temp_dir().join(format!("rhumb-home-{}", ids.ulid())))
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).expect(name)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // What is left over lies in the machine's own folder for such things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn names() -> Vec<String> {
    vec!["localhost".into(), "127.0.0.1".into()]
}

#[tokio::test]
async fn a_home_is_made_once_and_its_certificate_renewed_by_the_same_authority() {
    let home = Home::new();
    home::ensure(&home.0, &names(), NOW_MS).expect("made");
    let (authority, first) = (home.read("ca.crt"), home.read("server.crt"));
    home::ensure(&home.0, &names(), NOW_MS + DAY_MS).expect("nothing to do");
    assert_eq!(home.read("server.crt"), first);
    home::ensure(&home.0, &names(), NOW_MS + 380 * DAY_MS).expect("renewed");
    assert_ne!(home.read("server.crt"), first);
    assert_eq!(home.read("ca.crt"), authority);
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authority.as_bytes()).expect("one") {
        roots.add(certificate).expect("an authority");
    }
    for pem in [first, home.read("server.crt")] {
        let leaf = certificates(pem.as_bytes()).expect("one");
        let parsed = webpki::EndEntityCert::try_from(&leaf[0]).expect("a certificate");
        let at = std::time::Duration::from_millis((NOW_MS + 5 * DAY_MS) as u64);
        let verified = parsed.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &roots.roots,
            &[],
            rustls::pki_types::UnixTime::since_unix_epoch(at),
            webpki::KeyUsage::server_auth(),
            None,
            None,
        );
        let is_later = verified
            .as_ref()
            .is_err_and(|e| matches!(e, webpki::Error::CertNotValidYet { .. }));
        assert!(verified.is_ok() || is_later, "{:?}", verified.err());
    }
}

#[test]
fn secrets_of_a_home_are_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    home::ensure(&home.0, &names(), NOW_MS).expect("made");
    for name in ["ca.key", "server.key"] {
        let mode = std::fs::metadata(home.0.join(name))
            .expect(name)
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn the_end_of_a_certificate_is_read_from_it() {
    let home = Home::new();
    home::ensure(&home.0, &names(), NOW_MS).expect("made");
    let leaf = certificates(home.read("server.crt").as_bytes()).expect("one");
    let until = expiry::not_after_ms(&leaf[0]).expect("a time");
    assert!((until - NOW_MS - 397 * DAY_MS).abs() <= DAY_MS);
    for end in 0..leaf[0].len() {
        // Cut anywhere: no panic, and no time where there is none.
        let cut = expiry::not_after_ms(&leaf[0][..end]);
        assert!(cut.is_none());
    }
}

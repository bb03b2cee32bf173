//! The Secrets are put to use: two data nodes shake hands with them.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

use super::*;

struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
}

fn data(world: &World, secret: &str, key: &str) -> Vec<u8> {
    let secret = world.secret(secret).expect("a secret");
    secret.data.expect("data")[key].0.clone()
}

fn identity(world: &World) -> Identity {
    let read = |key: &str| data(world, "words-node-tls", key);
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&read("ca.crt")) {
        roots.add(certificate.expect("PEM")).expect("a root");
    }
    Identity {
        chain: CertificateDer::pem_slice_iter(&read("tls.crt"))
            .map(|c| c.expect("PEM"))
            .collect(),
        key: PrivateKeyDer::from_pem_slice(&read("tls.key")).expect("a key"),
        roots: Arc::new(roots),
    }
}

/// Mutual TLS, in memory; the client asks for `name`.
fn shake_hands(server: Identity, client: Identity, name: &'static str) -> Result<(), rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(server.roots, provider.clone())
        .build()
        .expect("roots");
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(server.chain, server.key)?;
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(client.roots)
        .with_client_auth_cert(client.chain, client.key)?;
    let mut server = ServerConnection::new(Arc::new(server))?;
    let name = ServerName::try_from(name).expect("a name");
    let mut client = ClientConnection::new(Arc::new(client), name)?;
    for _ in 0..8 {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).expect("in memory");
        server.read_tls(&mut wire.as_slice()).expect("in memory");
        server.process_new_packets()?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).expect("in memory");
        client.read_tls(&mut wire.as_slice()).expect("in memory");
        client.process_new_packets()?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(())
}

/// Certificates are judged by the machine's clock, so the world starts now.
async fn world() -> World {
    let mut world = World::new();
    let settings = world.context.settings.clone();
    let context = Context::new(
        world.api.client(),
        settings,
        reqwest::Client::new(),
        Clock::system(),
    );
    world.context = Arc::new(context);
    world.settle().await;
    world
}

#[tokio::test]
async fn nodes_trust_each_other_and_nobody_else() {
    let (world, stranger) = (world().await, world().await);
    shake_hands(identity(&world), identity(&world), "words-nodes.prod.svc").expect("peers");
    for service in [
        "words",
        "words.prod.svc",
        "words.prod.svc.cluster.local",
        "localhost",
    ] {
        shake_hands(identity(&world), identity(&world), service).expect("the Service");
    }
    shake_hands(identity(&world), identity(&world), "other-nodes.prod.svc")
        .expect_err("another database's name");
    shake_hands(identity(&world), identity(&stranger), "words-nodes.prod.svc")
        .expect_err("another authority");
}

#[tokio::test]
async fn the_public_secret_holds_no_key() {
    let world = world().await;
    let public = world
        .api
        .get(&format!("{CORE}/secrets/words-ca"))
        .expect("public");
    let keys: Vec<&String> = public["data"].as_object().expect("data").keys().collect();
    assert_eq!(keys, ["ca.crt"]);
    let mounted = world.get("Deployment")["spec"]["template"]["spec"]["volumes"].to_string();
    assert!(!mounted.contains("words-ca-key"));
}

#[tokio::test]
async fn a_certificate_is_renewed_in_time_under_the_same_authority() {
    let world = World::new();
    world.settle().await;
    let (ca, before) = (
        data(&world, "words-ca", "ca.crt"),
        data(&world, "words-node-tls", "tls.crt"),
    );
    let at = |days: i64| {
        let clock = Clock::starting_at(1_800_000_000_000 + days * 86_400_000);
        let context = Context::new(
            world.api.client(),
            world.context.settings.clone(),
            reqwest::Client::new(),
            clock,
        );
        World {
            api: world.api.clone(),
            context: Arc::new(context),
        }
    };
    at(59).settle().await;
    assert_eq!(data(&world, "words-node-tls", "tls.crt"), before);
    let template = world.get("Deployment")["spec"]["template"].clone();
    at(61).settle().await;
    assert_ne!(data(&world, "words-node-tls", "tls.crt"), before);
    assert_eq!(data(&world, "words-ca", "ca.crt"), ca);
    assert_eq!(
        world.get("Deployment")["spec"]["template"],
        template,
        "nobody restarts for it"
    );
}

#[tokio::test]
async fn a_new_authority_still_trusts_what_the_old_one_signed() {
    let world = world().await;
    let old = identity(&world);
    world.api.remove(&format!("{CORE}/secrets/words-ca-key"));
    world.settle().await;
    shake_hands(identity(&world), old, "words-nodes.prod.svc")
        .expect_err("the old node does not know the new authority yet");
    let old_bundle = data(&world, "words-ca", "ca.crt");
    assert_eq!(
        String::from_utf8_lossy(&old_bundle)
            .matches("BEGIN CERTIFICATE")
            .count(),
        2
    );
    shake_hands(identity(&world), identity(&world), "words-nodes.prod.svc").expect("peers under the new one");
}

//! A database that speaks TLS and asks for the admin key.

use std::io::{Read, Write};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;

const KEY: &str = "rhk_admin_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Has every collection as `spec` declares it, and shows it to the admin.
struct Secured {
    endpoint: String,
    ca: String,
}

impl Secured {
    fn listen() -> Self {
        let ca_key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let ca = params.self_signed(&ca_key).expect("signed").pem();
        let issuer = Issuer::from_ca_cert_pem(&ca, &ca_key).expect("an authority");
        let key = KeyPair::generate().expect("a key");
        let names = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let certificate: CertificateDer<'static> = names.signed_by(&key, &issuer).expect("signed").into();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("protocols")
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate],
                PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
            )
            .expect("a pair");
        let config = Arc::new(config);
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = socket.local_addr().expect("bound").port();
        std::thread::spawn(move || {
            for stream in socket.incoming().flatten() {
                let connection = ServerConnection::new(config.clone()).expect("a connection");
                // A client that does not trust it hangs up.
                let _ = answer(StreamOwned::new(connection, stream));
            }
        });
        let endpoint = format!("https://localhost:{port}");
        Self { endpoint, ca }
    }

    async fn world(&self) -> World {
        let world = World::new(spec()).await;
        world.api.edit(&format!("{RHUMB}/vectordatabases/small"), |db| {
            db["status"]["endpoints"]["rest"] = self.endpoint.as_str().into();
        });
        world
    }
}

fn answer(mut stream: StreamOwned<ServerConnection, std::net::TcpStream>) -> std::io::Result<()> {
    let (mut head, mut part) = (String::new(), [0; 1024]);
    while !head.contains("\r\n\r\n") {
        let read = stream.read(&mut part)?;
        if read == 0 {
            return Ok(());
        }
        head.push_str(&String::from_utf8_lossy(&part[..read]));
    }
    let (status, body) = match head
        .to_lowercase()
        .contains(&format!("bearer {KEY}").to_lowercase())
    {
        true => (
            "200 OK",
            json!({ "id": "01ID", "partitions": 1, "fields": spec()["fields"] }),
        ),
        false => (
            "401 Unauthorized",
            json!({ "detail": "the credentials are not valid" }),
        ),
    };
    let body = body.to_string();
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )?;
    stream.conn.send_close_notify();
    stream.flush()
}

fn put_secret(world: &World, name: &str, key: &str, value: &str) {
    world.api.put(
        &format!("/api/v1/namespaces/prod/secrets/{name}"),
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": { key: value } }),
    );
}

#[tokio::test]
async fn a_secured_database_is_shown_its_admin_key_under_its_own_authority() {
    let database = Secured::listen();
    let world = database.world().await;
    world.settle().await;
    assert_eq!(
        (world.ready().1, world.ready().2),
        ("SecretMissing".into(), "Secret small-admin has no api-key".into())
    );
    put_secret(&world, "small-admin", "api-key", KEY);
    world.settle().await;
    assert_eq!(world.ready().2, "Secret small-ca has no ca.crt");
    put_secret(&world, "small-ca", "ca.crt", &database.ca);
    world.settle().await;
    assert_eq!(
        (world.ready().0, world.ready().1),
        ("True".into(), "AsDeclared".into())
    );
}

/// Data nodes read a new key a while after it was put into the Secret.
#[tokio::test]
async fn a_key_that_is_refused_is_waited_for() {
    let database = Secured::listen();
    let world = database.world().await;
    put_secret(&world, "small-admin", "api-key", &KEY.replace("AA", "BA"));
    put_secret(&world, "small-ca", "ca.crt", &database.ca);
    world.settle().await;
    assert_eq!(
        (world.ready().1, world.ready().2),
        ("KeyRefused".into(), "the credentials are not valid".into())
    );
    assert!(
        !world.get()["status"]["conditions"]
            .to_string()
            .contains("Stalled")
    );
}

#[tokio::test]
async fn the_admin_key_is_told_to_nobody_else() {
    let (database, impostor) = (Secured::listen(), Secured::listen());
    let world = impostor.world().await;
    put_secret(&world, "small-admin", "api-key", KEY);
    put_secret(&world, "small-ca", "ca.crt", &database.ca);
    world.settle().await;
    assert_eq!(world.ready().1, "DatabaseNotReachable");
}

//! An OpenID Connect issuer: a process of its own as far as the server can tell, with
//! discovery, a key set, and keys it can rotate.

use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

pub struct Issuer {
    pub name: String,
    key: EcdsaKeyPair,
    kid: String,
    published: Arc<Mutex<Value>>,
}

pub fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub fn now_s() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_secs()
}

impl Issuer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let name = format!(
            "http://127.0.0.1:{}",
            listener.local_addr().expect("an address").port()
        );
        let published = Arc::new(Mutex::new(Value::Null));
        tokio::spawn(serve(listener, name.clone(), published.clone()));
        let mut issuer = Self {
            name,
            key: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"),
            kid: String::new(),
            published,
        };
        issuer.rotate("k1");
        issuer
    }

    pub fn rotate(&mut self, kid: &str) {
        self.key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        self.kid = kid.to_owned();
        let point = self.key.public_key().as_ref();
        let jwk = json!({"kty": "EC", "crv": "P-256", "kid": kid, "use": "sig",
            "x": b64(&point[1..33]), "y": b64(&point[33..])});
        *self.published.lock().expect("not poisoned") = json!({"keys": [jwk]});
    }

    pub fn claims(&self) -> Value {
        json!({"iss": self.name, "sub": "ada", "aud": "rhumb", "exp": now_s() + 300, "groups": ["dba"], "org": "x"})
    }

    pub fn token(&self, claims: &Value) -> String {
        self.signed(&json!({"alg": "ES256", "kid": self.kid, "typ": "JWT"}), claims)
    }

    pub fn signed(&self, header: &Value, claims: &Value) -> String {
        let said = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
        let sign = self
            .key
            .sign(&SystemRandom::new(), said.as_bytes())
            .expect("signed");
        format!("{said}.{}", b64(sign.as_ref()))
    }

    /// Of a server that believes this issuer.
    pub fn config(&self) -> String {
        format!(
            "[[security.issuers]]\nissuer = \"{}\"\naudiences = [\"rhumb\"]\nroles_claim = \"groups\"\n\
             roles = {{ dba = [\"editor\"] }}\neverybody = [\"reader\"]\n",
            self.name
        )
    }
}

async fn serve(listener: TcpListener, name: String, published: Arc<Mutex<Value>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut head = vec![0; 4096];
        let read = stream.read(&mut head).await.unwrap_or(0);
        let head = String::from_utf8_lossy(&head[..read]).into_owned();
        let body = if head.starts_with("GET /.well-known/openid-configuration ") {
            json!({"issuer": name, "jwks_uri": format!("{name}/keys")})
        } else {
            published.lock().expect("not poisoned").clone()
        };
        let body = body.to_string();
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        // Whoever asked may have gone.
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}

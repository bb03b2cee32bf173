//! The way to a collection: the URL of its database and, where that asks for them, the admin
//! key and the database's own authority.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};
use reqwest::{Certificate, Method};
use rhumb_crds::names;
use rhumb_crds::vector_database::VectorDatabase;
use serde_json::Value;

use crate::context::{CONNECT_TIMEOUT, Context, Error};
use crate::database::admin_key_in;

const CALL_TIMEOUT: Duration = Duration::from_secs(20);

pub struct Door {
    http: reqwest::Client,
    url: String,
    key: Option<String>,
}

/// What is missing for it to open, in words.
pub struct Shut(pub String);

/// Anything but success; 0 when there was no answer.
pub struct Answer {
    pub status: u16,
    pub detail: String,
}

impl Door {
    /// `endpoint` as the database's status has it.  The key leaves only over HTTPS, to whoever
    /// this database's authority vouches for.
    pub async fn open(
        database: &VectorDatabase,
        endpoint: &str,
        collection: &str,
        context: &Context,
    ) -> Result<Result<Self, Shut>, Error> {
        let url = format!("{endpoint}/v1/collections/{collection}");
        if !endpoint.starts_with("https://") {
            let http = context.http.clone();
            return Ok(Ok(Self { http, url, key: None }));
        }
        let namespace = database.namespace().unwrap_or_default();
        let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &namespace);
        let (admin, ca) = (
            names::admin(&database.name_any()),
            names::ca(&database.name_any()),
        );
        let secret = secrets.get_opt(&admin).await?;
        let Some(key) = secret.as_ref().and_then(admin_key_in) else {
            return Ok(Err(Shut(format!("Secret {admin} has no {}", names::ADMIN_KEY))));
        };
        let authority = secrets.get_opt(&ca).await?.and_then(|secret| secret.data);
        let pem = authority
            .as_ref()
            .and_then(|data| data.get(names::CA_CERTIFICATE));
        let trusted = pem.and_then(|pem| Certificate::from_pem_bundle(&pem.0).ok());
        let Some(trusted) = trusted.filter(|trusted| !trusted.is_empty()) else {
            return Ok(Err(Shut(format!("Secret {ca} has no {}", names::CA_CERTIFICATE))));
        };
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .https_only(true)
            .no_proxy()
            .tls_certs_only(trusted)
            .build()?;
        let key = Some(key.to_owned());
        Ok(Ok(Self { http, url, key }))
    }

    pub async fn call(&self, method: Method, body: Option<Value>) -> Result<Value, Answer> {
        let mut request = self.http.request(method, &self.url).timeout(CALL_TIMEOUT);
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        if let Some(body) = &body {
            request = request.json(body);
        }
        let lost = |error: reqwest::Error| Answer {
            status: 0,
            detail: error.to_string(),
        };
        let response = request.send().await.map_err(lost)?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(lost)?;
        let answer: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok(answer);
        }
        let text = |key: &str| answer[key].as_str().map(str::to_owned);
        Err(Answer {
            status: status.as_u16(),
            detail: text("detail")
                .or(text("title"))
                .unwrap_or_else(|| status.to_string()),
        })
    }
}

//! S3 and everything that speaks it.  Credentials, region and endpoint come from the
//! environment as for every S3 tool.  The client's own retries are off: they turn the lost
//! answer of a conditional PUT into "already exists"; `retry.rs` does it with put-ids.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};
use object_store::{BackoffConfig, ClientConfigKey, ClientOptions, ObjectStore, RetryConfig};

use crate::failure::Failure;
use crate::{Result, StoreError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Longer than a pause between two writes, shorter than any load balancer's patience.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// Makes a client; sends nothing.  `overrides` are `AWS_…` variables that go before those
/// of the process.
pub(crate) fn connect(bucket: &str, overrides: &[(String, String)]) -> Result<Arc<dyn ObjectStore>> {
    let mut builder = AmazonS3Builder::from_env();
    for (name, value) in overrides {
        let key: AmazonS3ConfigKey = name
            .to_ascii_lowercase()
            .parse()
            .map_err(|source| StoreError::Config { source })?;
        builder = builder.with_config(key, value);
    }
    if builder.get_config_value(&AmazonS3ConfigKey::Region).is_none() {
        builder = builder.with_region("us-east-1");
    }
    let endpoint = builder
        .get_config_value(&AmazonS3ConfigKey::S3Endpoint)
        .or_else(|| builder.get_config_value(&AmazonS3ConfigKey::Endpoint));
    let over_http = endpoint
        .as_ref()
        .is_some_and(|endpoint| endpoint.starts_with("http://"));
    if endpoint.is_some() {
        builder = builder.with_virtual_hosted_style_request(false);
    }
    let defaults = [
        (ClientConfigKey::ConnectTimeout, CONNECT_TIMEOUT),
        (ClientConfigKey::Timeout, REQUEST_TIMEOUT),
        (ClientConfigKey::PoolIdleTimeout, IDLE_TIMEOUT),
    ];
    for (key, default) in defaults.map(|(key, default)| (AmazonS3ConfigKey::Client(key), default)) {
        if builder.get_config_value(&key).is_none() {
            builder = builder.with_config(key, format!("{}s", default.as_secs()));
        }
    }
    if over_http {
        builder = builder.with_allow_http(true);
    }
    let no_retries = RetryConfig {
        max_retries: 0,
        retry_timeout: Duration::ZERO,
        backoff: BackoffConfig::default(),
    };
    let store = builder
        .with_bucket_name(bucket)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_retry(no_retries)
        .with_http_connector(Connector)
        .build()
        .map_err(|source| StoreError::Config { source })?;
    Ok(Arc::new(store))
}

/// An answer that `object_store` has no error of its own for.  It keeps the status to
/// itself; whether a PUT may have landed hangs on it.
#[derive(Debug, thiserror::Error)]
#[error("the store answered {status}: {code}")]
pub(crate) struct HttpStatus {
    status: u16,
    /// S3's own word, `SlowDown` or `RequestTimeout`; empty when there is none.
    code: String,
}

impl HttpStatus {
    /// What S3 says to those who come too fast.
    pub(crate) fn slow_down() -> Self {
        Self {
            status: 503,
            code: "SlowDown".into(),
        }
    }

    pub(crate) fn failure(&self) -> Failure {
        match (self.status, self.code.as_str()) {
            (429 | 503, _) | (_, "SlowDown") => Failure::Throttled,
            (400, "RequestTimeout") | (408, _) => Failure::Ambiguous { again: true },
            (400, "ExpiredToken" | "TokenRefreshRequired" | "InvalidToken") => Failure::Denied,
            (501, _) => Failure::Refused,
            (500.., _) => Failure::Ambiguous { again: true },
            _ => Failure::Refused,
        }
    }
}

impl From<HttpStatus> for object_store::Error {
    fn from(status: HttpStatus) -> Self {
        Self::Generic {
            store: "S3",
            source: Box::new(status),
        }
    }
}

#[derive(Debug)]
struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(StatusAsError(client)))
    }
}

#[derive(Debug)]
struct StatusAsError(HttpClient);

#[async_trait]
impl HttpService for StatusAsError {
    async fn call(&self, request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        let response = self.0.execute(request).await?;
        let status = response.status().as_u16();
        // The rest have errors of their own in `object_store`, and the credential
        // providers look at them.
        if matches!(status, 0..=399 | 401 | 403 | 404 | 409 | 412) {
            return Ok(response);
        }
        let body = response.into_body().bytes().await.unwrap_or_default();
        let code = error_code(&String::from_utf8_lossy(&body)).to_owned();
        Err(HttpError::new(
            HttpErrorKind::Unknown,
            HttpStatus { status, code },
        ))
    }
}

/// `<Code>` of an S3 error document.
fn error_code(body: &str) -> &str {
    body.split_once("<Code>")
        .and_then(|(_, rest)| rest.split_once("</Code>"))
        .map_or("", |(code, _)| code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(status: u16, code: &str) -> Failure {
        HttpStatus {
            status,
            code: code.into(),
        }
        .failure()
    }

    #[test]
    fn only_a_plain_refusal_counts_as_not_written() {
        assert_eq!(failure(400, "InvalidArgument"), Failure::Refused);
        assert_eq!(failure(413, ""), Failure::Refused);
        assert_eq!(failure(501, "NotImplemented"), Failure::Refused);
        assert_eq!(failure(400, "ExpiredToken"), Failure::Denied);
        for (status, code) in [
            (500, "InternalError"),
            (502, ""),
            (504, ""),
            (408, ""),
            (400, "RequestTimeout"),
        ] {
            assert_eq!(
                failure(status, code),
                Failure::Ambiguous { again: true },
                "{status} {code}"
            );
        }
        for (status, code) in [(503, "SlowDown"), (503, ""), (429, ""), (400, "SlowDown")] {
            assert_eq!(failure(status, code), Failure::Throttled, "{status} {code}");
            assert!(failure(status, code).may_have_applied());
        }
    }

    #[test]
    fn the_code_is_found_in_an_error_document_and_nowhere_else() {
        let body = "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>m</Message></Error>";
        assert_eq!(error_code(body), "SlowDown");
        assert_eq!(error_code("<html>502 Bad Gateway</html>"), "");
        assert_eq!(error_code("<Code>unclosed"), "");
    }

    #[test]
    fn the_type_of_a_refusal_survives_object_store() {
        let inner = HttpError::new(
            HttpErrorKind::Unknown,
            HttpStatus {
                status: 503,
                code: String::new(),
            },
        );
        let error = object_store::Error::Generic {
            store: "S3",
            source: Box::new(inner),
        };
        assert_eq!(Failure::of(&error), Failure::Throttled);
    }
}

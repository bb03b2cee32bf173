//! Making responses: JSON straight into bytes.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use rhumb_core::Seq;
use serde::Serialize;

pub type Answer = Response<Body>;

pub fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let mut bytes = Vec::with_capacity(256);
    write_json(&mut bytes, value);
    bytes_of(status, "application/json", bytes)
}

/// Appends `value`.  What we serialise has string keys and finite numbers only, so JSON can
/// always hold it, and a `Vec` takes every write.
pub fn write_json(out: &mut Vec<u8>, value: &impl Serialize) {
    let before = out.len();
    if let Err(error) = serde_json::to_writer(&mut *out, value) {
        tracing::error!(%error, "an answer could not be written as JSON");
        out.truncate(before);
        out.extend_from_slice(b"null");
    }
}

pub fn bytes_of(status: StatusCode, content_type: &'static str, bytes: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Body::from(bytes.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

pub fn stream<S>(content_type: &'static str, stream: S) -> Answer
where
    S: futures::Stream<Item = std::io::Result<Bytes>> + Send + 'static,
{
    let mut response = Response::new(Body::from_stream(stream));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

pub fn empty(status: StatusCode) -> Answer {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// With the version as `ETag`.
pub fn tagged(mut answer: Answer, version: Seq) -> Answer {
    answer
        .headers_mut()
        .insert(header::ETAG, super::etag::of(version));
    answer
}

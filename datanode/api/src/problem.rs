//! `application/problem+json`, and the one mapping from a code to its status.

use rhumb_core::Code;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What every refusal looks like (RFC 9457, with more members).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// `urn:rhumb:problem:<code>`
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    /// What is wrong, in words.
    pub detail: String,
    /// What is wrong, for programs; see the list in this schema.
    #[schemars(extend("enum" = names()))]
    pub code: String,
    /// The place in the request, like `upsert[3].embedding`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Also in the header `X-Request-Id` and in the server's log.
    pub request_id: String,
    /// With `partially_applied`: what became of each partition's part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<Vec<crate::PartialOutcome>>,
}

/// Every code there is; a test counts them against `name`.
pub const CODES: [Code; 34] = [
    Code::Malformed,
    Code::BadCursor,
    Code::Unauthenticated,
    Code::Forbidden,
    Code::CollectionNotFound,
    Code::DocumentNotFound,
    Code::IdentityNotFound,
    Code::RouteNotFound,
    Code::MethodNotAllowed,
    Code::RequestTimeout,
    Code::CollectionExists,
    Code::CursorExpired,
    Code::PreconditionFailed,
    Code::BodyTooLarge,
    Code::UnsupportedMediaType,
    Code::DimensionMismatch,
    Code::DuplicateId,
    Code::IdempotencyMismatch,
    Code::InvalidFilter,
    Code::InvalidId,
    Code::InvalidName,
    Code::InvalidValue,
    Code::KOutOfRange,
    Code::LimitExceeded,
    Code::NotFinite,
    Code::QuotaExceeded,
    Code::TypeMismatch,
    Code::UnknownField,
    Code::TooManyRequests,
    Code::OutcomeUnknown,
    Code::PartiallyApplied,
    Code::Unavailable,
    Code::Timeout,
    Code::Internal,
];

fn names() -> Vec<&'static str> {
    CODES.iter().map(|code| name(*code)).collect()
}

pub fn status(code: Code) -> u16 {
    match code {
        Code::Malformed | Code::BadCursor => 400,
        Code::Unauthenticated => 401,
        Code::Forbidden => 403,
        Code::CollectionNotFound | Code::DocumentNotFound | Code::IdentityNotFound | Code::RouteNotFound => {
            404
        }
        Code::MethodNotAllowed => 405,
        Code::RequestTimeout => 408,
        Code::CollectionExists => 409,
        Code::CursorExpired => 410,
        Code::PreconditionFailed => 412,
        Code::BodyTooLarge => 413,
        Code::UnsupportedMediaType => 415,
        Code::DimensionMismatch
        | Code::DuplicateId
        | Code::IdempotencyMismatch
        | Code::InvalidFilter
        | Code::InvalidId
        | Code::InvalidName
        | Code::InvalidValue
        | Code::KOutOfRange
        | Code::LimitExceeded
        | Code::NotFinite
        | Code::QuotaExceeded
        | Code::TypeMismatch
        | Code::UnknownField => 422,
        Code::TooManyRequests => 429,
        Code::Internal => 500,
        Code::OutcomeUnknown | Code::PartiallyApplied | Code::Unavailable => 503,
        Code::Timeout => 504,
    }
}

/// The code as it stands in an answer.
pub fn name(code: Code) -> &'static str {
    match code {
        Code::Malformed => "malformed",
        Code::BadCursor => "bad_cursor",
        Code::Unauthenticated => "unauthenticated",
        Code::Forbidden => "forbidden",
        Code::CollectionNotFound => "collection_not_found",
        Code::DocumentNotFound => "document_not_found",
        Code::IdentityNotFound => "identity_not_found",
        Code::RouteNotFound => "not_found",
        Code::MethodNotAllowed => "method_not_allowed",
        Code::RequestTimeout => "request_timeout",
        Code::CollectionExists => "collection_exists",
        Code::CursorExpired => "cursor_expired",
        Code::PreconditionFailed => "precondition_failed",
        Code::BodyTooLarge => "body_too_large",
        Code::UnsupportedMediaType => "unsupported_media_type",
        Code::DimensionMismatch => "dimension_mismatch",
        Code::DuplicateId => "duplicate_id",
        Code::IdempotencyMismatch => "idempotency_mismatch",
        Code::InvalidFilter => "invalid_filter",
        Code::InvalidId => "invalid_id",
        Code::InvalidName => "invalid_name",
        Code::InvalidValue => "invalid_value",
        Code::KOutOfRange => "k_out_of_range",
        Code::LimitExceeded => "limit_exceeded",
        Code::NotFinite => "not_finite",
        Code::QuotaExceeded => "quota_exceeded",
        Code::TypeMismatch => "type_mismatch",
        Code::UnknownField => "unknown_field",
        Code::TooManyRequests => "too_many_requests",
        Code::OutcomeUnknown => "outcome_unknown",
        Code::PartiallyApplied => "partially_applied",
        Code::Unavailable => "unavailable",
        Code::Timeout => "timeout",
        Code::Internal => "internal",
    }
}

/// The short text of RFC 9457's `title`: the same for every problem of one code.
pub fn title(code: Code) -> &'static str {
    match code {
        Code::Malformed => "The request has not the shape this route takes",
        Code::BadCursor => "The cursor is not one of this server's",
        Code::Unauthenticated => "This needs valid credentials",
        Code::Forbidden => "These credentials do not allow this",
        Code::CollectionNotFound => "There is no such collection",
        Code::DocumentNotFound => "There is no such document",
        Code::IdentityNotFound => "There is no such key, user, group or role",
        Code::RouteNotFound => "There is no such route",
        Code::MethodNotAllowed => "This route does not take this method",
        Code::RequestTimeout => "The request did not arrive in time",
        Code::CollectionExists => "The collection exists with another definition",
        Code::CursorExpired => "The cursor has outlived its snapshot",
        Code::PreconditionFailed => "The condition does not hold",
        Code::BodyTooLarge => "The body is too large",
        Code::UnsupportedMediaType => "This content type is not taken here",
        Code::DimensionMismatch => "The vector has another dimension than its field",
        Code::DuplicateId => "One id is there twice",
        Code::IdempotencyMismatch => "The idempotency key was used with another request",
        Code::InvalidFilter => "The filter is not valid",
        Code::InvalidId => "The id is not valid",
        Code::InvalidName => "The name is not valid",
        Code::InvalidValue => "A value is not valid",
        Code::KOutOfRange => "k is out of range",
        Code::LimitExceeded => "The request is over a limit",
        Code::NotFinite => "A number is not finite",
        Code::QuotaExceeded => "The collection is full",
        Code::TypeMismatch => "A value has another type than its field",
        Code::UnknownField => "There is no such field",
        Code::TooManyRequests => "The server is busy",
        Code::OutcomeUnknown => "It is not known whether the write was applied",
        Code::PartiallyApplied => "The write was applied in part",
        Code::Unavailable => "The server cannot do this now",
        Code::Timeout => "The time was up before the answer was ready",
        Code::Internal => "The server made a mistake",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_in_the_list_once_and_has_its_own_name() {
        // `Internal` is the last variant, so its number is how many came before it.
        assert_eq!(Code::Internal as usize + 1, CODES.len());
        let mut names = names();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CODES.len());
        assert!(CODES.iter().enumerate().all(|(at, code)| *code as usize == at));
    }

    #[test]
    fn only_our_own_mistake_is_a_500() {
        for code in CODES {
            assert_eq!(status(code) == 500, code == Code::Internal, "{code:?}");
        }
    }
}

//! What several routes have in common: parameters, answers, codes of refusals.

use rhumb_core::Code;

use super::{Answer, Body, JSON, Kind, Param, Place, SchemaOf};

pub(super) const fn text(name: &'static str, place: Place, about: &'static str) -> Param {
    Param {
        name,
        place,
        kind: Kind::Text,
        about,
    }
}

pub(super) const COLLECTION: &[Param] = &[text("collection", Place::Path, "`[a-z0-9][a-z0-9_-]{0,127}`")];
pub(super) const ID: &[Param] = &[text(
    "id",
    Place::Path,
    "The id, percent-encoded; a number when the collection's ids are numbers",
)];
pub(super) const SESSION: &[Param] = &[text(
    "Rhumb-Session",
    Place::Header,
    "The token of an earlier answer: with `session` consistency the read sees at least what that answer saw",
)];
pub(super) const CONSISTENCY: &[Param] = &[Param {
    name: "consistency",
    place: Place::Query,
    kind: Kind::OneOf(&["strong", "verified", "session", "eventual"]),
    about: "What the read must see; `strong` when left out",
}];
pub(super) const KEY: &[Param] = &[text(
    "Idempotency-Key",
    Place::Header,
    "1 to 128 printable ASCII characters: a repeat within 24 hours gets the first answer",
)];
pub(super) const IF_MATCH: &[Param] = &[
    text(
        "If-Match",
        Place::Header,
        "ETags, or `*`: only when the stored version is one of them, else 412",
    ),
    text(
        "If-None-Match",
        Place::Header,
        "`*`: only when there is no such document, else 412",
    ),
];
pub(super) const IF_NONE_MATCH: &[Param] = &[
    text(
        "If-None-Match",
        Place::Header,
        "ETags: 304 when the stored version is one of them",
    ),
    text(
        "If-Match",
        Place::Header,
        "ETags, or `*`: only when the stored version is one of them, else 412",
    ),
];
pub(super) const INCLUDE: &[Param] = &[text(
    "include",
    Place::Query,
    "Names of attributes, with commas; `true` (the default) for all, `false` for none",
)];
pub(super) const PAGE: &[Param] = &[
    Param {
        name: "limit",
        place: Place::Query,
        kind: Kind::Integer { min: 1, max: 10_000 },
        about: "How many on a page; 100 when left out",
    },
    text("cursor", Place::Query, "The `cursor` of the page before"),
];
pub(super) const SCAN: &[Param] = &[
    text("start", Place::Query, "The first id, included"),
    text("end", Place::Query, "The last id, excluded"),
    text("prefix", Place::Query, "Only ids that start with it"),
    text("filter", Place::Query, "JSON when it starts with `{`, else SQL"),
    text(
        "order_by",
        Place::Query,
        "An attribute, with `-` before it to descend; ids when left out",
    ),
];
pub(super) const LIST: &[Param] = &[text("prefix", Place::Query, "Only names that start with it")];
pub(super) const FORMAT: &[Param] = &[
    Param {
        name: "format",
        place: Place::Query,
        kind: Kind::OneOf(&["ndjson", "parquet", "arrow"]),
        about: "`ndjson` when left out",
    },
    text(
        "filter",
        Place::Query,
        "Only documents that match: JSON when it starts with `{`, else SQL",
    ),
];

pub(super) const fn json(status: u16, about: &'static str, schemas: &'static [SchemaOf]) -> Answer {
    Answer {
        status,
        about,
        content_type: JSON,
        schemas,
        etag: false,
    }
}

pub(super) const fn plain(status: u16, about: &'static str, content_type: &'static str) -> Answer {
    Answer {
        status,
        about,
        content_type,
        schemas: &[],
        etag: false,
    }
}

pub(super) const fn tagged(answer: Answer) -> Answer {
    Answer { etag: true, ..answer }
}

pub(super) const DONE: Answer = plain(204, "Done", "");

pub(super) const fn takes(
    about: &'static str,
    types: &'static [(&'static str, Option<SchemaOf>)],
) -> Option<Body> {
    Some(Body {
        about,
        required: true,
        types,
    })
}

pub(super) const COLLECTION_PATH: &str = "/v1/collections/{collection}";
pub(super) const DOCUMENTS_PATH: &str = "/v1/collections/{collection}/documents";
pub(super) const DOCUMENT_PATH: &str = "/v1/collections/{collection}/documents/{id}";

/// What a body that is typed under a schema may be refused with.
pub(super) const TYPING: &[Code] = &[
    Code::CollectionNotFound,
    Code::DimensionMismatch,
    Code::IdempotencyMismatch,
    Code::InvalidFilter,
    Code::InvalidId,
    Code::InvalidName,
    Code::InvalidValue,
    Code::LimitExceeded,
    Code::NotFinite,
    Code::QuotaExceeded,
    Code::TypeMismatch,
    Code::UnknownField,
    Code::OutcomeUnknown,
];
pub(super) const ONE: &[Code] = &[
    Code::CollectionNotFound,
    Code::DocumentNotFound,
    Code::PreconditionFailed,
    Code::DimensionMismatch,
    Code::IdempotencyMismatch,
    Code::InvalidId,
    Code::InvalidName,
    Code::InvalidValue,
    Code::LimitExceeded,
    Code::NotFinite,
    Code::QuotaExceeded,
    Code::TypeMismatch,
    Code::OutcomeUnknown,
];
pub(super) const WRITING: &[Code] = &[
    Code::CollectionNotFound,
    Code::DimensionMismatch,
    Code::DuplicateId,
    Code::IdempotencyMismatch,
    Code::InvalidFilter,
    Code::InvalidId,
    Code::InvalidName,
    Code::InvalidValue,
    Code::LimitExceeded,
    Code::NotFinite,
    Code::QuotaExceeded,
    Code::TypeMismatch,
    Code::UnknownField,
    Code::OutcomeUnknown,
    Code::PartiallyApplied,
];
pub(super) const READING: &[Code] = &[
    Code::CollectionNotFound,
    Code::InvalidFilter,
    Code::InvalidId,
    Code::InvalidValue,
    Code::LimitExceeded,
    Code::TypeMismatch,
    Code::UnknownField,
    Code::Timeout,
];

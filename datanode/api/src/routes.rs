//! The list of routes.  The server's router and the OpenAPI document are made from it.

use rhumb_core::Code;
use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::{
    Aggregate, AggregateAnswer, CollectionDefinition, CollectionInfo, CollectionList, CollectionPatch,
    DocumentList, GetDocuments, GotDocuments, Health, ImportDone, ImportProgress, OneDocument,
    OptimizeAnswer, OptimizeRequest, Patched, QueryAnswer, QueryRequest, RecallAnswer, RecallRequest, Status,
    WriteAnswer, WriteRequest,
};

/// What the server can be asked to do.  It answers each with one handler, chosen in one
/// exhaustive `match`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    ListCollections,
    PutCollection,
    GetCollection,
    PatchCollection,
    DeleteCollection,
    OptimizeCollection,
    WriteDocuments,
    ScanDocuments,
    GetDocuments,
    PutDocument,
    PatchDocument,
    DeleteDocument,
    GetDocument,
    Import,
    Export,
    Query,
    Recall,
    Aggregate,
    Healthz,
    Readyz,
    Metrics,
    Openapi,
    Status,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    Get,
    Put,
    Post,
    Patch,
    Delete,
}

pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

pub struct Route {
    pub op: Op,
    pub method: Method,
    /// With `{name}` for what varies.
    pub path: &'static str,
    pub summary: &'static str,
    pub params: &'static [&'static [Param]],
    pub request: Option<Body>,
    pub answers: &'static [Answer],
    /// Refusals of its own, besides those that every route with such a body has.
    pub refusals: &'static [Code],
}

pub struct Param {
    pub name: &'static str,
    pub place: Place,
    pub kind: Kind,
    pub about: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Path,
    Query,
    Header,
}

pub enum Kind {
    Text,
    Integer { min: u64, max: u64 },
    OneOf(&'static [&'static str]),
}

pub struct Body {
    pub about: &'static str,
    pub required: bool,
    /// Content types and their schemas; bytes when there is none.
    pub types: &'static [(&'static str, Option<SchemaOf>)],
}

/// Answers of one status with several content types stand one after the other.
pub struct Answer {
    pub status: u16,
    pub about: &'static str,
    /// Empty when there is no body.
    pub content_type: &'static str,
    /// Any of these; bytes or text when there is none.
    pub schemas: &'static [SchemaOf],
    pub etag: bool,
}

impl Route {
    /// Names of its parameters in the query string.
    pub fn query_names(&self) -> impl Iterator<Item = &'static str> {
        let all = self.params.iter().flat_map(|group| group.iter());
        all.filter(|param| param.place == Place::Query)
            .map(|param| param.name)
    }

    pub fn is_write(&self) -> bool {
        self.params
            .iter()
            .any(|group| group.iter().any(|param| param.name == "Idempotency-Key"))
    }
}

impl Method {
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Post => "POST",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

impl Op {
    /// As `operationId` and as the label of its metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::ListCollections => "list_collections",
            Self::PutCollection => "put_collection",
            Self::GetCollection => "get_collection",
            Self::PatchCollection => "patch_collection",
            Self::DeleteCollection => "delete_collection",
            Self::OptimizeCollection => "optimize_collection",
            Self::WriteDocuments => "write_documents",
            Self::ScanDocuments => "scan_documents",
            Self::GetDocuments => "get_documents",
            Self::PutDocument => "put_document",
            Self::PatchDocument => "patch_document",
            Self::DeleteDocument => "delete_document",
            Self::GetDocument => "get_document",
            Self::Import => "import",
            Self::Export => "export",
            Self::Query => "query",
            Self::Recall => "recall",
            Self::Aggregate => "aggregate",
            Self::Healthz => "healthz",
            Self::Readyz => "readyz",
            Self::Metrics => "metrics",
            Self::Openapi => "openapi",
            Self::Status => "status",
        }
    }
}

fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

pub const JSON: &str = "application/json";
pub const NDJSON: &str = "application/x-ndjson";
pub const CSV: &str = "text/csv";
pub const ARROW: &str = "application/vnd.apache.arrow.stream";
pub const PARQUET: &str = "application/vnd.apache.parquet";

const fn text(name: &'static str, place: Place, about: &'static str) -> Param {
    Param {
        name,
        place,
        kind: Kind::Text,
        about,
    }
}

const COLLECTION: &[Param] = &[text("collection", Place::Path, "`[a-z0-9][a-z0-9_-]{0,127}`")];
const ID: &[Param] = &[text(
    "id",
    Place::Path,
    "The id, percent-encoded; a number when the collection's ids are numbers",
)];
const SESSION: &[Param] = &[text(
    "Rhumb-Session",
    Place::Header,
    "The token of an earlier answer: with `session` consistency the read sees at least what that answer saw",
)];
const CONSISTENCY: &[Param] = &[Param {
    name: "consistency",
    place: Place::Query,
    kind: Kind::OneOf(&["strong", "verified", "session", "eventual"]),
    about: "What the read must see; `strong` when left out",
}];
const KEY: &[Param] = &[text(
    "Idempotency-Key",
    Place::Header,
    "1 to 128 printable ASCII characters: a repeat within 24 hours gets the first answer",
)];
const IF_MATCH: &[Param] = &[
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
const IF_NONE_MATCH: &[Param] = &[
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
const INCLUDE: &[Param] = &[text(
    "include",
    Place::Query,
    "Names of attributes, with commas; `true` (the default) for all, `false` for none",
)];
const PAGE: &[Param] = &[
    Param {
        name: "limit",
        place: Place::Query,
        kind: Kind::Integer { min: 1, max: 10_000 },
        about: "How many on a page; 100 when left out",
    },
    text("cursor", Place::Query, "The `cursor` of the page before"),
];
const SCAN: &[Param] = &[
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
const LIST: &[Param] = &[text("prefix", Place::Query, "Only names that start with it")];
const FORMAT: &[Param] = &[
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

const fn json(status: u16, about: &'static str, schemas: &'static [SchemaOf]) -> Answer {
    Answer {
        status,
        about,
        content_type: JSON,
        schemas,
        etag: false,
    }
}

const fn plain(status: u16, about: &'static str, content_type: &'static str) -> Answer {
    Answer {
        status,
        about,
        content_type,
        schemas: &[],
        etag: false,
    }
}

const fn tagged(answer: Answer) -> Answer {
    Answer { etag: true, ..answer }
}

const DONE: Answer = plain(204, "Done", "");

const fn takes(about: &'static str, types: &'static [(&'static str, Option<SchemaOf>)]) -> Option<Body> {
    Some(Body {
        about,
        required: true,
        types,
    })
}

const COLLECTION_PATH: &str = "/v1/collections/{collection}";
const DOCUMENTS_PATH: &str = "/v1/collections/{collection}/documents";
const DOCUMENT_PATH: &str = "/v1/collections/{collection}/documents/{id}";

/// What a body that is typed under a schema may be refused with.
const TYPING: &[Code] = &[
    Code::CollectionNotFound,
    Code::DimensionMismatch,
    Code::IdempotencyMismatch,
    Code::InvalidFilter,
    Code::InvalidId,
    Code::InvalidName,
    Code::InvalidValue,
    Code::LimitExceeded,
    Code::NotFinite,
    Code::TypeMismatch,
    Code::UnknownField,
    Code::OutcomeUnknown,
];
const ONE: &[Code] = &[
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
    Code::TypeMismatch,
    Code::OutcomeUnknown,
];
const WRITING: &[Code] = &[
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
    Code::TypeMismatch,
    Code::UnknownField,
    Code::OutcomeUnknown,
    Code::PartiallyApplied,
];
const READING: &[Code] = &[
    Code::CollectionNotFound,
    Code::InvalidFilter,
    Code::InvalidId,
    Code::InvalidValue,
    Code::LimitExceeded,
    Code::TypeMismatch,
    Code::UnknownField,
    Code::Timeout,
];

pub const ROUTES: &[Route] = &[
    Route {
        op: Op::ListCollections,
        method: Method::Get,
        path: "/v1/collections",
        summary: "The collections, in the order of their names",
        params: &[LIST, PAGE],
        request: None,
        answers: &[json(200, "A page of collections", &[of::<CollectionList>])],
        refusals: &[Code::BadCursor, Code::InvalidValue],
    },
    Route {
        op: Op::PutCollection,
        method: Method::Put,
        path: COLLECTION_PATH,
        summary: "Creates a collection",
        params: &[COLLECTION],
        request: takes("Its fields", &[(JSON, Some(of::<CollectionDefinition>))]),
        answers: &[
            json(
                200,
                "The same definition was already there",
                &[of::<CollectionInfo>],
            ),
            json(201, "Created", &[of::<CollectionInfo>]),
        ],
        refusals: &[
            Code::CollectionExists,
            Code::InvalidName,
            Code::InvalidValue,
            Code::LimitExceeded,
            Code::UnknownField,
            Code::OutcomeUnknown,
        ],
    },
    Route {
        op: Op::GetCollection,
        method: Method::Get,
        path: COLLECTION_PATH,
        summary: "A collection: its fields, its size, how far its index is",
        params: &[COLLECTION, CONSISTENCY, SESSION],
        request: None,
        answers: &[json(200, "The collection", &[of::<CollectionInfo>])],
        refusals: &[Code::CollectionNotFound, Code::InvalidName],
    },
    Route {
        op: Op::PatchCollection,
        method: Method::Patch,
        path: COLLECTION_PATH,
        summary: "Adds fields, changes settings of fields",
        params: &[COLLECTION],
        request: takes("New fields and settings", &[(JSON, Some(of::<CollectionPatch>))]),
        answers: &[json(200, "The collection as it is now", &[of::<CollectionInfo>])],
        refusals: &[
            Code::CollectionNotFound,
            Code::InvalidName,
            Code::InvalidValue,
            Code::LimitExceeded,
            Code::TypeMismatch,
            Code::UnknownField,
            Code::OutcomeUnknown,
        ],
    },
    Route {
        op: Op::DeleteCollection,
        method: Method::Delete,
        path: COLLECTION_PATH,
        summary: "Deletes a collection and all its documents",
        params: &[COLLECTION],
        request: None,
        answers: &[DONE],
        refusals: &[Code::CollectionNotFound, Code::InvalidName, Code::OutcomeUnknown],
    },
    Route {
        op: Op::OptimizeCollection,
        method: Method::Post,
        path: "/v1/collections/{collection}/optimize",
        summary: "Moves every acknowledged row into the base table and the index",
        params: &[COLLECTION],
        request: Some(Body {
            about: "Whether to wait; may be left out",
            required: false,
            types: &[(JSON, Some(of::<OptimizeRequest>))],
        }),
        answers: &[
            json(
                200,
                "Every row acknowledged before is in",
                &[of::<OptimizeAnswer>],
            ),
            json(202, "The work has begun", &[of::<OptimizeAnswer>]),
        ],
        refusals: &[Code::CollectionNotFound, Code::UnknownField],
    },
    Route {
        op: Op::WriteDocuments,
        method: Method::Post,
        path: DOCUMENTS_PATH,
        summary: "Writes documents: upsert, patch, delete, with a condition",
        params: &[COLLECTION, KEY, SESSION],
        request: takes("What to write", &[(JSON, Some(of::<WriteRequest>))]),
        answers: &[json(
            200,
            "Durable, and visible to the next strong read",
            &[of::<WriteAnswer>],
        )],
        refusals: WRITING,
    },
    Route {
        op: Op::ScanDocuments,
        method: Method::Get,
        path: DOCUMENTS_PATH,
        summary: "Documents in order, page by page, from one snapshot",
        params: &[COLLECTION, SCAN, INCLUDE, PAGE, CONSISTENCY, SESSION],
        request: None,
        answers: &[json(200, "A page of documents", &[of::<DocumentList>])],
        refusals: &[
            Code::BadCursor,
            Code::CollectionNotFound,
            Code::CursorExpired,
            Code::InvalidFilter,
            Code::InvalidId,
            Code::InvalidValue,
            Code::TypeMismatch,
            Code::UnknownField,
            Code::Timeout,
        ],
    },
    Route {
        op: Op::GetDocuments,
        method: Method::Post,
        path: "/v1/collections/{collection}/documents/get",
        summary: "Documents by their ids",
        params: &[COLLECTION, CONSISTENCY, SESSION],
        request: takes("The ids", &[(JSON, Some(of::<GetDocuments>))]),
        answers: &[json(
            200,
            "The documents, in the order of the ids",
            &[of::<GotDocuments>],
        )],
        refusals: READING,
    },
    Route {
        op: Op::PutDocument,
        method: Method::Put,
        path: DOCUMENT_PATH,
        summary: "Writes one whole document",
        params: &[COLLECTION, ID, KEY, IF_MATCH, SESSION],
        request: takes(
            "The document, without its id or with the same one",
            &[(JSON, None)],
        ),
        answers: &[
            tagged(json(200, "Replaced", &[of::<Patched>])),
            tagged(json(201, "New", &[of::<Patched>])),
        ],
        refusals: ONE,
    },
    Route {
        op: Op::PatchDocument,
        method: Method::Patch,
        path: DOCUMENT_PATH,
        summary: "Sets and removes attributes of one document",
        params: &[COLLECTION, ID, KEY, IF_MATCH, SESSION],
        request: takes("Attributes to set; null removes one", &[(JSON, None)]),
        answers: &[tagged(json(200, "Changed", &[of::<Patched>]))],
        refusals: ONE,
    },
    Route {
        op: Op::DeleteDocument,
        method: Method::Delete,
        path: DOCUMENT_PATH,
        summary: "Deletes one document",
        params: &[COLLECTION, ID, KEY, IF_MATCH, SESSION],
        request: None,
        answers: &[DONE],
        refusals: ONE,
    },
    Route {
        op: Op::GetDocument,
        method: Method::Get,
        path: DOCUMENT_PATH,
        summary: "One document",
        params: &[COLLECTION, ID, INCLUDE, CONSISTENCY, SESSION, IF_NONE_MATCH],
        request: None,
        answers: &[
            tagged(json(200, "The document", &[of::<OneDocument>])),
            tagged(plain(
                304,
                "The stored version is one that `If-None-Match` names",
                "",
            )),
        ],
        refusals: &[
            Code::CollectionNotFound,
            Code::DocumentNotFound,
            Code::InvalidId,
            Code::PreconditionFailed,
            Code::UnknownField,
            Code::Timeout,
        ],
    },
    Route {
        op: Op::Import,
        method: Method::Post,
        path: "/v1/collections/{collection}/import",
        summary: "Streams documents in",
        params: &[COLLECTION],
        request: takes(
            "The documents",
            &[(NDJSON, None), (CSV, None), (ARROW, None), (PARQUET, None)],
        ),
        answers: &[Answer {
            status: 200,
            about: "Lines of progress, and a last line that counts",
            content_type: NDJSON,
            schemas: &[of::<ImportProgress>, of::<ImportDone>],
            etag: false,
        }],
        refusals: TYPING,
    },
    Route {
        op: Op::Export,
        method: Method::Get,
        path: "/v1/collections/{collection}/export",
        summary: "Streams every document out, from one snapshot",
        params: &[COLLECTION, FORMAT, CONSISTENCY, SESSION],
        request: None,
        answers: &[
            plain(200, "The documents", NDJSON),
            plain(200, "The documents", PARQUET),
            plain(200, "The documents", ARROW),
        ],
        refusals: &[
            Code::CollectionNotFound,
            Code::InvalidFilter,
            Code::InvalidValue,
            Code::UnknownField,
        ],
    },
    Route {
        op: Op::Query,
        method: Method::Post,
        path: "/v1/collections/{collection}/query",
        summary: "The nearest documents to a vector",
        params: &[COLLECTION, CONSISTENCY, SESSION],
        request: takes("One query or a batch", &[(JSON, Some(of::<QueryRequest>))]),
        answers: &[json(
            200,
            "The hits, best first",
            &[of::<QueryAnswer>, of::<crate::BatchAnswer>],
        )],
        refusals: &[
            Code::CollectionNotFound,
            Code::DimensionMismatch,
            Code::InvalidFilter,
            Code::InvalidValue,
            Code::KOutOfRange,
            Code::LimitExceeded,
            Code::NotFinite,
            Code::TypeMismatch,
            Code::UnknownField,
            Code::Timeout,
        ],
    },
    Route {
        op: Op::Recall,
        method: Method::Post,
        path: "/v1/collections/{collection}/recall",
        summary: "How much of the truth approximate queries find",
        params: &[COLLECTION, CONSISTENCY, SESSION],
        request: Some(Body {
            about: "How many queries, and what they ask; may be left out",
            required: false,
            types: &[(JSON, Some(of::<RecallRequest>))],
        }),
        answers: &[json(200, "The recall", &[of::<RecallAnswer>])],
        refusals: &[
            Code::CollectionNotFound,
            Code::InvalidFilter,
            Code::InvalidValue,
            Code::KOutOfRange,
            Code::LimitExceeded,
            Code::TypeMismatch,
            Code::UnknownField,
            Code::Timeout,
        ],
    },
    Route {
        op: Op::Aggregate,
        method: Method::Post,
        path: "/v1/collections/{collection}/aggregate",
        summary: "Counts, sums, means, least and greatest values by group",
        params: &[COLLECTION, CONSISTENCY, SESSION],
        request: takes("Groups and metrics", &[(JSON, Some(of::<Aggregate>))]),
        answers: &[json(200, "The groups", &[of::<AggregateAnswer>])],
        refusals: READING,
    },
    Route {
        op: Op::Healthz,
        method: Method::Get,
        path: "/healthz",
        summary: "The process is alive",
        params: &[],
        request: None,
        answers: &[json(200, "It is", &[of::<Health>])],
        refusals: &[],
    },
    Route {
        op: Op::Readyz,
        method: Method::Get,
        path: "/readyz",
        summary: "The server can serve: its store answers",
        params: &[],
        request: None,
        answers: &[json(200, "It can", &[of::<Health>])],
        refusals: &[],
    },
    Route {
        op: Op::Metrics,
        method: Method::Get,
        path: "/metrics",
        summary: "Metrics in the Prometheus text format",
        params: &[],
        request: None,
        answers: &[plain(200, "The metrics", "text/plain; version=0.0.4")],
        refusals: &[],
    },
    Route {
        op: Op::Openapi,
        method: Method::Get,
        path: "/openapi.json",
        summary: "This document",
        params: &[],
        request: None,
        answers: &[plain(200, "OpenAPI 3.1", JSON)],
        refusals: &[],
    },
    Route {
        op: Op::Status,
        method: Method::Get,
        path: "/v1/status",
        summary: "What this server is, its limits and its gauges",
        params: &[],
        request: None,
        answers: &[json(200, "The status", &[of::<Status>])],
        refusals: &[],
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_operation_has_one_route_of_its_own() {
        let ops: BTreeSet<Op> = ROUTES.iter().map(|route| route.op).collect();
        let places: BTreeSet<_> = ROUTES.iter().map(|route| (route.path, route.method)).collect();
        assert_eq!(ops.len(), ROUTES.len());
        assert_eq!(places.len(), ROUTES.len());
        // `Status` is the last variant: its number is how many come before it.
        assert_eq!(Op::Status as usize + 1, ROUTES.len());
    }

    #[test]
    fn every_parameter_of_a_path_is_described_and_no_other() {
        for route in ROUTES {
            let braced: Vec<&str> = route
                .path
                .split('/')
                .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
                .collect();
            let described: Vec<&str> = route
                .params
                .iter()
                .flat_map(|group| group.iter())
                .filter(|param| param.place == Place::Path)
                .map(|param| param.name)
                .collect();
            assert_eq!(braced, described, "{}", route.path);
        }
    }
}

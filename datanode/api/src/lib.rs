//! REST v1 as types: what goes over the wire, which routes there are, and the OpenAPI
//! document made from both.
//!
//! [`ROUTES`] is the one list of routes: the server builds its router from it, so a route
//! cannot be served and be missing from the document.  The server reads request bodies
//! with `rhumb_core::Json` (it has to name the nearest known field, and documents are
//! hot); tests there hold its parsers against the schemas here.  Clients (the CLI, tests)
//! use the types as they are.

mod collections;
mod documents;
mod erasure;
mod identity;
mod legs;
mod openapi;
mod problem;
mod process;
mod query;
mod routes;

pub use collections::{
    CollectionDefinition, CollectionInfo, CollectionList, CollectionPatch, FieldDef, FieldObject, IndexInfo,
    IndexState, OptimizeAnswer, OptimizeRequest, Quota, ScalarName,
};
pub use documents::{
    Condition, DocumentList, GetDocuments, GotDocuments, ImportDone, ImportFailure, ImportProgress, Include,
    OneDocument, PartialOutcome, PartitionOutcome, Patched, WriteAnswer, WriteRequest,
};
pub use erasure::{
    EraseRequest, ErasedObject, ErasureCertificate, LeftObject, ObjectHolds, PartitionErasure,
};
pub use identity::{
    AuditPage, AuditRecord, Claims, CreatedKey, Grant, GrantedOperation, GroupDefinition, GroupInfo, KeyInfo,
    KeyList, LoginRequest, NewKey, Pace, RefreshRequest, RoleDefinition, RoleInfo, RotateKey, RotatedKey,
    TokenAnswer, UserDefinition, UserInfo, Whoami,
};
pub use legs::{
    Combine, Curve, Decay, FieldValue, Fuse, FuseMethod, GroupBy, Highlight, Leg, Marked, ModifiedValue,
    Modifier, NumberOrText, Operator, RankFunction, Rerank, SizedGroups, SparseElements, SparseLeg,
    SparseValue, TextFields, TextLeg, TextSearch, VectorLeg, VectorValue,
};
pub use openapi::{openapi, properties};
pub use problem::{CODES, Problem, name, status, title};
pub use process::{Health, Limits, Status};
pub use query::{
    Aggregate, AggregateAnswer, BatchAnswer, BatchQuery, Consistency, Counted, Explain, ExplainLeg, Hit,
    HitGroup, Metric, Query, QueryAnswer, QueryRequest, RecallAnswer, RecallRequest, RecallSource,
    SelectivityClass,
};
pub use routes::{
    ARROW, Answer, Body, CSV, JSON, Kind, Method, NDJSON, Op, PARQUET, Param, Place, ROUTES, Route,
};

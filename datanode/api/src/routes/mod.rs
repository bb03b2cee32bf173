//! The list of routes.  The server's router and the OpenAPI document are made from it.

mod identity;
mod parts;
mod table;

use rhumb_core::Code;
use schemars::{JsonSchema, Schema, SchemaGenerator};

/// Every route, once.
pub const ROUTES: &[Route] = &ALL;

const ALL: [Route; table::ROUTES.len() + identity::ROUTES.len()] = {
    let mut all = [table::ROUTES[0]; table::ROUTES.len() + identity::ROUTES.len()];
    let mut at = 0;
    while at < all.len() {
        all[at] = match at < table::ROUTES.len() {
            true => table::ROUTES[at],
            false => identity::ROUTES[at - table::ROUTES.len()],
        };
        at += 1;
    }
    all
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
    EraseDocuments,
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
    Login,
    RefreshToken,
    Whoami,
    CreateKey,
    ListKeys,
    DeleteKey,
    RotateKey,
    PutUser,
    GetUser,
    DeleteUser,
    PutGroup,
    GetGroup,
    DeleteGroup,
    PutRole,
    GetRole,
    DeleteRole,
    Audit,
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

#[derive(Clone, Copy)]
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

#[derive(Clone, Copy)]
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

#[derive(Clone, Copy)]
pub enum Kind {
    Text,
    Integer { min: u64, max: u64 },
    OneOf(&'static [&'static str]),
}

#[derive(Clone, Copy)]
pub struct Body {
    pub about: &'static str,
    pub required: bool,
    /// Content types and their schemas; bytes when there is none.
    pub types: &'static [(&'static str, Option<SchemaOf>)],
}

/// Answers of one status with several content types stand one after the other.
#[derive(Clone, Copy)]
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

    /// Whether asking twice changes nothing.
    pub fn reads(&self) -> bool {
        match self.op {
            Op::PutCollection
            | Op::PatchCollection
            | Op::DeleteCollection
            | Op::OptimizeCollection
            | Op::EraseDocuments
            | Op::WriteDocuments
            | Op::PutDocument
            | Op::PatchDocument
            | Op::DeleteDocument
            | Op::Import
            | Op::Login
            | Op::RefreshToken
            | Op::CreateKey
            | Op::DeleteKey
            | Op::RotateKey
            | Op::PutUser
            | Op::DeleteUser
            | Op::PutGroup
            | Op::DeleteGroup
            | Op::PutRole
            | Op::DeleteRole => false,
            Op::ListCollections
            | Op::GetCollection
            | Op::ScanDocuments
            | Op::GetDocuments
            | Op::GetDocument
            | Op::Export
            | Op::Query
            | Op::Recall
            | Op::Aggregate
            | Op::Whoami
            | Op::ListKeys
            | Op::GetUser
            | Op::GetGroup
            | Op::GetRole
            | Op::Audit
            | Op::Healthz
            | Op::Readyz
            | Op::Metrics
            | Op::Openapi
            | Op::Status => true,
        }
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
            Self::EraseDocuments => "erase_documents",
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
            Self::Login => "login",
            Self::RefreshToken => "refresh_token",
            Self::Whoami => "whoami",
            Self::CreateKey => "create_key",
            Self::ListKeys => "list_keys",
            Self::DeleteKey => "delete_key",
            Self::RotateKey => "rotate_key",
            Self::PutUser => "put_user",
            Self::GetUser => "get_user",
            Self::DeleteUser => "delete_user",
            Self::PutGroup => "put_group",
            Self::GetGroup => "get_group",
            Self::DeleteGroup => "delete_group",
            Self::PutRole => "put_role",
            Self::GetRole => "get_role",
            Self::DeleteRole => "delete_role",
            Self::Audit => "audit",
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

//! Every sentence of `api.md` as checks of a running server.  One test function per topic,
//! one server each; a run prints how many cases it made.
//!
//! Where the contract leaves a choice, a case lists the answers that are all right; where
//! it does not, there is one.
#![allow(
    clippy::disallowed_methods,
    reason = "a black box lives in real time, with real chance and real processes: nothing here is simulated"
)]

mod adversarial;
mod aggregate;
mod collection_life;
mod collections;
mod columns;
mod conditions;
mod documents;
mod erase;
mod exchange;
mod filter_oracle;
mod filters;
mod http;
mod hybrid;
mod idempotency;
mod ids;
mod import;
mod import_tables;
mod limits;
mod mutation;
mod openapi;
mod query;
mod query_shapes;
mod quota;
mod scan;
mod sparse;
mod text;
mod types;
mod validation;
mod vectors;
mod writes;

use rhumb_e2e::client::escape;

fn collection(name: &str) -> String {
    format!("/v1/collections/{name}")
}

fn documents(name: &str) -> String {
    format!("/v1/collections/{name}/documents")
}

/// The id may be anything; it is escaped.
fn document(name: &str, id: &str) -> String {
    format!("/v1/collections/{name}/documents/{}", escape(id))
}

fn query(name: &str) -> String {
    format!("/v1/collections/{name}/query")
}

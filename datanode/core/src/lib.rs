//! The words and rules of Rhumb: what a document, a field, a filter and a write are.
//!
//! Nothing here does I/O, waits, or reads a clock; `now` is an argument.  Every other
//! crate speaks in these types, and `docs/ARCHITECTURE.md` holds the glossary.

pub mod aggregate;
pub mod fields;
pub mod filter;
pub mod ids;
pub mod json;
pub mod limits;
pub mod members;
pub mod order;
pub mod problem;
pub mod query;
pub mod quota;
pub mod render;
pub mod schema;
pub mod time;
pub mod typing;
pub mod value;
pub mod write;

pub use filter::Filter;
pub use ids::{CollectionId, CollectionName, DocId, Epoch, FieldName, Position, Seq, Slot};
pub use json::Json;
pub use limits::Limits;
pub use problem::{Code, Problem};
pub use quota::{Held, Quota};
pub use schema::{Element, Field, FieldType, Metric, Scalar, Schema, VectorIndex, VectorType};
pub use value::{Document, SparseVector, Value, Vector};

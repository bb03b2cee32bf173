//! The data node: HTTP over the engine.
//!
//! [`Settings`] are parsed once, [`serve`] opens the store and the database, listens, and
//! runs until it is told to stop or fenced.  In a cluster, `member` joins it to the others.
//! [`http`] holds the routes and the one mapping
//! from an error to its status; `import` streams files in.  The wire types and the list of
//! routes are `rhumb_api`'s, what a document or a filter is is `rhumb_core`'s.

mod byte_size;
mod guard;
mod http;
mod import;
mod member;
mod memory;
mod readiness;
mod serve;
mod settings;
mod store_tools;
mod tls;

pub use byte_size::ByteSize;
pub use guard::AuditVerdict;
pub use rhumb_store::crypt::MasterKey;
pub use serve::{Exit, Ready, ServeError, serve};
pub use settings::{
    DEFAULT_LISTEN, DEFAULT_STORE, KeySource, KeyText, SecuritySource, Settings, SettingsError, Source,
};
pub use store_tools::{Diagnosis, doctor, renew_keys, rotate_keys, verify_audit};

//! Who may do what: the rules and the cryptography of identity, pure.  No I/O, no HTTP, no
//! clock: `now` is an argument, and so is everything that was read.
//!
//! - [`Directory`] is the one object that holds keys, users, groups, roles and sessions.  It
//!   holds hashes, never a secret that somebody could log in with.
//! - [`Identity`] is who a request turned out to be: from a key, a session token, a JWT or a
//!   certificate, always by way of roles.
//! - [`authorise`] is the one answer to "may they": denied unless a grant says otherwise.
//!   [`rule`] maps every route to what it needs; a route without a rule does not compile.
//! - [`audit`] chains what was done; [`Buckets`] says when somebody asks too much.
//!
//! Secrets are wiped when dropped, and nothing here prints one: `Debug` shows their length.
//! Comparisons of secrets take the same time whatever is compared.

pub mod audit;
mod authorise;
mod directory;
mod group;
mod identity;
pub mod jwt;
mod key;
mod limit;
mod name;
mod password;
mod role;
mod secret;
mod session;

pub use authorise::{Decision, Rule, Target, authorise, rule};
pub use directory::{Change, Directory, DirectoryError, User};
pub use group::Group;
pub use identity::{Denied, Identity, Subject};
pub use key::{Key, KeySpec, MintedKey};
pub use limit::{Bound, Buckets, Over, Pace};
pub use name::Name;
pub use password::{PASSWORD_BYTES, Password, hash_password, verify_nobody};
pub use role::{BUILT_IN, Grant, Operation, Pattern, Role, RoleProblem, substitute};
pub use secret::{Secret, random};
pub use session::{Family, SESSION_LIFE_MS, Tokens};

/// Claims of an identity, as a row filter may name them.
pub type Claims = serde_json::Map<String, serde_json::Value>;

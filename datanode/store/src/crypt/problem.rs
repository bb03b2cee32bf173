//! What can be wrong with keys, in words for whoever starts the server.

use crate::ErrorKind;

#[derive(Debug, thiserror::Error)]
pub enum KeyProblem {
    #[error(
        "the database is encrypted and no master key was given: start with --encryption-key-file or \
         --encryption-key-command"
    )]
    Missing,

    #[error(
        "a master key was given, and the database is not encrypted; it cannot become so in place: export its \
         collections and import them into a new database that is created with the key, or start without the key"
    )]
    NotEncrypted,

    #[error("wrong master key: the data keys are wrapped by {needed}, and what was given is {given}")]
    Wrong { needed: String, given: String },

    #[error("the master key cannot be used: {0}")]
    Unusable(String),

    #[error("the database is encrypted with `{found}`, this Rhumb knows `{known}`")]
    Cipher { found: String, known: &'static str },

    /// The key management may be back, or its rights repaired, at the next try.
    #[error("the key command failed: {0}")]
    Command(String),

    /// The data key was destroyed with its collection.
    #[error("the data key of {scope} was destroyed: what it sealed cannot be read by anybody")]
    Destroyed { scope: String },
}

impl KeyProblem {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing
            | Self::NotEncrypted
            | Self::Wrong { .. }
            | Self::Unusable(_)
            | Self::Cipher { .. } => ErrorKind::Invalid,
            Self::Command(_) => ErrorKind::Retry,
            Self::Destroyed { .. } => ErrorKind::NotFound,
        }
    }
}

//! What can go wrong between us and the bucket, sorted by what the caller must do.

use object_store::path::Path;

/// What the caller of a failed operation must do (style rule 14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Nothing is known to be wrong with the data: try again later.
    Retry,
    /// Somebody else holds or changed what we wanted.
    Conflict,
    /// A newer writer owns the partition: stop at once.
    Fenced,
    /// The request or the configuration is wrong; repeating it cannot help.
    Invalid,
    NotFound,
    /// Bytes in the bucket are not what we wrote.
    Corrupt,
    /// An invariant of ours is broken: halt, never guess.
    Bug,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Url(#[from] crate::url::UrlProblem),

    #[error(transparent)]
    Key(#[from] crate::crypt::KeyProblem),

    #[error("the folder is in use by another server: {holder}")]
    Locked { holder: String },

    #[error("the store cannot be used safely: check `{check}` failed: {detail}")]
    Unsafe { check: &'static str, detail: String },

    #[error("the bucket was written by a newer Rhumb: format {found}, this one knows up to {known}")]
    NewerFormat { found: u32, known: u32 },

    #[error("{path} does not exist")]
    NotFound { path: Path },

    #[error("{path} is corrupt: {reason}")]
    Corrupt { path: Path, reason: String },

    /// A write whose outcome is unknown: it may have landed, or may land later.
    #[error("the outcome of writing {path} is unknown")]
    Unknown { path: Path },

    #[error("{path} changed under us")]
    Conflict { path: Path },

    #[error("fenced at {path}: epoch {ours} was replaced by epoch {theirs}")]
    Fenced { path: Path, ours: u64, theirs: u64 },

    /// Another process leads what this object belongs to, or may do so by now.
    #[error("{path} is another leader's to change")]
    Superseded { path: Path },

    /// The collection is being deleted: no epoch of this partition is claimed any more.
    #[error("{path} is sealed")]
    Sealed { path: Path },

    #[error("broken invariant at {path}: {reason}")]
    Broken { path: Path, reason: String },

    /// Access was refused.  Keys are rotated and policies repaired while we run, so this
    /// is worth another try.
    #[error("the store refuses access: {source}")]
    Denied { source: object_store::Error },

    #[error("the store cannot do it now: {source}")]
    Unavailable { source: object_store::Error },

    #[error("the store cannot be opened: {source}")]
    Config { source: object_store::Error },
}

impl StoreError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Url(_) | Self::Unsafe { .. } | Self::NewerFormat { .. } | Self::Config { .. } => {
                ErrorKind::Invalid
            }
            Self::Key(problem) => problem.kind(),
            Self::Locked { .. } | Self::Conflict { .. } => ErrorKind::Conflict,
            Self::NotFound { .. } | Self::Sealed { .. } => ErrorKind::NotFound,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Unknown { .. }
            | Self::Denied { .. }
            | Self::Unavailable { .. }
            | Self::Superseded { .. } => ErrorKind::Retry,
            Self::Fenced { .. } => ErrorKind::Fenced,
            Self::Broken { .. } => ErrorKind::Bug,
        }
    }
}

/// For errors of the object store whose outcome is known; `Unknown` is made by the one
/// place that knows the path and the put-id.
impl From<object_store::Error> for StoreError {
    fn from(source: object_store::Error) -> Self {
        use crate::crypt::LAYER;
        use object_store::Error as E;
        match source {
            // What a layer of ours could not do for an error of its own.
            E::Generic { store: LAYER, source } => match source.downcast::<Self>() {
                Ok(error) => *error,
                Err(source) => Self::Unavailable {
                    source: E::Generic { store: LAYER, source },
                },
            },
            E::NotFound { path, .. } => Self::NotFound {
                path: Path::parse(&path).unwrap_or_else(|_| Path::from(path)),
            },
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => Self::Denied { source },
            E::NotSupported { .. }
            | E::NotImplemented { .. }
            | E::InvalidPath { .. }
            | E::UnknownConfigurationKey { .. } => Self::Config { source },
            _ => match crate::damaged::damaged_path(&source) {
                Some(path) => Self::Corrupt {
                    path,
                    reason: source.to_string(),
                },
                None => Self::Unavailable { source },
            },
        }
    }
}

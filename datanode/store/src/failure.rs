//! What a failed request tells about the object it was for.  This is the ground of
//! `Landed | Lost | Unknown`: only a failure known to have had no effect may be taken as
//! "not written".

use std::error::Error as StdError;

use object_store::Error as OsError;
use object_store::client::{HttpError, HttpErrorKind};

use crate::file::FileProblem;
use crate::s3::HttpStatus;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The store's answer: missing, already there, changed, not modified.
    Answer,
    /// It never reached the store.
    NotApplied,
    /// It was refused without effect, and will be again.
    Refused,
    /// Keys expired or rights were taken away: one more try with fresh keys, no more.
    Denied,
    /// Too fast.  Without effect by S3's word, but a proxy may say the same after passing
    /// the request on: for a write this counts as ambiguous.
    Throttled,
    /// No answer, or one that does not say: it may have been applied, or may be yet.
    Ambiguous { again: bool },
}

impl Failure {
    pub(crate) fn of(error: &OsError) -> Self {
        match error {
            OsError::NotFound { .. }
            | OsError::AlreadyExists { .. }
            | OsError::Precondition { .. }
            | OsError::NotModified { .. } => Self::Answer,
            OsError::PermissionDenied { .. } | OsError::Unauthenticated { .. } => Self::Denied,
            OsError::NotSupported { .. }
            | OsError::NotImplemented { .. }
            | OsError::InvalidPath { .. }
            | OsError::UnknownConfigurationKey { .. } => Self::Refused,
            other => Self::of_source(other),
        }
    }

    fn of_source(error: &OsError) -> Self {
        let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
        while let Some(e) = cause {
            if let Some(problem) = e.downcast_ref::<FileProblem>() {
                return problem.failure();
            }
            if let Some(status) = e.downcast_ref::<HttpStatus>() {
                return status.failure();
            }
            if e.downcast_ref::<Ambiguous>().is_some() {
                return Self::Ambiguous { again: false };
            }
            if let Some(http) = e.downcast_ref::<HttpError>()
                && http.kind() == HttpErrorKind::Connect
            {
                return Self::NotApplied;
            }
            cause = e.source();
        }
        Self::Ambiguous { again: true }
    }

    /// Whether a write that ended so may have had, or may yet have, an effect.
    pub(crate) fn may_have_applied(self) -> bool {
        matches!(self, Self::Throttled | Self::Ambiguous { .. })
    }
}

/// A write whose outcome is not known after all attempts.
#[derive(Debug, thiserror::Error)]
#[error("the outcome is unknown after {attempts} attempts: {last}")]
pub(crate) struct Ambiguous {
    pub(crate) attempts: u32,
    #[source]
    pub(crate) last: OsError,
}

impl From<Ambiguous> for OsError {
    fn from(source: Ambiguous) -> Self {
        Self::Generic {
            store: "retry",
            source: Box::new(source),
        }
    }
}

/// Whether the write that failed with `error` may have landed or may land yet.  The only
/// sound reactions are to repeat the very same write or to leave things alone.
pub fn is_ambiguous(error: &OsError) -> bool {
    match error {
        OsError::Generic { source, .. } => source.downcast_ref::<Ambiguous>().is_some(),
        _ => false,
    }
}

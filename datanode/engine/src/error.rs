//! What can go wrong below the API, by what the caller must do.

use rhumb_core::{Code, Problem};
use rhumb_store::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The request is wrong; nothing was written and never will be.
    #[error("{0}")]
    Refused(#[from] Problem),
    /// The schema moved between typing the request and applying it: type it again.
    #[error("the schema changed while the request was being typed")]
    SchemaMoved,
    /// Not applied, and never will be: try again later.
    #[error("{0}")]
    Unavailable(String),
    /// Over a budget; not applied.
    #[error("{0}")]
    Busy(String),
    /// The write may or may not have landed.
    #[error("the store did not say whether the write landed")]
    OutcomeUnknown,
    /// Some partitions applied their part, some did not.
    #[error("the write was applied to some partitions only")]
    PartiallyApplied(Vec<PartOutcome>),
    /// The deadline passed; the work was cancelled.
    #[error("the deadline passed")]
    Timeout,
    /// The term under which this was asked is over; nothing was applied.
    #[error("this node no longer leads the collection")]
    NotLeading,
    /// Another writer owns the partition now; this process must stop (I2).
    #[error("fenced: another server took over this partition")]
    Fenced,
    #[error("store: {0}")]
    Store(#[from] StoreError),
    #[error("lance: {0}")]
    Lance(#[from] lance::Error),
    /// What was read from the bucket breaks an invariant.
    #[error("corrupt: {0}")]
    Corrupt(String),
    /// Our own mistake.
    #[error("internal: {0}")]
    Bug(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartOutcome {
    pub partition: u32,
    pub outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Applied,
    NotApplied,
    Unknown,
}

impl EngineError {
    pub fn is_fenced(&self) -> bool {
        match self {
            Self::Fenced => true,
            Self::Store(e) => e.kind() == rhumb_store::ErrorKind::Fenced,
            _ => false,
        }
    }

    /// The one mapping to what a client is told.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Refused(problem) => problem.clone(),
            Self::SchemaMoved | Self::Unavailable(_) | Self::Fenced | Self::NotLeading => {
                Problem::new(Code::Unavailable, self.to_string())
            }
            Self::Busy(_) => Problem::new(Code::TooManyRequests, self.to_string()),
            Self::OutcomeUnknown => Problem::new(Code::OutcomeUnknown, self.to_string())
                .hint("repeat the same request with the same Idempotency-Key to settle it"),
            Self::PartiallyApplied(_) => Problem::new(Code::PartiallyApplied, self.to_string())
                .hint("repeat the same request with the same Idempotency-Key to finish it"),
            Self::Timeout => Problem::new(Code::Timeout, self.to_string()),
            Self::Store(_) => Problem::new(Code::Unavailable, self.to_string()),
            Self::Lance(e) if is_of_the_store(e) => Problem::new(Code::Unavailable, self.to_string()),
            // Nothing of the request is at fault and nothing was applied: an operator's case.
            Self::Corrupt(_) => Problem::new(Code::Unavailable, self.to_string()),
            Self::Lance(_) | Self::Bug(_) => Problem::new(Code::Internal, self.to_string()),
        }
    }
}

/// Whether the store, and not Lance, is the reason: an outage, a damaged or a lost object.
fn is_of_the_store(error: &lance::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(e) = cause {
        let lance = e.downcast_ref::<lance::Error>();
        let passing = matches!(
            lance,
            Some(
                lance::Error::IO { .. }
                    | lance::Error::Timeout { .. }
                    | lance::Error::NotFound { .. }
                    | lance::Error::DatasetNotFound { .. }
                    | lance::Error::CorruptFile { .. }
                    | lance::Error::CommitConflict { .. }
                    | lance::Error::RetryableCommitConflict { .. }
                    | lance::Error::TooMuchWriteContention { .. }
            )
        );
        if passing || e.is::<object_store::Error>() || e.is::<std::io::Error>() {
            return true;
        }
        cause = e.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_under_lance_is_told_from_a_mistake_of_lance() {
        let outage = object_store::Error::Generic {
            store: "s3",
            source: "connection refused".into(),
        };
        let status = |e: lance::Error| EngineError::from(e).problem().code;
        assert_eq!(status(outage.into()), Code::Unavailable);
        assert_eq!(status(lance::Error::internal("unreachable")), Code::Internal);
    }
}

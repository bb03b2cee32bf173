//! Reads that failed because the bytes in the store are not the bytes written.

use object_store::Error as OsError;
use object_store::path::Path;

#[derive(Debug, thiserror::Error)]
#[error("{path} is damaged: {what}")]
pub(crate) struct Damaged {
    pub(crate) path: String,
    pub(crate) what: &'static str,
}

impl Damaged {
    pub(crate) fn at(location: &Path, what: &'static str) -> OsError {
        Self {
            path: location.to_string(),
            what,
        }
        .into()
    }
}

impl From<Damaged> for OsError {
    fn from(source: Damaged) -> Self {
        Self::Generic {
            store: "checks",
            source: Box::new(source),
        }
    }
}

/// Whether a read failed because the bytes in the store are not the bytes written.
pub fn is_damaged(error: &OsError) -> bool {
    damaged_path(error).is_some()
}

pub(crate) fn damaged_path(error: &OsError) -> Option<Path> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(e) = cause {
        if let Some(damaged) = e.downcast_ref::<Damaged>() {
            return Path::parse(&damaged.path).ok();
        }
        cause = e.source();
    }
    None
}

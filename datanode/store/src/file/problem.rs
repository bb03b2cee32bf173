//! Why the folder did not do what was asked, in terms a user can act on.

use std::io;

use object_store::Error as OsError;
use rustix::io::Errno;

use crate::failure::Failure;

#[derive(Debug, thiserror::Error)]
pub(crate) enum FileProblem {
    #[error("the disk is full")]
    DiskFull,
    #[error("the folder is read-only")]
    ReadOnly,
    #[error("`{0}` is reserved by the store")]
    Reserved(String),
    #[error("`{0}` is a symbolic link; the store follows none below its folder")]
    SymbolicLink(String),
    #[error("the name is too long for the file system")]
    NameTooLong,
    #[error("`{0}` is both an object and a folder of objects, which a folder cannot hold")]
    FolderInTheWay(String),
    #[error("a folder keeps no tags, and of attributes only the put-id")]
    Unsupported,
    #[error("the file ended after {got} of {wanted} bytes")]
    Short { got: usize, wanted: usize },
    #[error("{asked} does not lie in an object of {size} bytes")]
    Range { asked: String, size: u64 },
    #[error("part of a multipart upload is missing")]
    PartMissing,
    /// The object has its name, but a power cut may still take it.
    #[error("the folder could not be synced: {0}")]
    NotSynced(Errno),
    #[error("the deletion may not survive a power cut: {0}")]
    NotDeleted(String),
    #[error("the folder failed to sync before ({0}); it takes no writes until the server restarts")]
    Broken(Errno),
    #[error("{call}: {source}")]
    Io { call: &'static str, source: io::Error },
}

impl FileProblem {
    pub(crate) fn failure(&self) -> Failure {
        match self {
            Self::NotSynced(_) | Self::NotDeleted(_) => Failure::Ambiguous { again: false },
            Self::Short { .. } => Failure::Ambiguous { again: true },
            // A full disk is emptied by people, not by a retry within seconds.
            Self::DiskFull
            | Self::ReadOnly
            | Self::Broken(_)
            | Self::Reserved(_)
            | Self::SymbolicLink(_)
            | Self::NameTooLong
            | Self::FolderInTheWay(_)
            | Self::Unsupported
            | Self::Range { .. }
            | Self::PartMissing => Failure::Refused,
            // Whatever failed before the move to the final name left nothing there.
            Self::Io { .. } => Failure::NotApplied,
        }
    }
}

/// An error of a call that was made for `path`.
pub(super) fn at(call: &'static str, path: &str) -> impl Fn(Errno) -> OsError {
    move |errno| match errno {
        Errno::NOENT | Errno::NOTDIR => OsError::NotFound {
            path: path.to_owned(),
            source: Box::new(io::Error::from(errno)),
        },
        Errno::EXIST => OsError::AlreadyExists {
            path: path.to_owned(),
            source: Box::new(io::Error::from(errno)),
        },
        Errno::ACCESS | Errno::PERM => OsError::PermissionDenied {
            path: path.to_owned(),
            source: Box::new(io::Error::from(errno)),
        },
        Errno::NOSPC | Errno::DQUOT => FileProblem::DiskFull.into(),
        Errno::ROFS => FileProblem::ReadOnly.into(),
        Errno::LOOP | Errno::XDEV => FileProblem::SymbolicLink(path.to_owned()).into(),
        Errno::NAMETOOLONG => FileProblem::NameTooLong.into(),
        Errno::ISDIR | Errno::NOTEMPTY => FileProblem::FolderInTheWay(path.to_owned()).into(),
        errno => FileProblem::Io {
            call,
            source: errno.into(),
        }
        .into(),
    }
}

pub(super) fn io_problem(call: &'static str, source: io::Error) -> OsError {
    match source.raw_os_error() {
        Some(raw) => at(call, "")(Errno::from_raw_os_error(raw)),
        None => FileProblem::Io { call, source }.into(),
    }
}

pub(super) fn missing(path: &str) -> OsError {
    at("open", path)(Errno::NOENT)
}

impl From<FileProblem> for OsError {
    fn from(problem: FileProblem) -> Self {
        let source = Box::new(problem);
        match *source {
            FileProblem::Unsupported => Self::NotImplemented {
                operation: source.to_string(),
                implementer: "FileStore".into(),
            },
            FileProblem::Reserved(_)
            | FileProblem::SymbolicLink(_)
            | FileProblem::NameTooLong
            | FileProblem::FolderInTheWay(_) => Self::NotSupported { source },
            _ => Self::Generic {
                store: "FileStore",
                source,
            },
        }
    }
}

//! Files on their way to a name, under `.tmp`.
//!
//! Making a file can cost as much as syncing it (ext4 passes over every inode deleted
//! lately), so the next one is made ahead, out of the way of the write that will need it.

use std::fs::{File, create_dir_all};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path as FsPath;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use object_store::Result;
use parking_lot::Mutex;
use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};

use super::problem::at;

/// Where unfinished writes live: in the same file system, so that moving them to their
/// name is one step.
pub(super) const NAME: &str = ".tmp";

/// Made ahead: one for the log, one for whoever writes beside it.
const SPARES: usize = 2;

#[derive(Debug)]
pub(super) struct Temps {
    pub folder: Arc<OwnedFd>,
    /// Among those this process opened: one that was just closed may still have a file.
    store: u64,
    next: AtomicU64,
    spares: Mutex<Vec<TempFile>>,
}

/// Removed when dropped unless it was moved to its name.
#[derive(Debug)]
pub(super) struct TempFile {
    pub file: File,
    pub name: String,
    pub moved: bool,
    folder: Arc<OwnedFd>,
}

impl Temps {
    /// Whoever calls this holds the folder's lock: what lies there is of a dead process.
    pub(super) fn open(root: &FsPath) -> io::Result<Self> {
        let path = root.join(NAME);
        create_dir_all(&path)?;
        for entry in std::fs::read_dir(&path)? {
            match std::fs::remove_file(entry?.path()) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        static STORES: AtomicU64 = AtomicU64::new(0);
        Ok(Self {
            folder: Arc::new(File::open(&path)?.into()),
            store: STORES.fetch_add(1, Ordering::Relaxed),
            next: AtomicU64::new(0),
            spares: Mutex::default(),
        })
    }

    pub(super) fn take(&self) -> Result<TempFile> {
        let spare = self.spares.lock().pop();
        spare.map_or_else(|| self.make(), Ok)
    }

    pub(super) fn is_short(&self) -> bool {
        self.spares.lock().len() < SPARES
    }

    /// Makes one ahead.  What goes wrong here goes wrong again for whoever needs it.
    pub(super) fn refill(&self) {
        if self.is_short()
            && let Ok(spare) = self.make()
        {
            self.spares.lock().push(spare);
        }
    }

    /// Somebody tidied up under us.
    pub(super) fn forget(&self) {
        self.spares.lock().clear();
    }

    fn make(&self) -> Result<TempFile> {
        let name = format!("{}-{}", self.store, self.next.fetch_add(1, Ordering::Relaxed));
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o644);
        let file = openat(&self.folder, name.as_str(), flags, mode).map_err(at("create", NAME))?;
        Ok(TempFile {
            file: file.into(),
            name,
            moved: false,
            folder: self.folder.clone(),
        })
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.moved {
            // What cannot be removed now is cleared at the next start.
            let _ = unlinkat(&self.folder, self.name.as_str(), AtFlags::empty());
        }
    }
}

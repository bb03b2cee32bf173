//! The folders of the store: opening them without leaving the root, making them durable,
//! removing them when empty.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use object_store::Result;
use parking_lot::Mutex;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, fsync, mkdirat, openat, openat2, unlinkat};
use rustix::io::Errno;

use super::problem::{FileProblem, at};

/// Folders known to have their own name synced.  Forgetting them costs syncs, not safety.
const MAX_SYNCED: usize = 65_536;

#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    /// A folder in here that can be opened has a durable name.
    synced: Mutex<BTreeSet<String>>,
    /// Held while folders are made or removed.  Otherwise a folder that is removed and
    /// made again at the same time could be taken for the one whose name was synced.
    reshaping: Mutex<()>,
    broken: OnceLock<Errno>,
}

impl Tree {
    pub(super) fn new(root: File) -> Self {
        Self {
            root: root.into(),
            synced: Mutex::default(),
            reshaping: Mutex::new(()),
            broken: OnceLock::new(),
        }
    }

    /// `""` is the root.
    pub(super) fn open(&self, folder: &str) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        self.open_beneath(if folder.is_empty() { "." } else { folder }, flags)
    }

    /// Nothing below the root is reached through a symbolic link, so nothing outside it is.
    pub(super) fn open_beneath(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match openat2(&self.root, path, flags, Mode::empty(), resolve) {
            // Sandboxes answer PERM to a call they do not know.
            Err(Errno::NOSYS | Errno::PERM) => self.open_step_by_step(path, flags),
            other => other,
        }
    }

    fn open_step_by_step(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let through = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut reached: Option<OwnedFd> = None;
        let mut names = path.split('/').peekable();
        while let Some(name) = names.next() {
            let step = if names.peek().is_none() { flags } else { through };
            let from = reached.as_ref().unwrap_or(&self.root);
            reached = Some(openat(from, name, step | OFlags::NOFOLLOW, Mode::empty())?);
        }
        reached.ok_or(Errno::NOENT)
    }

    /// The folder, made if need be, with every name on the way to it durable.  One that
    /// another writer has just made counts only once its name was synced by somebody.
    pub(super) fn make(&self, folder: &str) -> Result<OwnedFd> {
        if let Some(known) = self.open_synced(folder)? {
            return Ok(known);
        }
        let failed = |errno| match errno {
            Errno::NOTDIR => FileProblem::FolderInTheWay(folder.to_owned()).into(),
            other => at("make folder", folder)(other),
        };
        let _reshaping = self.reshaping.lock();
        let mut parent = self.open("").map_err(failed)?;
        let ends = folder
            .match_indices('/')
            .map(|(slash, _)| slash)
            .chain([folder.len()]);
        for path in ends.map(|end| &folder[..end]) {
            if let Some(known) = self.open_synced(path)? {
                parent = known;
                continue;
            }
            let name = path.rsplit('/').next().unwrap_or(path);
            match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed(errno)),
            }
            self.sync(&parent)?;
            self.remember(path);
            parent = self.open(path).map_err(failed)?;
        }
        Ok(parent)
    }

    /// Opened first, asked about second: see `reshaping`.
    fn open_synced(&self, folder: &str) -> Result<Option<OwnedFd>> {
        match self.open(folder) {
            Ok(fd) if folder.is_empty() || self.synced.lock().contains(folder) => Ok(Some(fd)),
            Ok(_) | Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR) => Err(FileProblem::FolderInTheWay(folder.to_owned()).into()),
            Err(errno) => Err(at("open folder", folder)(errno)),
        }
    }

    fn remember(&self, folder: &str) {
        let mut synced = self.synced.lock();
        if synced.len() >= MAX_SYNCED {
            synced.clear();
        }
        synced.insert(folder.to_owned());
    }

    /// Makes the removal of names from `folder` durable.  If it is empty now, it goes, and
    /// so do the folders above that it leaves empty.
    pub(super) fn prune_and_sync(&self, folder: &str, opened: OwnedFd) -> Result<()> {
        let mut survivor = folder;
        {
            let _reshaping = self.reshaping.lock();
            while !survivor.is_empty() && unlinkat(&self.root, survivor, AtFlags::REMOVEDIR).is_ok() {
                self.synced.lock().remove(survivor);
                survivor = survivor.rfind('/').map_or("", |slash| &survivor[..slash]);
            }
        }
        if survivor == folder {
            return self.sync(&opened);
        }
        match self.open(survivor) {
            Ok(survivor) => self.sync(&survivor),
            // Removed by now: whoever did so syncs what is above.
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(at("open folder", survivor)(errno)),
        }
    }

    pub(super) fn sync(&self, folder: &OwnedFd) -> Result<()> {
        fsync(folder).map_err(|errno| {
            tracing::error!(%errno, "a folder failed to sync: no more writes until a restart");
            // Already set: the first failure is the one to tell.
            let _ = self.broken.set(errno);
            FileProblem::NotSynced(errno).into()
        })
    }

    pub(super) fn check_healthy(&self) -> Result<()> {
        self.broken
            .get()
            .map_or(Ok(()), |errno| Err(FileProblem::Broken(*errno).into()))
    }

    #[cfg(test)]
    pub(super) fn break_for_test(&self) {
        let _ = self.broken.set(Errno::IO);
    }
}

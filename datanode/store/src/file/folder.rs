//! What the store does to objects in the folder, in blocking calls.  Each `pub(super)`
//! method is one hop to the blocking pool.

use std::collections::BTreeMap;
use std::fs::{File, create_dir_all};
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use object_store::path::Path;
use object_store::{
    Attributes, Error as OsError, GetOptions, GetRange, ObjectMeta, PutMode, PutPayload, PutResult, Result,
};
use parking_lot::{Mutex, MutexGuard};
use rustix::fs::{
    AtFlags, FileType, OFlags, RenameFlags, Stat, Timespec, Timestamps, UTIME_OMIT, fdatasync, fstat,
    futimens, linkat, renameat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

use super::lock::{self, FolderLock};
use super::problem::{FileProblem, at, io_problem, missing};
use super::put_ids::PutIds;
use super::temp::{self, TempFile, Temps};
use super::tree::Tree;
use crate::StoreError;
use crate::put_id::PutId;

/// Locks for compare-and-swap.  Two paths may share one: that costs a wait, no more.
const STRIPES: usize = 256;

/// A folder that was pruned under a PUT is made again, this often.
const PRUNE_RACES: usize = 8;

#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    pub(super) tree: Tree,
    pub(super) temps: Arc<Temps>,
    _lock: FolderLock,
    last_modified_ns: AtomicI64,
    put_ids: Mutex<PutIds>,
    stripes: Vec<Mutex<()>>,
}

/// An object's place: its folder below the root, and its name there.
#[derive(Clone, Debug)]
pub(super) struct Target {
    location: Path,
    leaf_at: usize,
}

pub(super) struct Found {
    pub meta: ObjectMeta,
    pub range: Range<u64>,
    pub attributes: Attributes,
    pub body: Body,
}

pub(super) enum Body {
    Whole(Bytes),
    Open(File),
}

impl Target {
    /// `Path` cannot hold `..`, `.`, an empty or an absolute segment; ours are reserved.
    pub(super) fn new(location: &Path) -> Result<Self> {
        let raw = location.as_ref();
        if raw.is_empty() {
            return Err(missing(raw));
        }
        let first = raw.split('/').next().unwrap_or(raw);
        if is_reserved(first) {
            return Err(FileProblem::Reserved(first.to_owned()).into());
        }
        Ok(Self {
            location: location.clone(),
            leaf_at: raw.rfind('/').map_or(0, |slash| slash + 1),
        })
    }

    fn folder(&self) -> &str {
        &self.location.as_ref()[..self.leaf_at.saturating_sub(1)]
    }

    fn leaf(&self) -> &str {
        &self.location.as_ref()[self.leaf_at..]
    }

    fn as_str(&self) -> &str {
        self.location.as_ref()
    }
}

pub(super) fn is_reserved(first_segment: &str) -> bool {
    first_segment == temp::NAME || first_segment == lock::NAME
}

impl Folder {
    pub(super) fn open(path: &FsPath, now_ms: i64) -> Result<Self, StoreError> {
        let config = |call: &'static str| {
            move |e: io::Error| StoreError::Config {
                source: io_problem(call, e),
            }
        };
        create_dir_all(path).map_err(config("create folder"))?;
        // Resolved once: the folder may be reached through links, nothing below it may.
        let path = path.canonicalize().map_err(config("resolve folder"))?;
        let lock = FolderLock::take(&path, now_ms)?;
        let temps = Temps::open(&path).map_err(config("clear .tmp"))?;
        // The folder's own name is durable before anything in it is.
        for folder in [Some(path.as_path()), path.parent()].into_iter().flatten() {
            File::open(folder)
                .and_then(|f| f.sync_all())
                .map_err(config("sync folder"))?;
        }
        Ok(Self {
            tree: Tree::new(File::open(&path).map_err(config("open folder"))?),
            temps: Arc::new(temps),
            path,
            _lock: lock,
            last_modified_ns: AtomicI64::new(0),
            put_ids: Mutex::default(),
            stripes: (0..STRIPES).map(|_| Mutex::new(())).collect(),
        })
    }

    pub(super) fn path(&self) -> &FsPath {
        &self.path
    }

    pub(super) fn put(
        &self,
        target: &Target,
        payload: &PutPayload,
        mode: &PutMode,
        put_id: Option<PutId>,
    ) -> Result<PutResult> {
        // Losers are told before they pay for a sync.  The verdict that counts is taken
        // in `move_to_name`.
        self.check_mode(target, mode)?;
        let mut temp = self.temp_file()?;
        for chunk in payload {
            io::Write::write_all(&mut temp.file, chunk).map_err(|e| io_problem("write", e))?;
        }
        self.publish(temp, target, mode, put_id)
    }

    pub(super) fn temp_file(&self) -> Result<TempFile> {
        self.tree.check_healthy()?;
        self.temps.take()
    }

    /// Makes the bytes durable, then gives them their name, then makes the name durable.
    pub(super) fn publish(
        &self,
        mut temp: TempFile,
        target: &Target,
        mode: &PutMode,
        put_id: Option<PutId>,
    ) -> Result<PutResult> {
        let etag = self.stamp(&temp.file).map_err(at("stamp", target.as_str()))?;
        fdatasync(&temp.file).map_err(at("sync", target.as_str()))?;
        for _ in 0..PRUNE_RACES {
            let folder = self.tree.make(target.folder())?;
            match self.move_to_name(&mut temp, &folder, target, mode) {
                Ok(()) => self.tree.sync(&folder)?,
                Err(OsError::NotFound { .. }) => continue,
                Err(e) => return Err(e),
            }
            // Only now: a put-id that can be read back means durable.
            if let Some(id) = put_id {
                self.put_ids.lock().remember(target.as_str(), &etag, id);
            }
            return Ok(PutResult {
                e_tag: Some(etag),
                version: None,
                extensions: Default::default(),
            });
        }
        self.temps.forget();
        Err(at("rename", target.as_str())(Errno::BUSY))
    }

    fn move_to_name(
        &self,
        temp: &mut TempFile,
        folder: &OwnedFd,
        target: &Target,
        mode: &PutMode,
    ) -> Result<()> {
        let (name, leaf) = (temp.name.as_str(), target.leaf());
        let failed = at("rename", target.as_str());
        if *mode != PutMode::Create {
            let _swap = self.lock_path(target);
            self.check_mode(target, mode)?;
            renameat(&self.temps.folder, name, folder, leaf).map_err(failed)?;
            temp.moved = true;
            return Ok(());
        }
        match renameat_with(&self.temps.folder, name, folder, leaf, RenameFlags::NOREPLACE) {
            Ok(()) => temp.moved = true,
            Err(Errno::EXIST) => {
                // A folder of objects in the way is nobody's win.
                self.stat(target)
                    .map_err(|_| FileProblem::FolderInTheWay(target.as_str().to_owned()))?;
                return Err(failed(Errno::EXIST));
            }
            // Not every file system knows the flag; a hard link is as atomic.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                linkat(&self.temps.folder, name, folder, leaf, AtFlags::empty()).map_err(failed)?;
            }
            Err(errno) => return Err(failed(errno)),
        }
        Ok(())
    }

    fn check_mode(&self, target: &Target, mode: &PutMode) -> Result<()> {
        if *mode == PutMode::Overwrite {
            return Ok(());
        }
        let found = match self.stat(target) {
            Ok(stat) => Some(etag_of(&stat)),
            Err(OsError::NotFound { .. }) => None,
            Err(e) => return Err(e),
        };
        match mode {
            PutMode::Create if found.is_some() => Err(at("create", target.as_str())(Errno::EXIST)),
            PutMode::Update(version) if found.is_none() || found != version.e_tag => {
                Err(OsError::Precondition {
                    path: target.as_str().to_owned(),
                    source: format!("found {found:?}, expected {:?}", version.e_tag).into(),
                })
            }
            PutMode::Create | PutMode::Update(_) | PutMode::Overwrite => Ok(()),
        }
    }

    pub(super) fn copy(&self, from: &Target, to: &Target, mode: &PutMode) -> Result<()> {
        let mut source = File::from(self.open_object(from)?);
        self.check_mode(to, mode)?;
        let mut temp = self.temp_file()?;
        io::copy(&mut source, &mut temp.file).map_err(|e| io_problem("copy", e))?;
        self.publish(temp, to, mode, None).map(|_| ())
    }

    pub(super) fn rename(&self, from: &Target, to: &Target, keep_existing: bool) -> Result<()> {
        self.tree.check_healthy()?;
        self.stat(from)?;
        let source = self
            .tree
            .open(from.folder())
            .map_err(at("rename", from.as_str()))?;
        let folder = self.tree.make(to.folder())?;
        let flags = if keep_existing {
            RenameFlags::NOREPLACE
        } else {
            RenameFlags::empty()
        };
        {
            let _swap = self.lock_path(to);
            renameat_with(&source, from.leaf(), &folder, to.leaf(), flags)
                .map_err(at("rename", from.as_str()))?;
        }
        self.tree.sync(&folder)?;
        self.tree.prune_and_sync(from.folder(), source)
    }

    /// Deletes what is there and has nothing against what is not, as S3 does.  Folders
    /// left empty go too, so that a dropped collection leaves nothing behind.
    pub(super) fn delete(&self, batch: Vec<Result<Path>>) -> Vec<Result<Path>> {
        let mut touched = BTreeMap::new();
        let mut results = Vec::with_capacity(batch.len());
        for location in batch {
            results.push(location.and_then(|location| {
                self.unlink(&Target::new(&location)?, &mut touched)?;
                Ok(location)
            }));
        }
        for (folder, opened) in touched {
            if let Err(e) = self.tree.prune_and_sync(&folder, opened) {
                // Which of them a power cut would bring back is anyone's guess.
                let reason = e.to_string();
                for deleted in results.iter_mut().filter(|r| r.is_ok()) {
                    *deleted = Err(FileProblem::NotDeleted(reason.clone()).into());
                }
            }
        }
        results
    }

    fn unlink(&self, target: &Target, touched: &mut BTreeMap<String, OwnedFd>) -> Result<()> {
        self.tree.check_healthy()?;
        let folder = match self.tree.open(target.folder()) {
            Ok(folder) => folder,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            Err(errno) => return Err(at("delete", target.as_str())(errno)),
        };
        let _swap = self.lock_path(target);
        match unlinkat(&folder, target.leaf(), AtFlags::empty()) {
            Ok(()) => {
                touched.insert(target.folder().to_owned(), folder);
                Ok(())
            }
            // A folder of objects is not an object.
            Err(Errno::NOENT | Errno::ISDIR | Errno::PERM) if self.stat(target).is_err() => Ok(()),
            Err(errno) => Err(at("delete", target.as_str())(errno)),
        }
    }

    pub(super) fn get(&self, target: &Target, options: &GetOptions, whole_up_to: u64) -> Result<Found> {
        let file = File::from(self.open_object(target)?);
        let stat = fstat(&file).map_err(at("stat", target.as_str()))?;
        let meta = meta_of(target.location.clone(), &stat);
        options.check_preconditions(&meta)?;
        let range = match &options.range {
            Some(range) => resolve(range, meta.size)?,
            None => 0..meta.size,
        };
        let mut attributes = Attributes::new();
        if let Some(id) = self.put_ids.lock().of(target.as_str(), &etag_of(&stat)) {
            id.attach(&mut attributes);
        }
        let body = if options.head {
            Body::Whole(Bytes::new())
        } else if range.end - range.start <= whole_up_to {
            Body::Whole(read_exact(&file, range.clone())?)
        } else {
            Body::Open(file)
        };
        Ok(Found {
            meta,
            range,
            attributes,
            body,
        })
    }

    pub(super) fn get_ranges(&self, target: &Target, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let file = File::from(self.open_object(target)?);
        let size = fstat(&file).map_err(at("stat", target.as_str()))?.st_size as u64;
        let read = |range: &Range<u64>| {
            Ok(read_exact(
                &file,
                resolve(&GetRange::Bounded(range.clone()), size)?,
            )?)
        };
        ranges.iter().map(read).collect()
    }

    pub(super) fn stat(&self, target: &Target) -> Result<Stat> {
        let failed = at("stat", target.as_str());
        let folder = self.tree.open(target.folder()).map_err(&failed)?;
        let stat = statat(&folder, target.leaf(), AtFlags::SYMLINK_NOFOLLOW).map_err(&failed)?;
        if FileType::from_raw_mode(stat.st_mode).is_file() {
            Ok(stat)
        } else {
            Err(missing(target.as_str()))
        }
    }

    fn open_object(&self, target: &Target) -> Result<OwnedFd> {
        let failed = at("open", target.as_str());
        // NONBLOCK: a pipe that somebody put into the folder must not hang us.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = self.tree.open_beneath(target.as_str(), flags).map_err(&failed)?;
        let stat = fstat(&fd).map_err(&failed)?;
        if FileType::from_raw_mode(stat.st_mode).is_file() {
            Ok(fd)
        } else {
            Err(missing(target.as_str()))
        }
    }

    fn lock_path(&self, target: &Target) -> MutexGuard<'_, ()> {
        let hash = xxhash_rust::xxh3::xxh3_64(target.as_str().as_bytes());
        self.stripes[hash as usize % STRIPES].lock()
    }

    /// Gives the file a modification time no other file of this process has, and with it
    /// an ETag nobody has seen: the kernel's own clock ticks in milliseconds and inodes
    /// are used again, so two versions could otherwise look alike to a compare-and-swap.
    fn stamp(&self, file: &File) -> Result<String, Errno> {
        let mut stat = fstat(file)?;
        let now = modified_ns(&stat);
        let last = self.last_modified_ns.fetch_max(now, Ordering::Relaxed);
        let unique = if last < now {
            now
        } else {
            self.last_modified_ns.fetch_add(1, Ordering::Relaxed) + 1
        };
        let to = Timespec {
            tv_sec: unique.div_euclid(NS),
            tv_nsec: unique.rem_euclid(NS),
        };
        let keep = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        };
        futimens(
            file,
            &Timestamps {
                last_access: keep,
                last_modification: to,
            },
        )?;
        stat.st_mtime = to.tv_sec;
        stat.st_mtime_nsec = to.tv_nsec as _;
        Ok(etag_of(&stat))
    }
}

const NS: i64 = 1_000_000_000;

fn modified_ns(stat: &Stat) -> i64 {
    stat.st_mtime
        .saturating_mul(NS)
        .saturating_add(stat.st_mtime_nsec as i64)
}

fn etag_of(stat: &Stat) -> String {
    format!("\"{:x}-{:x}-{:x}\"", stat.st_ino, modified_ns(stat), stat.st_size)
}

pub(super) fn meta_of(location: Path, stat: &Stat) -> ObjectMeta {
    ObjectMeta {
        location,
        last_modified: chrono::DateTime::from_timestamp_nanos(modified_ns(stat)),
        size: stat.st_size as u64,
        e_tag: Some(etag_of(stat)),
        version: None,
    }
}

pub(super) fn read_exact(file: &File, range: Range<u64>) -> Result<Bytes, FileProblem> {
    let wanted = (range.end - range.start) as usize;
    let mut buffer = Vec::with_capacity(wanted);
    while buffer.len() < wanted {
        let offset = range.start + buffer.len() as u64;
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut buffer), offset) {
            Ok(0) => {
                return Err(FileProblem::Short {
                    got: buffer.len(),
                    wanted,
                });
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => {
                return Err(FileProblem::Io {
                    call: "read",
                    source: errno.into(),
                });
            }
        }
    }
    // An allocator may give more room than was asked for, and the reads may have used it.
    buffer.truncate(wanted);
    Ok(buffer.into())
}

fn resolve(range: &GetRange, size: u64) -> Result<Range<u64>> {
    let resolved = match range {
        GetRange::Bounded(bounds) => bounds.start..bounds.end.min(size),
        GetRange::Offset(start) => *start..size,
        GetRange::Suffix(length) => size.saturating_sub(*length)..size,
    };
    if resolved.start < resolved.end || (resolved.start == size && matches!(range, GetRange::Suffix(_))) {
        return Ok(resolved);
    }
    Err(FileProblem::Range {
        asked: range.to_string(),
        size,
    }
    .into())
}

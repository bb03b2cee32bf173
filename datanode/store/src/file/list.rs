//! Listing a folder as a store lists: recursively, in order of whole paths, whatever the
//! file system's own order is.

use std::sync::Arc;

use object_store::path::Path;
use object_store::{ListResult, ObjectMeta, Result};
use rustix::fs::{AtFlags, Dir, FileType, Stat, statat};
use rustix::io::Errno;

use super::folder::{Folder, is_reserved, meta_of};
use super::problem::at;

/// A walk in progress.  It holds names, no open files: objects that vanish meanwhile are
/// left out, objects that appear may or may not be seen.
pub(super) struct Walk {
    folder: Arc<Folder>,
    /// Deepest last; each holds what is left of a folder, smallest name last.
    open: Vec<Level>,
    after: String,
}

struct Level {
    path: String,
    /// A folder's name ends in `/`: that is how it sorts among whole paths.
    left: Vec<String>,
}

impl Walk {
    pub(super) fn new(folder: Arc<Folder>, prefix: Option<&Path>, after: Option<&Path>) -> Result<Self> {
        let root = prefix.map_or("", |p| p.as_ref()).to_owned();
        let mut walk = Self {
            folder,
            open: Vec::new(),
            after: after.map_or("", |p| p.as_ref()).to_owned(),
        };
        if !root.split('/').next().is_some_and(is_reserved) {
            // Read at the first step, on a thread that may block.
            walk.open.push(Level {
                path: String::new(),
                left: vec![slashed(root)],
            });
        }
        Ok(walk)
    }

    /// The next objects, at most `most`; empty at the end.
    pub(super) fn next_step(&mut self, most: usize) -> Result<Vec<ObjectMeta>> {
        let mut step = Vec::new();
        while step.len() < most {
            let Some(level) = self.open.last_mut() else { break };
            let Some(name) = level.left.pop() else {
                self.open.pop();
                continue;
            };
            let path = format!("{}{name}", level.path);
            if path.ends_with('/') || path.is_empty() {
                if path > self.after || self.after.starts_with(&path) {
                    let left = read_folder(&self.folder, &path)?;
                    self.open.push(Level { path, left });
                }
            } else if path > self.after
                && let Some(meta) = object(&self.folder, &path)?
            {
                step.push(meta);
            }
        }
        Ok(step)
    }
}

/// Objects and folders directly below `prefix`.  A folder that a crash left empty shows as
/// a prefix without objects.
pub(super) fn one_level(folder: &Folder, prefix: &Path) -> Result<ListResult> {
    let path = slashed(prefix.as_ref().to_owned());
    let (mut objects, mut common_prefixes) = (Vec::new(), Vec::new());
    if path.split('/').next().is_some_and(is_reserved) {
        return Ok(ListResult {
            objects,
            common_prefixes,
            extensions: Default::default(),
        });
    }
    let mut left = read_folder(folder, &path)?;
    left.reverse();
    for name in left {
        let full = format!("{path}{name}");
        if full.ends_with('/') {
            common_prefixes.extend(Path::parse(&full).ok());
        } else {
            objects.extend(object(folder, &full)?);
        }
    }
    Ok(ListResult {
        objects,
        common_prefixes,
        extensions: Default::default(),
    })
}

fn slashed(path: String) -> String {
    if path.is_empty() { path } else { path + "/" }
}

/// Largest name first.  A folder that is not there has no entries.
fn read_folder(folder: &Folder, path: &str) -> Result<Vec<String>> {
    let failed = at("list", path);
    let fd = match folder.tree.open(path.trim_end_matches('/')) {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let mut names = Vec::new();
    for entry in Dir::read_from(&fd).map_err(&failed)? {
        let entry = entry.map_err(&failed)?;
        // A name that no `Path` can hold was not written by us.
        let Ok(name) = entry.file_name().to_str() else {
            continue;
        };
        if name == "." || name == ".." || Path::parse(name).is_err() || (path.is_empty() && is_reserved(name))
        {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => match statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                Err(Errno::NOENT) => continue,
                Err(e) => return Err(failed(e)),
            },
            known => known,
        };
        match kind {
            FileType::Directory => names.push(format!("{name}/")),
            FileType::RegularFile => names.push(name.to_owned()),
            _ => {}
        }
    }
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
}

fn object(folder: &Folder, path: &str) -> Result<Option<ObjectMeta>> {
    let location = Path::parse(path)?;
    let target = super::folder::Target::new(&location)?;
    let stat: Stat = match folder.stat(&target) {
        Ok(stat) => stat,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(e) => return Err(e),
    };
    Ok(Some(meta_of(location, &stat)))
}

//! One server per folder: an exclusive lock on `.lock`, which the kernel drops when the
//! process dies in whatever way.  The text in the file names the holder, for people.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path as FsPath;

use crate::StoreError;

use super::problem::io_problem;

pub(super) const NAME: &str = ".lock";

#[derive(Debug)]
pub(super) struct FolderLock {
    /// Locked as long as it is open.
    _file: File,
}

impl FolderLock {
    pub(super) fn take(folder: &FsPath, now_ms: i64) -> Result<Self, StoreError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(folder.join(NAME))
            .map_err(|e| io("open .lock", e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Locked {
                    holder: holder_of(&mut file),
                });
            }
            Err(TryLockError::Error(e)) => return Err(io("lock .lock", e)),
        }
        let text = describe(now_ms);
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| file.write_all(text.as_bytes()))
            .map_err(|e| io("write .lock", e))?;
        Ok(Self { _file: file })
    }
}

fn describe(now_ms: i64) -> String {
    // Not worth a system call's crate feature: where there is no /proc, the pid must do.
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    let started = chrono::DateTime::from_timestamp_millis(now_ms).unwrap_or_default();
    format!(
        "pid {} on {host}, started {}\n",
        std::process::id(),
        started.format("%Y-%m-%dT%H:%M:%SZ")
    )
}

fn holder_of(file: &mut File) -> String {
    let mut text = String::new();
    // The holder may be writing the line just now: an empty name beats no answer.
    match file.take(256).read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => text.trim().to_owned(),
        _ => "a process that has not written its name yet".to_owned(),
    }
}

fn io(call: &'static str, source: std::io::Error) -> StoreError {
    StoreError::Config {
        source: io_problem(call, source),
    }
}

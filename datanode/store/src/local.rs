//! Objects of a folder as plain files, for reads of a few hundred bytes that cannot afford a
//! hop to another thread.
//!
//! Such a read passes by the cache, the checksums and the retries.  Whoever uses it must be
//! able to tell damage from data, and read the object through the bucket where in doubt.

use std::fs::File;
use std::io::{ErrorKind, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::io::{Errno, ReadWriteFlags, preadv2};

#[derive(Debug)]
pub struct LocalFile(File);

impl LocalFile {
    /// `None` when it cannot be opened: the bucket will say why.
    pub(crate) fn open(path: &Path) -> Option<Self> {
        File::open(path).ok().map(Self)
    }

    /// Fills `buffer` from memory.  False, and the buffer is of no meaning, when the disk would
    /// have to be waited for, or anything else is in the way.
    pub fn read_now(&self, buffer: &mut [u8], offset: u64) -> bool {
        let wanted = buffer.len();
        match preadv2(
            &self.0,
            &mut [IoSliceMut::new(buffer)],
            offset,
            ReadWriteFlags::NOWAIT,
        ) {
            Ok(read) => read == wanted,
            // A file system without it: plain reads are what there is.
            Err(Errno::OPNOTSUPP) => self.read(buffer, offset),
            Err(_) => false,
        }
    }

    /// As `read_now`, but waits for the disk.
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> bool {
        loop {
            match self.0.read_exact_at(buffer, offset) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                outcome => return outcome.is_ok(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_was_just_written_is_read_at_once_and_nothing_past_the_end() {
        let folder = crate::testing::TempFolder::new();
        let path = folder.path().join("object");
        File::create(&path)
            .and_then(|mut file| file.write_all(b"0123456789"))
            .expect("written");
        let file = LocalFile::open(&path).expect("there");
        let mut four = [0; 4];
        assert!(file.read_now(&mut four, 3));
        assert_eq!(&four, b"3456");
        assert!(!file.read_now(&mut four, 8), "two bytes are left");
        assert!(!file.read(&mut four, 8));
        assert!(LocalFile::open(&folder.path().join("nobody")).is_none());
    }
}

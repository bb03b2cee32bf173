//! What can happen to a cache folder: it is gone, or it is not what was written.

use std::fs;
use std::path::{Path, PathBuf};

use rand::Rng;
use rand::rngs::StdRng;

/// Wipes the folder, or damages some of its files.  Errors are part of it: the server may
/// be writing at the same time.
pub fn strike(cache: &Path, rng: &mut StdRng) {
    if rng.random_bool(0.4) {
        let _ = fs::remove_dir_all(cache);
        return;
    }
    let mut files = Vec::new();
    collect(cache, &mut files);
    for file in &files {
        if rng.random_bool(0.5) {
            let _ = damage(file, &files, rng);
        }
    }
}

fn damage(file: &Path, others: &[PathBuf], rng: &mut StdRng) -> std::io::Result<()> {
    let mut bytes = fs::read(file)?;
    match rng.random_range(0..5) {
        0 => return fs::remove_file(file),
        1 => bytes.truncate(rng.random_range(0..=bytes.len())),
        2 => bytes.extend_from_slice(b"more than there was"),
        // Another object's bytes, whole and with their own checksums.
        3 => bytes = fs::read(&others[rng.random_range(0..others.len())])?,
        _ => {
            for _ in 0..8 {
                if !bytes.is_empty() {
                    let at = rng.random_range(0..bytes.len());
                    bytes[at] ^= 1 << rng.random_range(0..8);
                }
            }
        }
    }
    fs::write(file, bytes)
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, into);
        } else {
            into.push(path);
        }
    }
    into.sort();
}

//! Which objects of a partition may stay after an erasure, and what each of them holds.
//! Pure: it looks at names alone.

use std::collections::{BTreeMap, BTreeSet};

/// What the newest version of a table consists of, by names within the table's folder.
#[derive(Clone, Debug, Default)]
pub struct TableFiles {
    pub version: u64,
    /// `data/…` and `_deletions/…`.
    pub rows: BTreeSet<String>,
    /// Of `_transactions/`.
    pub transaction: Option<String>,
}

/// An object of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub bytes: u64,
    pub etag: Option<String>,
}

/// By their names in the partition's folder.
pub type Objects = BTreeMap<String, Object>;

/// Beside which names of a partition's folder are judged.
pub struct Remains {
    table: Option<TableFiles>,
    idem: BTreeSet<String>,
}

/// What an object holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Documents that are there for readers.
    Rows,
    /// What was worked out from them: words, codes of vectors, lists.
    Derived,
    /// Writes that are newer than the base.
    Log,
    /// Idempotency keys of 24 hours.
    Keys,
    /// File names, numbers, checksums.
    Bookkeeping,
    /// Nobody of ours wrote it.
    Unknown,
}

impl Remains {
    pub fn new(table: Option<TableFiles>, idem: impl Iterator<Item = String>) -> Self {
        Self {
            table,
            idem: idem.collect(),
        }
    }

    /// Nobody needs it, and nobody ever will.
    pub fn is_garbage(&self, name: &str) -> bool {
        let (folder, rest) = name.split_once('/').unwrap_or(("", name));
        match folder {
            "table" => self.is_garbage_of_table(rest),
            // Named like their file, which goes first; these may have outlived it.
            "sums" => rest
                .strip_suffix(".crc")
                .is_some_and(|file| self.is_garbage_of_table(file)),
            "idem" => !self.idem.contains(rest),
            _ => false,
        }
    }

    fn is_garbage_of_table(&self, name: &str) -> bool {
        let Some(table) = &self.table else {
            return false;
        };
        let (folder, rest) = name.split_once('/').unwrap_or(("", name));
        match folder {
            "data" | "_deletions" => !table.rows.contains(name),
            "_versions" => version_of(rest).is_some_and(|version| version < table.version),
            // Named by the version it was made on.
            "_transactions" => {
                let made_on = rest
                    .split('-')
                    .next()
                    .and_then(|number| number.parse::<u64>().ok());
                made_on.is_some_and(|made_on| made_on < table.version)
                    && table.transaction.as_deref() != Some(rest)
            }
            _ => false,
        }
    }
}

/// The names Lance gives to its manifests: newest first in a listing.
fn version_of(name: &str) -> Option<u64> {
    let number = name.strip_suffix(".manifest")?.parse::<u64>().ok()?;
    Some(match name.len() {
        29 => u64::MAX - number,
        _ => number,
    })
}

pub fn holds(name: &str) -> Holds {
    let (folder, rest) = name.split_once('/').unwrap_or(("", name));
    match (folder, rest) {
        ("table", rest) if rest.starts_with("data/") => Holds::Rows,
        ("table", rest) if rest.starts_with("_indices/") => Holds::Unknown,
        ("table" | "sums", _) | ("", "state.json") => Holds::Bookkeeping,
        ("view", rest) if rest.ends_with(".calibration") => Holds::Bookkeeping,
        ("view", _) => Holds::Derived,
        ("wal", _) => Holds::Log,
        ("idem", _) => Holds::Keys,
        _ => Holds::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remains() -> Remains {
        let table = TableFiles {
            version: 7,
            rows: ["data/new.lance", "_deletions/3-6-1.arrow"]
                .map(String::from)
                .into(),
            transaction: Some("6-b.txn".into()),
        };
        Remains::new(Some(table), ["k.json".to_owned()].into_iter())
    }

    #[test]
    fn what_the_newest_version_needs_stays() {
        for name in [
            "table/data/new.lance",
            "table/_deletions/3-6-1.arrow",
            "table/_versions/18446744073709551608.manifest",
            "table/_versions/latest_version_hint.json",
            "table/_transactions/6-b.txn",
            "sums/data/new.lance.crc",
            "idem/k.json",
            "state.json",
            "wal/00000000000000000005.arrow",
            "view/new.3.codes",
            "something/else",
        ] {
            assert!(!remains().is_garbage(name), "{name}");
        }
    }

    #[test]
    fn what_only_older_versions_needed_goes() {
        for name in [
            "table/data/old.lance",
            "table/_deletions/1-2-9.bin",
            "table/_versions/18446744073709551609.manifest",
            "table/_versions/3.manifest",
            "table/_transactions/6-a.txn",
            "table/_transactions/0-a.txn",
            "sums/data/old.lance.crc",
            "sums/_versions/18446744073709551610.manifest.crc",
            "idem/old.json",
        ] {
            assert!(remains().is_garbage(name), "{name}");
        }
    }

    /// A version above ours is another's, or an orphan that the next commit undoes.
    #[test]
    fn what_lies_above_the_newest_version_is_left_alone() {
        for name in [
            "table/_versions/18446744073709551607.manifest",
            "table/_transactions/7-c.txn",
            "sums/_versions/18446744073709551607.manifest.crc",
        ] {
            assert!(!remains().is_garbage(name), "{name}");
        }
    }

    #[test]
    fn a_partition_without_a_table_keeps_everything_of_one() {
        let remains = Remains::new(None, std::iter::empty());
        assert!(!remains.is_garbage("table/data/x.lance"));
        assert!(remains.is_garbage("idem/x.json"));
    }
}

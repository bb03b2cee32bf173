//! The audit: who did what, in a chain that shows when a link was changed or taken out.
//!
//! A process writes one chain, in segments of lines.  Each line is
//! `{"prev":…,"hash":…,"record":{…}}` with `hash = SHA-256(prev, record)` over the record's
//! bytes as they stand; the first `prev` is the hash of the chain's own name.  A chain ends
//! with a record that says so; one without it belongs to a process that was killed, or its
//! last segments are gone: that cannot be told apart, and `verify` says "open".

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// One thing that was done, or not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// From 0, without a gap.
    pub number: u64,
    pub at: String,
    /// The process.
    pub node: String,
    pub subject: String,
    /// The operation's name, `login`, or what the audit says of itself.
    pub action: String,
    /// The collection, key, user, group or role.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    pub outcome: Outcome,
    pub status: u16,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request_id: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    #[default]
    Done,
    /// Not let in, or not allowed.
    Denied,
    /// Allowed, and refused or failed for another reason.
    Failed,
}

/// The action of a chain's last record.
pub const END: &str = "audit_end";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    prev: String,
    hash: String,
    #[serde(borrow)]
    record: &'a RawValue,
}

/// Where the next line goes.
#[derive(Clone, Debug)]
pub struct Chain {
    prev: String,
    next: u64,
}

impl Chain {
    /// `name` is used by no other chain of this database.
    pub fn new(name: &str) -> Self {
        Self {
            prev: hash("rhumb audit 1", name),
            next: 0,
        }
    }

    /// The line for a record, which gets its number here.
    pub fn append(&mut self, record: Record) -> Result<String, serde_json::Error> {
        let record = Record {
            number: self.next,
            ..record
        };
        let raw = serde_json::value::to_raw_value(&record)?;
        let hash = hash(&self.prev, raw.get());
        let line = Line {
            prev: self.prev.clone(),
            hash: hash.clone(),
            record: &raw,
        };
        let mut text = serde_json::to_string(&line)?;
        text.push('\n');
        self.prev = hash;
        self.next += 1;
        Ok(text)
    }
}

/// The records of a segment, without a look at their hashes.
pub fn records(segment: &str) -> impl Iterator<Item = Record> {
    segment.lines().filter_map(|line| {
        let line: Line<'_> = serde_json::from_str(line).ok()?;
        serde_json::from_str(line.record.get()).ok()
    })
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    pub records: u64,
    /// The chain says that it is whole.
    pub ended: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("segment {segment}, line {line}: {why}")]
pub struct Broken {
    pub segment: usize,
    pub line: usize,
    pub why: &'static str,
}

/// Holds the segments of one chain, in order, against each other.
pub fn verify<'a>(name: &str, segments: impl Iterator<Item = &'a str>) -> Result<Verified, Broken> {
    let mut chain = Chain::new(name);
    let mut ended = false;
    for (segment, text) in segments.enumerate() {
        for (line, text) in text.lines().enumerate() {
            let broken = |why| Broken { segment, line, why };
            let parsed: Line<'_> =
                serde_json::from_str(text).map_err(|_| broken("it is not a line of the audit"))?;
            let record: Record =
                serde_json::from_str(parsed.record.get()).map_err(|_| broken("its record cannot be read"))?;
            if ended {
                return Err(broken("it comes after the chain's end"));
            }
            if parsed.prev != chain.prev {
                return Err(broken("it does not follow the line before it"));
            }
            if parsed.hash != hash(&parsed.prev, parsed.record.get()) {
                return Err(broken("its record is not what its hash covers"));
            }
            if record.number != chain.next {
                return Err(broken("its number is not the next"));
            }
            ended = record.action == END;
            chain.prev = parsed.hash;
            chain.next += 1;
        }
    }
    Ok(Verified {
        records: chain.next,
        ended,
    })
}

fn hash(prev: &str, record: &str) -> String {
    // The length keeps the two apart.
    sha256(&[
        &(prev.len() as u64).to_le_bytes(),
        prev.as_bytes(),
        record.as_bytes(),
    ])
}

/// Of all parts, one after the other, in hexadecimal digits.
pub fn sha256(parts: &[&[u8]]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut text = String::with_capacity(64);
    for byte in context.finish().as_ref() {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(action: &str) -> Record {
        Record {
            subject: "user:ada".into(),
            action: action.into(),
            reason: "a \"quoted\"\nline".into(),
            status: 200,
            ..Record::default()
        }
    }

    fn segments(actions: &[&[&str]]) -> Vec<String> {
        let mut chain = Chain::new("c");
        let mut line = |action: &&str| chain.append(record(action)).expect("json");
        actions
            .iter()
            .map(|segment| segment.iter().map(&mut line).collect())
            .collect()
    }

    fn check(segments: &[String]) -> Result<Verified, Broken> {
        verify("c", segments.iter().map(String::as_str))
    }

    #[test]
    fn a_whole_chain_is_found_whole() {
        let whole = segments(&[&["a", "b"], &["c"], &[END]]);
        let verified = Verified {
            records: 4,
            ended: true,
        };
        assert_eq!(check(&whole), Ok(verified));
        assert_eq!(records(&whole[0]).count(), 2);
        assert!(!check(&whole[..2]).expect("no link is broken").ended);
    }

    #[test]
    fn what_was_changed_moved_or_taken_out_shows() {
        let whole = segments(&[&["a", "b"], &["c"], &[END]]);
        let edited = |at: usize, text: String| {
            let mut changed = whole.clone();
            changed[at] = text;
            changed
        };
        assert!(check(&edited(0, whole[0].replace("ada", "bob"))).is_err());
        assert!(check(&edited(1, String::new())).is_err());
        assert!(check(&[whole[0].clone(), whole[2].clone(), whole[1].clone()]).is_err());
        let first_line_gone = whole[0].lines().skip(1).map(|line| format!("{line}\n")).collect();
        assert!(check(&edited(0, first_line_gone)).is_err());
        assert!(verify("another", whole.iter().map(String::as_str)).is_err());
    }

    proptest! {
        #[test]
        fn one_changed_byte_anywhere_shows(at in 0usize..600, byte in 32u8..127) {
            let whole = segments(&[&["a", "b"]]);
            let mut bytes = whole[0].clone().into_bytes();
            prop_assume!(at < bytes.len() && bytes[at] != byte && bytes[at] != b'\n');
            bytes[at] = byte;
            let changed = String::from_utf8(bytes).expect("ASCII");
            prop_assert!(check(&[changed]).is_err());
        }
    }
}

//! One mutable JSON object, changed by compare-and-swap: a partition's state, a catalog
//! entry.
//!
//! The value travels in an envelope: `change` rises by one with every write and `put_id`
//! names the write, so no two versions are ever byte-identical (an ETag of equal bytes
//! repeats, and If-Match would then let a stale writer through).  `sum` covers all of it,
//! so a truncated or flipped answer is seen, fetched again, and finally `Corrupt`.
//! `recent` names the writes before this one, so a writer whose answer was lost can still
//! learn that its change landed after others have built on it.
//!
//! These objects are never deleted: one that was seen and then is missing, or that went
//! back to an earlier change, is `Corrupt` too.
//!
//! A write ends `Landed`, `Lost` or `Unknown`; an error means that nothing was written.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use object_store::path::Path;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_128;

use crate::{Bucket, Outcome, PutId, Result, StoreError, Tag};

const FORMAT: u32 = 1;
/// Earlier writes that an envelope names.
const RECENT: usize = 16;
/// Reads of an object that does not decode, before it counts as corrupt.
const READS: u32 = 3;
/// Repetitions of one write whose outcome stays unknown, on top of the bucket's own.
const ROUNDS: u32 = 4;
/// Others that may overtake one `update`.
const RACES: u32 = 64;

/// A handle on the object.  Clones share the memory of the highest change seen.
#[derive(Debug)]
pub struct Cas<T> {
    bucket: Bucket,
    path: Path,
    seen: Arc<AtomicU64>,
    value: PhantomData<fn() -> T>,
}

/// A value as it was read or written, with what is needed to replace it.
#[derive(Clone, Debug)]
pub struct Versioned<T> {
    pub value: T,
    /// Counts the writes of this object, from 1.
    pub change: u64,
    pub tag: Tag,
    put_id: PutId,
    recent: Vec<PutId>,
}

/// How one compare-and-swap ended.
#[derive(Clone, Debug)]
#[must_use]
pub enum Swap<T> {
    /// Our change is in the object.  The value is what was read last: others may have
    /// changed it further.
    Landed(Versioned<T>),
    /// Our change is not in the object and never will be; this is what is there instead.
    Lost(Versioned<T>),
    /// Our change may be there, may have been built on by more writers than an envelope
    /// names, or may come yet.
    Unknown,
}

impl<T> Clone for Cas<T> {
    fn clone(&self) -> Self {
        Self {
            bucket: self.bucket.clone(),
            path: self.path.clone(),
            seen: self.seen.clone(),
            value: PhantomData,
        }
    }
}

impl<T: Serialize + DeserializeOwned> Cas<T> {
    pub fn new(bucket: Bucket, path: Path) -> Self {
        Self {
            bucket,
            path,
            seen: Arc::new(AtomicU64::new(0)),
            value: PhantomData,
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `None` when the object was never created.  One GET.
    pub async fn load(&self) -> Result<Option<Versioned<T>>> {
        let mut doubt = None;
        for _ in 0..READS {
            // Before the read: answers to two readers may arrive in either order.
            let floor = self.seen.load(Ordering::SeqCst);
            let read = match self.bucket.get_uncached(&self.path).await? {
                Some((bytes, tag)) => decode(&self.path, &bytes, tag).map(Some),
                None => Ok(None),
            };
            match read.and_then(|found| self.not_rolled_back(found, floor)) {
                Ok(found) => return Ok(found),
                Err(e) => doubt = Some(e),
            }
        }
        Err(doubt.unwrap_or_else(|| self.corrupt("unreadable")))
    }

    /// Whether the object is still the version that carried `tag`.  One HEAD.
    pub async fn is_still(&self, tag: &Tag) -> Result<bool> {
        let found = self.bucket.head(&self.path).await?;
        Ok(found.is_some_and(|(_, now)| now.etag == tag.etag))
    }

    /// Writes the first version.  One GET and one PUT.
    pub async fn create(&self, value: T) -> Result<Swap<T>> {
        // What is there already is nothing that our PUT could have become.
        match self.load().await? {
            Some(now) => Ok(Swap::Lost(now)),
            None => self.write(None, value).await,
        }
    }

    /// Replaces the version `from`.
    pub async fn replace(&self, from: &Versioned<T>, value: T) -> Result<Swap<T>> {
        self.write(Some(from), value).await
    }

    /// Reads, edits and writes until nobody came between.  `edit` may run several times,
    /// each time on the newest value, which never holds this update yet.
    pub async fn update(&self, mut edit: impl FnMut(&T) -> Result<T>) -> Result<Versioned<T>> {
        let missing = || StoreError::NotFound {
            path: self.path.clone(),
        };
        let mut current = self.load().await?.ok_or_else(missing)?;
        for _ in 0..RACES {
            let next = edit(&current.value)?;
            match self.replace(&current, next).await? {
                Swap::Landed(now) => return Ok(now),
                Swap::Lost(now) => current = now,
                Swap::Unknown => {
                    return Err(StoreError::Unknown {
                        path: self.path.clone(),
                    });
                }
            }
        }
        Err(StoreError::Conflict {
            path: self.path.clone(),
        })
    }

    async fn write(&self, from: Option<&Versioned<T>>, value: T) -> Result<Swap<T>> {
        let draft = Draft::after(from, &value, self.bucket.mint_put_id()).map_err(|e| self.broken(&e))?;
        for round in 0..ROUNDS {
            let put = match from {
                None => {
                    self.bucket
                        .create(&self.path, draft.bytes.clone(), &draft.put_id)
                        .await
                }
                Some(seen) => {
                    self.bucket
                        .replace(&self.path, draft.bytes.clone(), &draft.put_id, &seen.tag)
                        .await
                }
            };
            match put {
                Ok(Outcome::Landed(tag)) => {
                    self.seen.fetch_max(draft.change, Ordering::SeqCst);
                    let Draft {
                        change,
                        put_id,
                        recent,
                        ..
                    } = draft;
                    return Ok(Swap::Landed(Versioned {
                        value,
                        change,
                        tag,
                        put_id,
                        recent,
                    }));
                }
                Ok(Outcome::Lost | Outcome::Unknown) => {}
                Err(e) if round == 0 => return Err(e),
                // An earlier round may have landed: this refusal does not undo it.
                Err(_) => return Ok(Swap::Unknown),
            }
            match self.load().await {
                Ok(Some(now)) => match draft.trace_in(&now) {
                    Trace::Landed => return Ok(Swap::Landed(now)),
                    Trace::Lost => return Ok(Swap::Lost(now)),
                    Trace::NotYet => {}
                    Trace::Forgotten => return Ok(Swap::Unknown),
                },
                Ok(None) => {}
                // What is there cannot be read, so neither can the outcome.
                Err(_) => return Ok(Swap::Unknown),
            }
        }
        Ok(Swap::Unknown)
    }

    fn not_rolled_back(&self, found: Option<Versioned<T>>, floor: u64) -> Result<Option<Versioned<T>>> {
        let change = found.as_ref().map_or(0, |f| f.change);
        if change < floor {
            return Err(self.corrupt(&format!("rolled back from change {floor} to {change}")));
        }
        self.seen.fetch_max(change, Ordering::SeqCst);
        Ok(found)
    }

    fn corrupt(&self, reason: &str) -> StoreError {
        StoreError::Corrupt {
            path: self.path.clone(),
            reason: reason.to_owned(),
        }
    }

    fn broken(&self, reason: &serde_json::Error) -> StoreError {
        StoreError::Broken {
            path: self.path.clone(),
            reason: reason.to_string(),
        }
    }
}

/// A version about to be written.
struct Draft {
    change: u64,
    put_id: PutId,
    recent: Vec<PutId>,
    bytes: Bytes,
}

/// What an object tells about a draft.
enum Trace {
    Landed,
    Lost,
    /// Still the version that the draft replaces.
    NotYet,
    /// So many writes later that the draft's own time is no longer named.
    Forgotten,
}

impl Draft {
    fn after<T: Serialize>(
        from: Option<&Versioned<T>>,
        value: &T,
        put_id: PutId,
    ) -> Result<Self, serde_json::Error> {
        let change = from.map_or(0, |f| f.change) + 1;
        let mut recent = Vec::with_capacity(RECENT);
        if let Some(from) = from {
            recent.push(from.put_id.clone());
            recent.extend(from.recent.iter().take(RECENT - 1).cloned());
        }
        let value = serde_json::value::to_raw_value(value)?;
        let names: Vec<&str> = recent.iter().map(PutId::as_str).collect();
        let envelope = Envelope {
            format: FORMAT,
            change,
            put_id: put_id.as_str(),
            sum: sum_of(change, put_id.as_str(), &names, &value),
            recent: names,
            value: &value,
        };
        let bytes = serde_json::to_vec(&envelope)?.into();
        Ok(Self {
            change,
            put_id,
            recent,
            bytes,
        })
    }

    fn trace_in<T>(&self, now: &Versioned<T>) -> Trace {
        if now.put_id == self.put_id || now.recent.contains(&self.put_id) {
            Trace::Landed
        } else if now.change < self.change {
            Trace::NotYet
        } else if now.change - self.change <= now.recent.len() as u64 {
            // The writer of change `self.change` is named, and it is somebody else.
            Trace::Lost
        } else {
            Trace::Forgotten
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    format: u32,
    change: u64,
    #[serde(borrow)]
    put_id: &'a str,
    /// Newest first.
    #[serde(borrow)]
    recent: Vec<&'a str>,
    sum: String,
    #[serde(borrow)]
    value: &'a RawValue,
}

fn decode<T: DeserializeOwned>(path: &Path, bytes: &[u8], tag: Tag) -> Result<Versioned<T>> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let corrupt = |reason: &str| StoreError::Corrupt {
        path: path.clone(),
        reason: reason.to_owned(),
    };
    let Format { format } = serde_json::from_slice(bytes).map_err(|e| corrupt(&e.to_string()))?;
    if format > FORMAT {
        return Err(StoreError::NewerFormat {
            found: format,
            known: FORMAT,
        });
    }
    let envelope: Envelope<'_> = serde_json::from_slice(bytes).map_err(|e| corrupt(&e.to_string()))?;
    let sum = sum_of(envelope.change, envelope.put_id, &envelope.recent, envelope.value);
    if sum != envelope.sum || envelope.change == 0 || envelope.format != FORMAT {
        return Err(corrupt("the checksum does not fit"));
    }
    let name = |text: &str| PutId::parse(text).ok_or_else(|| corrupt("a put-id is not one"));
    let value = serde_json::from_str(envelope.value.get()).map_err(|e| corrupt(&e.to_string()))?;
    Ok(Versioned {
        value,
        change: envelope.change,
        tag,
        put_id: name(envelope.put_id)?,
        recent: envelope
            .recent
            .iter()
            .map(|text| name(text))
            .collect::<Result<_>>()?,
    })
}

fn sum_of(change: u64, put_id: &str, recent: &[&str], value: &RawValue) -> String {
    let covered = format!("{change} {put_id} {} {}", recent.join(","), value.get());
    format!("{:032x}", xxh3_128(covered.as_bytes()))
}

#[cfg(test)]
mod tests;

//! Reading what is sealed.
//!
//! To open anything of an object its footer is needed, and that lies at its end.  The first
//! read of an object therefore asks for the end, or for all of it when all of it is wanted,
//! and often has what it was for then.  What was learnt is kept for objects that a single
//! such request does not cover, and holds for one ETag.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    Attributes, Error as OsError, Extensions, GetOptions, GetRange, GetResult, GetResultPayload, ObjectMeta,
    Result,
};

use super::format::{self, CHUNK, FOOTER, Footer, KeyId, Opener, SEALED_CHUNK};
use super::{LAYER, Shared, as_os_error};
use crate::damaged::Damaged;
use crate::failure::Failure;
use crate::metrics::Event;

/// Damage on the way is gone the next time; damage at rest stays.
const READS: u32 = 3;

/// Read and opened at once; larger reads go in steps of this.
const STEP: u64 = 8 << 20;

/// What is asked for to find a footer: a small object comes whole.
const TAIL: u64 = SEALED_CHUNK + FOOTER;

/// An object that can be opened without another look at its footer.
#[derive(Debug)]
pub(super) struct Known {
    key: KeyId,
    etag: Option<String>,
    sealed: u64,
    opener: Opener,
}

/// The end of an object, and what it says.
struct Learnt {
    known: Arc<Known>,
    answer: Answer,
}

/// A part of an object as it is stored.
struct Answer {
    meta: ObjectMeta,
    attributes: Attributes,
    extensions: Extensions,
    at: Range<u64>,
    bytes: Bytes,
}

impl Answer {
    async fn of(found: GetResult) -> Result<Self> {
        let (meta, at) = (found.meta.clone(), found.range.clone());
        let (attributes, extensions) = (found.attributes.clone(), found.extensions.clone());
        Ok(Self {
            meta,
            attributes,
            extensions,
            at,
            bytes: found.bytes().await?,
        })
    }

    /// What lies at `wanted`, if all of it came.
    fn slice(&self, wanted: &Range<u64>) -> Option<Bytes> {
        let from = usize::try_from(wanted.start.checked_sub(self.at.start)?).ok()?;
        let to = usize::try_from(wanted.end.checked_sub(self.at.start)?).ok()?;
        (from <= to && to <= self.bytes.len()).then(|| self.bytes.slice(from..to))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{path} has {size} bytes, and {asked} were asked for")]
struct Beyond {
    path: String,
    size: u64,
    asked: String,
}

fn beyond(location: &Path, size: u64, asked: impl ToString) -> OsError {
    OsError::Generic {
        store: LAYER,
        source: Box::new(Beyond {
            path: location.to_string(),
            size,
            asked: asked.to_string(),
        }),
    }
}

fn damaged(location: &Path) -> OsError {
    Damaged::at(
        location,
        "it is not what was sealed under this name, or by a key this database does not have",
    )
}

/// `None` for a range that does not lie in the object.
fn resolve(range: Option<&GetRange>, size: u64) -> Option<Range<u64>> {
    let resolved = match range {
        None => return Some(0..size),
        Some(GetRange::Bounded(bounds)) => bounds.start..bounds.end.min(size),
        Some(GetRange::Offset(start)) => *start..size,
        Some(GetRange::Suffix(length)) => size.saturating_sub(*length)..size,
    };
    (resolved.start < resolved.end).then_some(resolved)
}

/// Enough of the end to hold the last `length` bytes of a body, whatever its size is.
fn sealed_suffix(length: u64) -> u64 {
    let chunks = length.div_ceil(CHUNK) + 1;
    chunks * SEALED_CHUNK + FOOTER
}

fn first_step(range: &Range<u64>) -> Range<u64> {
    range.start..range.end.min(range.start + STEP)
}

impl Shared {
    pub(super) async fn head(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let mut found = self.inner.get_opts(location, options).await?;
        let size = format::body_size(found.meta.size).ok_or_else(|| damaged(location))?;
        found.meta.size = size;
        found.range = 0..size;
        Ok(found)
    }

    pub(super) async fn get(self: &Arc<Self>, location: &Path, options: &GetOptions) -> Result<GetResult> {
        for _ in 0..READS {
            let found = match self.known(location).await? {
                Some(known) => self.get_known(location, options, known).await?,
                None => None,
            };
            let found = match found {
                Some(found) => Some(found),
                None => self.get_unknown(location, options).await?,
            };
            if let Some(found) = found {
                return Ok(found);
            }
            self.metrics.count(Event::Damaged);
        }
        Err(damaged(location))
    }

    /// What was learnt, as long as its key is in use: another process may have destroyed it.
    async fn known(&self, location: &Path) -> Result<Option<Arc<Known>>> {
        let Some(known) = self.known.get(location) else {
            return Ok(None);
        };
        let scope = self.keyring.scope_of(location);
        let key = self.keyring.key(&scope, known.key).await.map_err(as_os_error);
        match key {
            Ok(Some(_)) => Ok(Some(known)),
            gone => {
                self.known.invalidate(location);
                gone.map(|_| None)
            }
        }
    }

    /// `None`: it is not known so any more, or does not open.
    async fn get_known(
        self: &Arc<Self>,
        location: &Path,
        options: &GetOptions,
        known: Arc<Known>,
    ) -> Result<Option<GetResult>> {
        let forget = || self.known.invalidate(location);
        let Some(range) = resolve(options.range.as_ref(), known.opener.length) else {
            forget();
            return Ok(None);
        };
        let step = first_step(&range);
        let asked = GetOptions {
            range: Some(GetRange::Bounded(known.opener.around(&step))),
            ..options.clone()
        };
        let found = match self.inner.get_opts(location, asked).await {
            // It is shorter now.
            Err(e) if Failure::of(&e) == Failure::Refused => {
                forget();
                return Ok(None);
            }
            found => found?,
        };
        let answer = Answer::of(found).await?;
        if answer.meta.e_tag != known.etag || answer.meta.size != known.sealed {
            forget();
            return Ok(None);
        }
        let Ok(first) = known.opener.open(&step, &answer.bytes) else {
            forget();
            self.metrics.count(Event::Damaged);
            return Ok(None);
        };
        Ok(Some(self.answer(location, answer, known, range, first)))
    }

    async fn get_unknown(
        self: &Arc<Self>,
        location: &Path,
        options: &GetOptions,
    ) -> Result<Option<GetResult>> {
        let Some(Learnt { known, answer }) = self.learn(location, options).await? else {
            return Ok(None);
        };
        let length = known.opener.length;
        let Some(range) = resolve(options.range.as_ref(), length) else {
            let asked = options.range.as_ref().map(ToString::to_string);
            return Err(beyond(location, length, asked.unwrap_or_default()));
        };
        let step = first_step(&range);
        let around = known.opener.around(&step);
        let sealed = match answer.slice(&around) {
            Some(sealed) => sealed,
            None => match self.fetch(location, &known, around).await {
                // Replaced in between.
                Err(OsError::Precondition { .. }) => return Ok(None),
                fetched => fetched?,
            },
        };
        let Ok(first) = known.opener.open(&step, &sealed) else {
            self.known.invalidate(location);
            return Ok(None);
        };
        Ok(Some(self.answer(location, answer, known, range, first)))
    }

    /// A part of the very version that is known.
    async fn fetch(&self, location: &Path, known: &Known, around: Range<u64>) -> Result<Bytes> {
        let asked = GetOptions {
            range: Some(GetRange::Bounded(around)),
            if_match: known.etag.clone(),
            ..GetOptions::new()
        };
        self.inner.get_opts(location, asked).await?.bytes().await
    }

    /// Asks for the end of the object in the way that serves `options` best.  `None`: what
    /// is there does not open.
    async fn learn(&self, location: &Path, options: &GetOptions) -> Result<Option<Learnt>> {
        let range = match &options.range {
            None => None,
            Some(GetRange::Suffix(length)) if *length <= STEP => {
                Some(GetRange::Suffix(sealed_suffix(*length)))
            }
            Some(_) => Some(GetRange::Suffix(TAIL)),
        };
        let whole = range.is_none();
        let asked = GetOptions {
            range,
            ..options.clone()
        };
        let mut found = match self.inner.get_opts(location, asked).await {
            // S3 has no range to answer with when an object is empty.
            Err(e) if !whole && Failure::of(&e) == Failure::Refused => {
                let asked = GetOptions {
                    range: None,
                    ..options.clone()
                };
                self.inner.get_opts(location, asked).await?
            }
            found => found?,
        };
        if whole && found.meta.size > STEP {
            // In steps, then: nothing of it can be opened before its end is here.
            let asked = GetOptions {
                range: Some(GetRange::Suffix(TAIL)),
                ..options.clone()
            };
            found = self.inner.get_opts(location, asked).await?;
        }
        let answer = Answer::of(found).await?;
        let came = answer.bytes.len() as u64 == answer.at.end - answer.at.start;
        let footer = Footer::at_end_of(&answer.bytes);
        let (Ok(footer), true) = (footer, came && answer.at.end == answer.meta.size) else {
            return Ok(None);
        };
        let scope = self.keyring.scope_of(location);
        let key = self.keyring.key(&scope, footer.key).await.map_err(as_os_error)?;
        let Some(key) = key else { return Ok(None) };
        let Ok(opener) = Opener::new(&key, &footer, &self.place(location), answer.meta.size) else {
            return Ok(None);
        };
        let known = Arc::new(Known {
            key: footer.key,
            etag: answer.meta.e_tag.clone(),
            sealed: answer.meta.size,
            opener,
        });
        if answer.meta.size > TAIL {
            self.known.insert(location.clone(), known.clone());
        }
        Ok(Some(Learnt { known, answer }))
    }

    fn answer(
        self: &Arc<Self>,
        location: &Path,
        answer: Answer,
        known: Arc<Known>,
        range: Range<u64>,
        first: Vec<u8>,
    ) -> GetResult {
        let meta = ObjectMeta {
            size: known.opener.length,
            ..answer.meta
        };
        let left = range.start + first.len() as u64..range.end;
        let first = stream::once(async move { Ok(Bytes::from(first)) });
        let body = if left.is_empty() {
            first.boxed()
        } else {
            first
                .chain(self.clone().rest(location.clone(), known, left))
                .boxed()
        };
        GetResult {
            payload: GetResultPayload::Stream(body),
            meta,
            range,
            attributes: answer.attributes,
            extensions: answer.extensions,
        }
    }

    /// What follows the first step of a large read: the same version of the object.
    fn rest(
        self: Arc<Self>,
        location: Path,
        known: Arc<Known>,
        left: Range<u64>,
    ) -> BoxStream<'static, Result<Bytes>> {
        stream::try_unfold(
            (self, location, known, left),
            |(shared, location, known, left)| async move {
                if left.is_empty() {
                    return Ok(None);
                }
                let step = first_step(&left);
                let opened = shared.step(&location, &known, &step).await?;
                let left = step.end..left.end;
                Ok::<_, OsError>(Some((opened, (shared, location, known, left))))
            },
        )
        .boxed()
    }

    async fn step(&self, location: &Path, known: &Known, step: &Range<u64>) -> Result<Bytes> {
        for _ in 0..READS {
            let sealed = self.fetch(location, known, known.opener.around(step)).await?;
            if let Ok(opened) = known.opener.open(step, &sealed) {
                return Ok(opened.into());
            }
            self.metrics.count(Event::Damaged);
        }
        Err(damaged(location))
    }

    pub(super) async fn ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        for _ in 0..READS {
            let known = self.known(location).await?;
            let (known, tail) = match known {
                Some(known) => (known, None),
                None => match self.learn(location, &tail_only()).await? {
                    Some(Learnt { known, answer }) => (known, Some(answer)),
                    None => {
                        self.metrics.count(Event::Damaged);
                        continue;
                    }
                },
            };
            let length = known.opener.length;
            let outside = ranges.iter().find(|r| r.start >= r.end || r.end > length);
            match (outside, &tail) {
                (None, _) => {}
                (Some(range), Some(_)) => return Err(beyond(location, length, format!("{range:?}"))),
                // It may be another version by now.
                (Some(_), None) => {
                    self.known.invalidate(location);
                    continue;
                }
            }
            if let Some(opened) = self.open_ranges(location, ranges, &known, tail).await? {
                return Ok(opened);
            }
            self.known.invalidate(location);
            self.metrics.count(Event::Damaged);
        }
        Err(damaged(location))
    }

    /// `None`: something of it does not open.
    async fn open_ranges(
        &self,
        location: &Path,
        ranges: &[Range<u64>],
        known: &Known,
        tail: Option<Answer>,
    ) -> Result<Option<Vec<Bytes>>> {
        let around: Vec<_> = ranges.iter().map(|range| known.opener.around(range)).collect();
        let at_hand: Option<Vec<Bytes>> =
            tail.and_then(|tail| around.iter().map(|range| tail.slice(range)).collect());
        let sealed = match at_hand {
            Some(sealed) => sealed,
            None => self.inner.get_ranges(location, &around).await?,
        };
        if sealed.len() != ranges.len() {
            return Ok(None);
        }
        let opened = ranges.iter().zip(&sealed).map(|(range, sealed)| {
            let opened = known.opener.open(range, sealed);
            opened.map(Bytes::from)
        });
        Ok(opened.collect::<Result<_, _>>().ok())
    }
}

fn tail_only() -> GetOptions {
    GetOptions::new().with_range(Some(GetRange::Offset(0)))
}

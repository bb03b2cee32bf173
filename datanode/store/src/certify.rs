//! Trying out what our safety hangs on, before the first real write: a store that ignores
//! conditions loses acknowledged writes silently.
//!
//! The checks run through the retry layer, as every real request does.  A check that could
//! not be made because the store does not answer is no verdict on the store.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::TryStreamExt;
use object_store::path::Path;
use object_store::{
    Attributes, Error as OsError, GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    PutResult, UpdateVersion,
};
use rhumb_seams::Ids;
use tokio::time::Instant;

use crate::bucket::under;
use crate::failure::Failure;
use crate::put_id::PutId;
use crate::{Result, StoreError};

/// One row of `rhumb doctor`.
#[derive(Debug)]
pub struct Check {
    pub name: &'static str,
    pub verdict: Verdict,
    pub took: Duration,
}

#[derive(Debug)]
pub enum Verdict {
    Passed,
    /// The store does what would lose data, and how.
    Failed(String),
    /// The store did not answer.
    NotMade(OsError),
}

/// Why a check did not pass.
enum Trouble {
    Wrong(String),
    NoBucket,
    NoAnswer(OsError),
}

impl From<OsError> for Trouble {
    fn from(error: OsError) -> Self {
        match Failure::of(&error) {
            // Inside a check, these are wrong answers to what must work.
            Failure::Answer | Failure::Refused => Self::Wrong(error.to_string()),
            Failure::NotApplied | Failure::Denied | Failure::Throttled | Failure::Ambiguous { .. } => {
                Self::NoAnswer(error)
            }
        }
    }
}

type Tried = std::result::Result<(), Trouble>;

impl Check {
    pub fn ok(&self) -> bool {
        matches!(self.verdict, Verdict::Passed)
    }

    pub fn detail(&self) -> String {
        match &self.verdict {
            Verdict::Passed => String::new(),
            Verdict::Failed(how) => how.clone(),
            Verdict::NotMade(error) => format!("not checked: {error}"),
        }
    }
}

/// Runs the checks under a folder of their own and removes it; ends early when the store
/// does not answer.
pub(crate) async fn run(store: &Arc<dyn ObjectStore>, prefix: &Path, ids: &Ids) -> Vec<Check> {
    let probe = Probe {
        store,
        folder: under(prefix, &format!(".probe/{}", ids.ulid())),
        ids,
    };
    let trials: [(&str, BoxFuture<'_, Tried>); 7] = [
        ("create-if-absent", probe.create().boxed()),
        ("compare-and-swap", probe.swap().boxed()),
        ("read-after-write", probe.read_after_write().boxed()),
        ("list-after-write", probe.list_after_write().boxed()),
        ("range-read", probe.range_read().boxed()),
        ("put-id", probe.put_id().boxed()),
        ("delete", probe.delete().boxed()),
    ];
    let mut checks = Vec::new();
    for (name, trial) in trials {
        let started = Instant::now();
        let (verdict, go_on) = match trial.await {
            Ok(()) => (Verdict::Passed, true),
            Err(Trouble::Wrong(how)) => (Verdict::Failed(how), true),
            // Each further check would spend its whole budget to learn the same.
            Err(Trouble::NoBucket) => (Verdict::Failed("there is no such bucket".into()), false),
            Err(Trouble::NoAnswer(error)) => (Verdict::NotMade(error), false),
        };
        checks.push(Check {
            name,
            verdict,
            took: started.elapsed(),
        });
        if !go_on {
            return checks;
        }
    }
    probe.clean_up().await;
    checks
}

/// A store that failed a check is refused for good; one that did not answer, for now.
pub(crate) fn require(checks: &[Check]) -> Result<()> {
    for check in checks {
        if let Verdict::Failed(how) = &check.verdict {
            return Err(StoreError::Unsafe {
                check: check.name,
                detail: how.clone(),
            });
        }
    }
    for check in checks {
        if let Verdict::NotMade(error) = &check.verdict {
            let source = OsError::Generic {
                store: "certify",
                source: format!("{}: {error}", check.name).into(),
            };
            return Err(match Failure::of(error) {
                Failure::Denied => StoreError::Denied { source },
                _ => StoreError::Unavailable { source },
            });
        }
    }
    Ok(())
}

struct Probe<'a> {
    store: &'a Arc<dyn ObjectStore>,
    folder: Path,
    ids: &'a Ids,
}

impl Probe<'_> {
    async fn create(&self) -> Tried {
        let path = self.path("create");
        let (first, second) = tokio::join!(
            self.put(&path, "1", PutMode::Create),
            self.put(&path, "2", PutMode::Create)
        );
        let winners = [&first, &second].into_iter().filter(|put| put.is_ok()).count();
        for put in [first, second] {
            match put {
                Ok(_) | Err(OsError::AlreadyExists { .. }) => {}
                Err(OsError::NotFound { .. }) => return Err(Trouble::NoBucket),
                Err(error) => return Err(error.into()),
            }
        }
        must(winners == 1, || {
            format!("{winners} of 2 racing creates of one object won")
        })?;
        match self.put(&path, "3", PutMode::Create).await {
            Err(OsError::AlreadyExists { .. }) => Ok(()),
            other => Err(instead(other, "an existing object was created again")),
        }
    }

    async fn swap(&self) -> Tried {
        let path = self.path("swap");
        let first = self.put(&path, "1", PutMode::Create).await?;
        must(first.e_tag.is_some(), || "a PUT returned no ETag".into())?;
        let second = self
            .put(&path, "2", PutMode::Update(first.clone().into()))
            .await?;
        must(first.e_tag != second.e_tag, || {
            "two versions have one ETag".into()
        })?;
        match self.put(&path, "3", PutMode::Update(first.into())).await {
            Err(OsError::Precondition { .. }) => {}
            other => return Err(instead(other, "a stale If-Match was let through")),
        }
        must(self.read(&path).await? == "2", || {
            "a refused write changed the object".into()
        })?;
        let nowhere = UpdateVersion {
            e_tag: second.e_tag,
            version: None,
        };
        match self
            .put(&self.path("swap-nowhere"), "1", PutMode::Update(nowhere))
            .await
        {
            Err(OsError::Precondition { .. }) => Ok(()),
            other => Err(instead(other, "If-Match created an object")),
        }
    }

    async fn read_after_write(&self) -> Tried {
        let path = self.path("read");
        self.must_be_missing(&path, "an object was there before it was written")
            .await?;
        // The 404 above must not linger.
        let mut version = self.put(&path, "0", PutMode::Create).await?;
        for n in 1..4 {
            let read = self.read(&path).await?;
            must(read == (n - 1).to_string(), || {
                format!("read {read:?} right after {} was written", n - 1)
            })?;
            version = self
                .put(&path, &n.to_string(), PutMode::Update(version.into()))
                .await?;
        }
        Ok(())
    }

    async fn list_after_write(&self) -> Tried {
        let folder = self.path("list");
        let names: Vec<Path> = ["a", "a.b", "a/b", "b"].map(|name| under(&folder, name)).into();
        for path in [&names[3], &names[1], &names[2]] {
            self.put(path, "x", PutMode::Create).await?;
        }
        let listed: Vec<Path> = self
            .store
            .list(Some(&folder))
            .map_ok(|meta| meta.location)
            .try_collect()
            .await?;
        must(listed == names[1..], || {
            format!("wrote {:?}, listed {listed:?}", &names[1..])
        })?;
        let behind = self.store.list_with_offset(Some(&folder), &names[1]);
        let listed: Vec<Path> = behind.map_ok(|meta| meta.location).try_collect().await?;
        must(listed == names[2..], || {
            format!("expected {:?} behind the offset, listed {listed:?}", &names[2..])
        })
    }

    async fn range_read(&self) -> Tried {
        let path = self.path("range");
        self.put(&path, "0123456789", PutMode::Create).await?;
        let part = self.store.get_range(&path, 3..7).await?;
        must(part == "3456", || {
            format!("bytes 3..7 of 0123456789 came as {part:?}")
        })
    }

    async fn put_id(&self) -> Tried {
        let path = self.path("put-id");
        let id = PutId::mint(self.ids);
        let mut attributes = Attributes::new();
        id.attach(&mut attributes);
        let options = PutOptions {
            mode: PutMode::Create,
            attributes,
            ..PutOptions::default()
        };
        self.store
            .put_opts(&path, PutPayload::from_static(b"x"), options)
            .await?;
        for head in [true, false] {
            let found = self
                .store
                .get_opts(&path, GetOptions::new().with_head(head))
                .await?;
            let back = PutId::of(&found.attributes);
            must(back.as_ref() == Some(&id), || {
                format!("metadata {id} came back as {back:?}")
            })?;
        }
        Ok(())
    }

    async fn delete(&self) -> Tried {
        let path = self.path("delete");
        self.put(&path, "x", PutMode::Create).await?;
        self.store.delete(&path).await?;
        self.must_be_missing(&path, "a deleted object is still there")
            .await?;
        self.put(&path, "y", PutMode::Create).await?;
        Ok(())
    }

    /// Best effort: what stays is a few bytes that nobody reads.
    async fn clean_up(&self) {
        let left = self.store.list(Some(&self.folder)).map_ok(|meta| meta.location);
        let deleted = self
            .store
            .delete_stream(Box::pin(left))
            .try_for_each(|_| async { Ok(()) })
            .await;
        if let Err(error) = deleted {
            tracing::debug!(%error, folder = %self.folder, "the probe objects could not all be removed");
        }
    }

    fn path(&self, name: &str) -> Path {
        under(&self.folder, name)
    }

    async fn put(&self, path: &Path, body: &str, mode: PutMode) -> object_store::Result<PutResult> {
        let options = PutOptions {
            mode,
            ..PutOptions::default()
        };
        self.store
            .put_opts(path, Bytes::from(body.to_owned()).into(), options)
            .await
    }

    async fn must_be_missing(&self, path: &Path, otherwise: &str) -> Tried {
        match self.store.head(path).await {
            Err(OsError::NotFound { .. }) => Ok(()),
            other => Err(instead(other, otherwise)),
        }
    }

    async fn read(&self, path: &Path) -> object_store::Result<Bytes> {
        self.store.get(path).await?.bytes().await
    }
}

/// What came instead of the refusal that was due.
fn instead<T>(answer: object_store::Result<T>, wrong: &str) -> Trouble {
    match answer {
        Ok(_) => Trouble::Wrong(wrong.to_owned()),
        Err(error) => error.into(),
    }
}

fn must(holds: bool, otherwise: impl FnOnce() -> String) -> Tried {
    if holds {
        Ok(())
    } else {
        Err(Trouble::Wrong(otherwise()))
    }
}

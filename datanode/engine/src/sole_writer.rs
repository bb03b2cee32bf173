//! One server at a time on a bucket without Kubernetes.
//!
//! Safety is the epoch of each partition; this object only makes an idle loser notice
//! soon that another server took over, so that it stops instead of lingering (exit 3).

use std::sync::Arc;
use std::time::Duration;

use rhumb_store::Bucket;
use rhumb_store::cas::{Cas, Swap};
use serde::{Deserialize, Serialize};

use crate::env::Env;
use crate::error::EngineError;

const PATH: &str = "server.json";
const LOOK_EVERY: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Claim {
    number: u64,
    holder: String,
}

/// This server's claim of the bucket.
pub struct SoleWriter {
    cas: Cas<Claim>,
    mine: Claim,
}

impl SoleWriter {
    /// Takes over from whoever was there.
    pub async fn claim(bucket: &Bucket, holder: &str) -> Result<Self, EngineError> {
        let cas = Cas::<Claim>::new(bucket.clone(), bucket.path(PATH));
        let claim = |number| Claim {
            number,
            holder: holder.to_owned(),
        };
        let mut swap = cas.create(claim(1)).await?;
        loop {
            match swap {
                Swap::Landed(now) => return Ok(Self { cas, mine: now.value }),
                Swap::Lost(there) => swap = cas.replace(&there, claim(there.value.number + 1)).await?,
                Swap::Unknown => {
                    return Err(EngineError::Unavailable(
                        "the store did not settle who serves this bucket".into(),
                    ));
                }
            }
        }
    }

    /// Asked before a partition is taken over: a server that was itself taken over must
    /// not wake up and take partitions from its successor.
    pub async fn check(&self) -> Result<(), EngineError> {
        match self.cas.load().await? {
            Some(there) if there.value != self.mine => {
                tracing::error!(
                    by = there.value.holder,
                    "another server took this bucket over: stopping"
                );
                Err(EngineError::Fenced)
            }
            _ => Ok(()),
        }
    }

    /// Watches for whoever comes next, until the process stops.
    pub async fn watch(env: Arc<Env>) {
        let Some(sole_writer) = &env.sole_writer else {
            return;
        };
        let stopping = env.tasks.stopping().clone();
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            match sole_writer.check().await {
                Ok(()) => {}
                Err(e) if e.is_fenced() => {
                    env.fenced.cancel();
                    return stopping.cancelled().await;
                }
                // An unreachable store fences nobody.
                Err(e) => tracing::debug!(error = %e, "the server claim could not be read"),
            }
        }
    }
}

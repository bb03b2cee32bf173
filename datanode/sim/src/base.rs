//! The stand-in for Lance: operations, their bytes in log records, and a base that is one
//! object per version.

use bytes::{Buf, BufMut, Bytes};
use object_store::path::Path;
use rhumb_core::{Seq, Slot};
use rhumb_store::log::{PartitionFolder, Record};
use rhumb_store::{Outcome, Result, StoreError};
use xxhash_rust::xxh3::xxh3_64;

/// One write of one client: who it is, and the version it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Op {
    /// The writer's incarnation and a count within it, so that ids rise as one writer works.
    pub id: u64,
    pub seq: Seq,
}

const OP_BYTES: usize = 16;
const READS: u32 = 3;

pub(crate) fn encode(ops: &[Op]) -> Vec<u8> {
    let mut out = Vec::with_capacity(ops.len() * OP_BYTES);
    for op in ops {
        out.put_u64_le(op.id);
        out.put_u64_le(op.seq.0);
    }
    out
}

pub(crate) fn decode(mut bytes: &[u8]) -> Vec<Op> {
    let mut ops = Vec::with_capacity(bytes.len() / OP_BYTES);
    while bytes.len() >= OP_BYTES {
        ops.push(Op {
            id: bytes.get_u64_le(),
            seq: Seq(bytes.get_u64_le()),
        });
    }
    ops
}

pub(crate) fn ops_of(records: &[Record]) -> Vec<Op> {
    records.iter().flat_map(|record| decode(&record.body)).collect()
}

fn path(folder: &PartitionFolder, version: u64) -> Path {
    folder.path(&format!("table/{version:020}"))
}

/// Writes everything up to `applied` as a new version; `None` when the store left it in
/// doubt.  Versions that others left behind are skipped, as a Lance commit would.
pub(crate) async fn write(
    folder: &PartitionFolder,
    newer_than: u64,
    applied: Slot,
    ops: &[Op],
) -> Result<Option<u64>> {
    let mut body = Vec::new();
    body.put_u64_le(applied.0);
    body.extend(encode(ops));
    body.put_u64_le(xxh3_64(&body));
    let body = Bytes::from(body);
    let bucket = folder.bucket();
    for version in newer_than + 1.. {
        match bucket
            .create(&path(folder, version), body.clone(), &bucket.mint_put_id())
            .await?
        {
            Outcome::Landed(_) => return Ok(Some(version)),
            Outcome::Lost => {}
            Outcome::Unknown => return Ok(None),
        }
    }
    Ok(None)
}

/// The operations of a version, and the slot it goes up to; `None` when it is gone.
pub(crate) async fn read(folder: &PartitionFolder, version: u64) -> Result<Option<(Slot, Vec<Op>)>> {
    let path = path(folder, version);
    // Like Lance's files, a base that was damaged on its way is read again.
    for _ in 0..READS {
        let Some((bytes, _)) = folder.bucket().get_uncached(&path).await? else {
            return Ok(None);
        };
        if let Some((body, sum)) = bytes.split_last_chunk::<8>()
            && body.len() >= 8
            && xxh3_64(body) == u64::from_le_bytes(*sum)
        {
            let mut body = body;
            return Ok(Some((Slot(body.get_u64_le()), decode(body))));
        }
    }
    Err(StoreError::Corrupt {
        path,
        reason: "the checksum of the base does not fit".into(),
    })
}

pub(crate) async fn delete(folder: &PartitionFolder, version: u64) -> Result<()> {
    folder.bucket().delete(&path(folder, version)).await
}

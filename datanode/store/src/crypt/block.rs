//! Blocks of the disk cache, sealed like objects and never to be taken for one.

use std::sync::Arc;

use object_store::path::Path;

use super::format::{self, DataKey, Footer, Opener, Place, Purpose};
use super::keyring::{Keyring, OpenKeys};
use crate::{Result, StoreError};

/// Seals and opens blocks of one object, without waiting for anything.  What a block is
/// and where it belongs is written inside of it.
#[derive(Debug)]
pub(crate) struct BlockKeys {
    keys: Arc<OpenKeys>,
    newest: Arc<DataKey>,
    uid: String,
    path: String,
}

impl Keyring {
    pub(crate) async fn block_keys(&self, location: &Path) -> Result<BlockKeys> {
        let scope = self.scope_of(location);
        let keys = self.keys(&scope).await?.ok_or_else(|| StoreError::NotFound {
            path: self.path(&scope),
        })?;
        Ok(BlockKeys {
            newest: keys.newest()?,
            keys,
            uid: self.uid().to_owned(),
            path: self.relative(location).to_owned(),
        })
    }
}

impl BlockKeys {
    pub(crate) fn seal(&self, block: Vec<u8>) -> Vec<u8> {
        format::seal(&self.newest, DataKey::random_salt(), &self.place(), &block.into())
    }

    /// `None` for anything that `seal` did not make of a block of this object.
    pub(crate) fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let footer = Footer::at_end_of(sealed).ok()?;
        let key = self.keys.by_id(footer.key)?;
        let opener = Opener::new(&key, &footer, &self.place(), sealed.len() as u64).ok()?;
        let whole = 0..opener.length;
        let chunks = opener.around(&whole);
        opener.open(&whole, sealed.get(..chunks.end as usize)?).ok()
    }

    fn place(&self) -> Place<'_> {
        Place {
            purpose: Purpose::CacheBlock,
            uid: &self.uid,
            path: &self.path,
        }
    }
}

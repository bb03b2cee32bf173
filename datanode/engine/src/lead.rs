//! By what right this process serves a collection.
//!
//! Alone it needs none, nor does who only follows what another node leads: nothing is written
//! then.  In a cluster it serves under a term, and invariant L1 holds:
//! whoever serves a collection has first written itself into the catalog entry, under a
//! term that was certain then.  A catalog change compares and swaps the whole entry, so
//! one that a predecessor began before that can no longer land.

use std::sync::Arc;
use std::time::Duration;

use rhumb_seams::Term;
use rhumb_store::StoreError;
use rhumb_store::catalog::CatalogEntry;

use tokio::time::{Instant, sleep};

use crate::error::EngineError;

/// A late renewal is usually there by then.
const RENEWAL: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Cheap to clone.
#[derive(Clone)]
pub enum Lead {
    Alone,
    Term {
        term: Term,
        holder: Arc<str>,
    },
    /// Another node leads it; what that one wrote is read a moment later.
    Following,
}

impl Lead {
    /// Whether a term covers it that is over.
    pub fn is_over(&self) -> bool {
        match self {
            Self::Alone | Self::Following => false,
            Self::Term { term, .. } => term.has_ended(),
        }
    }

    /// Whether nobody else can have taken over by now.
    pub fn is_certain(&self) -> bool {
        match self {
            Self::Alone => true,
            Self::Following => false,
            Self::Term { term, .. } => term.is_certain(),
        }
    }

    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Alone, Self::Alone) | (Self::Following, Self::Following) => true,
            (Self::Term { term, .. }, Self::Term { term: other, .. }) => term.is_same(other),
            _ => false,
        }
    }

    /// Waits a little for the next renewal, where one is on its way.
    pub async fn settle(&self) {
        let deadline = Instant::now() + RENEWAL;
        while !self.is_over() && !self.is_certain() && Instant::now() < deadline {
            sleep(LOOK_EVERY).await;
        }
    }

    /// Nothing more may begin under a term that is over.
    pub fn check(&self) -> Result<(), EngineError> {
        match self.is_over() {
            true => Err(EngineError::NotLeading),
            false => Ok(()),
        }
    }

    pub fn is_following(&self) -> bool {
        matches!(self, Self::Following)
    }

    pub fn has_signed(&self, entry: &CatalogEntry) -> bool {
        match self {
            Self::Alone => true,
            Self::Following => false,
            Self::Term { holder, .. } => entry.leader.as_deref() == Some(holder),
        }
    }

    /// To be called on what is about to replace an entry, after the entry was read (L1).
    pub fn sign(&self, entry: &mut CatalogEntry) -> Result<(), StoreError> {
        let not_ours = |entry: &CatalogEntry| StoreError::Superseded {
            path: format!("catalog/{}", entry.name).into(),
        };
        let (term, holder) = match self {
            Self::Alone => return Ok(()),
            Self::Following => return Err(not_ours(entry)),
            Self::Term { term, holder } => (term, holder),
        };
        if self.has_signed(entry) {
            return Ok(());
        }
        if !term.is_certain() {
            return Err(not_ours(entry));
        }
        entry.leader = Some(holder.to_string());
        Ok(())
    }
}

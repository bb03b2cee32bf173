//! Broken rules, one at a time: what the checker must be able to see.
//!
//! Some are broken inside the store crate (`rhumb_store::deviation`), the others by the
//! actors, who then use the store as it must not be used.

use rhumb_store::deviation::Deviation;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// One of the store's own rules.
    Store(Deviation),
    /// Acknowledge first, store later.
    AckBeforePut,
    /// Tell the client "not applied" when the outcome is unknown.
    UnknownIsFailure,
    /// Delete fences like other slots.
    CollectFences,
    /// Delete slots that no checkpoint covers yet.
    CollectTooMuch,
    /// Answer strong reads without asking whether the claim still holds.
    NoBarrier,
    /// Take the first missing slot for the tip without reading the state again.
    NoRecheck,
    /// Beside readers of the bucket, answer without what may be in it already.
    IgnoreIssued,
    /// Overwrite the state at a checkpoint, whoever holds it.
    BlindCheckpoint,
    /// Name a base in the state before it is written.
    StateBeforeBase,
    /// Start counting versions anew after a takeover.
    ForgetVersions,
}

impl Sabotage {
    pub const ALL: [Self; 14] = [
        Self::Store(Deviation::NoFence),
        Self::Store(Deviation::NoValidate),
        Self::Store(Deviation::NextSlotWhenLost),
        Self::Store(Deviation::HandBackInDoubt),
        Self::AckBeforePut,
        Self::UnknownIsFailure,
        Self::CollectFences,
        Self::CollectTooMuch,
        Self::NoBarrier,
        Self::NoRecheck,
        Self::IgnoreIssued,
        Self::BlindCheckpoint,
        Self::StateBeforeBase,
        Self::ForgetVersions,
    ];

    pub(crate) fn deviation(self) -> Option<Deviation> {
        match self {
            Self::Store(deviation) => Some(deviation),
            _ => None,
        }
    }
}

//! Broken rules, one at a time: what the checks must be able to see.  None of them is in
//! the code under test; it is handed broken figures, a broken line or a broken store.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Take a Lease that was not seen unchanged for as long as its holder trusts it.
    Impatience,
    /// Take every blank record for a released one.
    TrustBlanks,
    /// Write without saying which version was read.
    IgnoreVersions,
    /// Take every holder for one's own dead predecessor.
    OnePod,
    /// Answer strong reads without asking the bucket for as long as the term lasts.
    CertainForEver,
    /// Go on with what an earlier term had open.
    KeepOpen,
    /// Serve what was claimed while somebody else may have taken over.
    LateClaim,
    /// Acknowledge what a fenced epoch writes.
    NoFence,
    /// Renew less often than the Lease lasts.
    LazyRenewal,
    /// A flush before a hand-over that does not end.
    EndlessFlush,
}

impl Sabotage {
    pub const ALL: [Self; 10] = [
        Self::Impatience,
        Self::TrustBlanks,
        Self::IgnoreVersions,
        Self::OnePod,
        Self::CertainForEver,
        Self::KeepOpen,
        Self::LateClaim,
        Self::NoFence,
        Self::LazyRenewal,
        Self::EndlessFlush,
    ];

    /// What a violation says that the broken rule explains.
    pub fn shows(self) -> &'static [&'static str] {
        match self {
            Self::Impatience | Self::TrustBlanks | Self::IgnoreVersions | Self::OnePod => {
                &["certain at once"]
            }
            Self::CertainForEver | Self::KeepOpen | Self::LateClaim => &["H4"],
            Self::NoFence => &["H1", "H4"],
            Self::LazyRenewal => &["not settled", "though nothing failed"],
            Self::EndlessFlush => &["hand-over"],
        }
    }
}

//! Who leads which slot, as far as this process knows.

use std::net::SocketAddr;
use std::sync::Arc;

use rhumb_seams::Term;
use tokio::sync::watch;

#[derive(Clone, Debug)]
pub enum Leader {
    Nobody,
    /// As the Lease says; it may be gone by now.
    Peer {
        pod: String,
        address: SocketAddr,
    },
    Me(Term),
}

/// Cheap to clone; all clones are one board.
#[derive(Clone)]
pub struct Board(Arc<[watch::Sender<Leader>]>);

impl Board {
    pub fn new(slots: u32) -> Self {
        Self((0..slots).map(|_| watch::Sender::new(Leader::Nobody)).collect())
    }

    pub fn slots(&self) -> u32 {
        self.0.len() as u32
    }

    pub fn leader(&self, slot: u32) -> Leader {
        self.0[slot as usize].borrow().clone()
    }

    /// How many this process leads.
    pub fn led(&self) -> u32 {
        let leads =
            |slot: &&watch::Sender<Leader>| matches!(&*slot.borrow(), Leader::Me(term) if !term.has_ended());
        self.0.iter().filter(leads).count() as u32
    }

    pub fn subscribe(&self, slot: u32) -> watch::Receiver<Leader> {
        self.0[slot as usize].subscribe()
    }

    pub(crate) fn set(&self, slot: u32, leader: Leader) {
        self.0[slot as usize].send_if_modified(|now| {
            let changed = !now.is_same(&leader);
            *now = leader;
            changed
        });
    }
}

impl Leader {
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Nobody, Self::Nobody) => true,
            (Self::Me(a), Self::Me(b)) => a.is_same(b),
            (
                Self::Peer { pod, address },
                Self::Peer {
                    pod: other_pod,
                    address: other_address,
                },
            ) => pod == other_pod && address == other_address,
            _ => false,
        }
    }
}

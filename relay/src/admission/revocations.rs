//! What was admitted once and is no longer: tickets by their id, peers by their key.
//!
//! The list comes from the bus, whole each time, so every node holds the same. An entry ends by itself
//! once whatever it revokes has expired.

use culvert_wire::PeerId;
use hashbrown::HashMap;

/// Everything that is revoked at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revocations {
    tickets: HashMap<String, u64>,
    peers: HashMap<PeerId, u64>,
}

/// What is revoked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Revoked {
    /// The ticket with this id, and every invitation under it.
    Ticket(String),
    /// Every ticket of this peer, and every invitation by it.
    Peer(PeerId),
}

impl Revocations {
    /// Revokes until `until`, in seconds since 1970; of two ends the later one counts.
    pub fn add(&mut self, revoked: Revoked, until: u64) {
        let end = match revoked {
            Revoked::Ticket(id) => self.tickets.entry(id).or_default(),
            Revoked::Peer(peer) => self.peers.entry(peer).or_default(),
        };
        *end = until.max(*end);
    }

    /// Whether a ticket with this id is revoked.
    pub fn has_ticket(&self, id: &str) -> bool {
        self.tickets.contains_key(id)
    }

    /// Whether this peer is revoked.
    pub fn has_peer(&self, peer: &PeerId) -> bool {
        self.peers.contains_key(peer)
    }

    /// Forgets what has ended by `now`, in seconds since 1970.
    pub fn expire(&mut self, now: u64) {
        self.tickets.retain(|_, until| *until > now);
        self.peers.retain(|_, until| *until > now);
    }

    /// Everything, with the second at which it ends.
    pub fn iter(&self) -> impl Iterator<Item = (Revoked, u64)> + '_ {
        let tickets = self.tickets.iter().map(|(id, until)| (Revoked::Ticket(id.clone()), *until));
        tickets.chain(self.peers.iter().map(|(peer, until)| (Revoked::Peer(*peer), *until)))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.tickets.len() + self.peers.len()
    }

    /// Whether nothing is revoked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

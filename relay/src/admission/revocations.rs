//! What was admitted once and is no longer: tickets by their id, peers by their key.
//!
//! The list comes from the bus, whole each time, so every node holds the same. An entry ends by itself
//! once whatever it revokes has expired.

use std::sync::Arc;

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

/// Under what a connection is admitted, as far as it can be revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Whose connection it is.
    pub peer: PeerId,
    /// The id of its ticket, or of the one that it was invited under.
    pub ticket: Option<Arc<str>>,
    /// Who invited it.
    pub inviter: Option<PeerId>,
}

impl Credentials {
    /// Those of a peer that came in without a ticket.
    pub fn of(peer: PeerId) -> Self {
        Self { peer, ticket: None, inviter: None }
    }
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

    /// Whether any of these is revoked at `now`, in seconds since 1970.
    pub fn cover(&self, credentials: &Credentials, now: u64) -> bool {
        let Credentials { peer, ticket, inviter } = credentials;
        let holds = |until: &u64| *until > now;
        self.peers.get(peer).is_some_and(holds)
            || inviter.as_ref().and_then(|peer| self.peers.get(peer)).is_some_and(holds)
            || ticket.as_deref().and_then(|id| self.tickets.get(id)).is_some_and(holds)
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

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerId = PeerId([1; 32]);
    const OTHER: PeerId = PeerId([2; 32]);

    #[test]
    fn a_ticket_its_holder_an_inviter_and_a_bare_peer_can_be_revoked() {
        let guest = Credentials { ticket: Some("t".into()), inviter: Some(OTHER), ..Credentials::of(PEER) };
        let revoked = |revoked| {
            let mut list = Revocations::default();
            list.add(revoked, 100);
            (list.cover(&guest, 99), list.cover(&Credentials::of(PEER), 99))
        };
        assert_eq!(revoked(Revoked::Ticket("t".into())), (true, false));
        assert_eq!(revoked(Revoked::Ticket("u".into())), (false, false));
        assert_eq!(revoked(Revoked::Peer(OTHER)), (true, false));
        assert_eq!(revoked(Revoked::Peer(PEER)), (true, true));
    }

    #[test]
    fn an_entry_ends_by_itself_and_the_later_of_two_ends_counts() {
        let mut list = Revocations::default();
        list.add(Revoked::Peer(PEER), 200);
        list.add(Revoked::Peer(PEER), 100);
        assert!(list.cover(&Credentials::of(PEER), 199));
        assert!(!list.cover(&Credentials::of(PEER), 200));
        list.expire(199);
        assert_eq!((list.len(), list.iter().count()), (1, 1));
        list.expire(200);
        assert!(list.is_empty());
    }
}

//! What the rest of the node knows of one connection: its address, its owner, its queue.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use culvert_wire::{ConnId, Generation, Member, PeerId};
use parking_lot::Mutex;

use crate::admission::{Credentials, Revocations};
use crate::outbox::Outbox;

/// One admitted connection, shared by everyone who sends to it.
pub struct Link {
    /// Its address.
    pub id: ConnId,
    /// Whose it is.
    pub peer: PeerId,
    /// Its place among that peer's connections.
    pub generation: Generation,
    /// What waits to be written to it.
    pub outbox: Outbox,
    credentials: Mutex<Credentials>,
    departures: AtomicU32,
    received: AtomicU64,
    paused: AtomicBool,
}

impl Link {
    /// A connection that is in no topic yet.
    pub fn new(id: ConnId, generation: Generation, credentials: Credentials, outbox: Outbox) -> Self {
        Self {
            id,
            peer: credentials.peer,
            generation,
            outbox,
            credentials: Mutex::new(credentials),
            departures: AtomicU32::new(0),
            received: AtomicU64::new(0),
            paused: AtomicBool::new(false),
        }
    }

    /// Whether what it is admitted under is revoked at `now`, in seconds since 1970.
    pub fn is_revoked(&self, revocations: &Revocations, now: u64) -> bool {
        revocations.cover(&self.credentials.lock(), now)
    }

    /// Goes on under these.
    pub fn renew(&self, credentials: Credentials) {
        *self.credentials.lock() = credentials;
    }

    /// As a member of a topic.
    pub fn member(&self) -> Member {
        Member { conn: self.id, peer: self.peer, generation: self.generation }
    }

    /// Counts frames that came from this connection.
    pub fn count_received(&self, frames: u64) {
        self.received.fetch_add(frames, Ordering::Relaxed);
    }

    /// Frames that came from this connection so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Says that the node itself does not read from this connection at the moment.
    pub fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    /// Whether silence from this connection is the node's own doing.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// A number that changes whenever this connection leaves a topic: what senders remember about it
    /// holds only as long as the number does.
    pub fn departures(&self) -> u32 {
        self.departures.load(Ordering::Acquire)
    }

    /// Voids what senders remember about this connection.
    pub fn departed(&self) {
        self.departures.fetch_add(1, Ordering::Release);
    }
}

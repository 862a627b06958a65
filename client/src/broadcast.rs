//! What happens, told to whoever in the process wants to know.

use std::fmt;

use tokio::sync::broadcast;

/// Events kept for a subscriber that is behind; older ones are lost to it and counted.
pub const DEFAULT_CAPACITY: usize = 1024;

/// Something that happened to the data or to the peers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncEvent {
    /// A node of the database was written.
    NodeUpsert {
        /// Its id.
        id: String,
    },
    /// A node of the database was deleted.
    NodeDelete {
        /// Its id.
        id: String,
    },
    /// A conversation with a peer began.
    PeerConnected {
        /// The peer's public key, 64 hexadecimal digits.
        peer_id: String,
    },
    /// A conversation with a peer ended.
    PeerDisconnected {
        /// The peer's public key, 64 hexadecimal digits.
        peer_id: String,
    },
    /// The conversation with a peer goes on over another way.
    PathChanged {
        /// The peer's public key, 64 hexadecimal digits.
        peer_id: String,
        /// The way: `relay`, or `none` while there is none.
        path: &'static str,
    },
    /// The connection to the relay came or went; conversations outlive it.
    RelayConnected {
        /// Whether it is there now.
        connected: bool,
    },
    /// The relay does not let this peer back in, for example because its ticket was revoked: the topic and
    /// every conversation in it ended.
    RelayEnded {
        /// What the relay said, and what to do.
        reason: String,
    },
    /// The relay's cluster lost (or found again) its registry: peers on other nodes may be missing.
    RelayDegraded {
        /// Whether it is degraded now.
        degraded: bool,
    },
}

/// Hands every event to every subscriber. Clones publish to the same subscribers.
#[derive(Clone)]
pub struct SyncBroadcaster {
    sender: broadcast::Sender<SyncEvent>,
}

/// The event was not published.
#[derive(Debug, thiserror::Error)]
#[error("the event could not be published")]
#[non_exhaustive]
pub struct PublishError;

impl SyncBroadcaster {
    /// One that keeps `capacity` events (at least one) for subscribers that are behind.
    pub fn new(capacity: usize) -> Self {
        Self { sender: broadcast::Sender::new(capacity.max(1)) }
    }

    /// Tells every subscriber; gives their number. Nobody listening is no error.
    ///
    /// # Errors
    /// None at present; the result is kept for callers written against it.
    pub fn publish(&self, event: SyncEvent) -> Result<usize, PublishError> {
        Ok(self.sender.send(event).unwrap_or(0))
    }

    /// Every event from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<SyncEvent> {
        self.sender.subscribe()
    }
}

impl Default for SyncBroadcaster {
    fn default() -> Self {
        Self::new(DEFAULT_CAPACITY)
    }
}

impl fmt::Debug for SyncBroadcaster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncBroadcaster").field("subscribers", &self.sender.receiver_count()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_subscriber_gets_the_event_and_nobody_listening_is_no_error() {
        let hub = SyncBroadcaster::default();
        let event = SyncEvent::NodeUpsert { id: "n".into() };
        assert_eq!(hub.publish(event.clone()).unwrap(), 0);
        let (mut one, mut two) = (hub.subscribe(), hub.clone().subscribe());
        assert_eq!(hub.publish(event.clone()).unwrap(), 2);
        assert_eq!(one.recv().await.unwrap(), event);
        assert_eq!(two.recv().await.unwrap(), event);
    }

    #[tokio::test]
    async fn a_subscriber_that_is_behind_learns_how_much_it_missed() {
        let hub = SyncBroadcaster::new(0);
        let mut rx = hub.subscribe();
        for id in ["a", "b"] {
            hub.publish(SyncEvent::NodeDelete { id: id.into() }).unwrap();
        }
        assert!(matches!(rx.recv().await, Err(broadcast::error::RecvError::Lagged(1))));
        assert_eq!(rx.recv().await.unwrap(), SyncEvent::NodeDelete { id: "b".into() });
    }
}

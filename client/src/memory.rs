//! The transport within one process, for tests and examples: same contract, no network.
//!
//! Every [`MemoryTransport`] of the process is on the same hub. Two that connect to a topic get a
//! [`Connection`] to each other. Messages go through a bounded queue: a receiver that stops consuming
//! stops the sender, as on the real transports.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use anyhow::{anyhow, bail};
use async_trait::async_trait;
use tokio::sync::{mpsc, watch};

use crate::identity::{Identity, SystemRng};
use crate::transport::{Connection, PeerInfo, TopicHash, Transport};

/// Messages between two peers that wait to be received.
const QUEUE: usize = 64;
/// Connections that wait for the application to take them.
const WAITING: usize = 16;

type Topics = HashMap<TopicHash, Vec<Entry>>;

static HUB: LazyLock<Mutex<Topics>> = LazyLock::new(Mutex::default);

/// One transport on one topic.
struct Entry {
    id: String,
    /// Where new connections go; `None` while it is only announced.
    accept: Option<mpsc::Sender<Box<dyn Connection>>>,
}

/// A peer of this process. It leaves its topics when it is dropped.
#[derive(Debug)]
pub struct MemoryTransport {
    id: String,
}

impl MemoryTransport {
    /// A peer with a fresh identity.
    pub fn new() -> Self {
        Self { id: Identity::generate(&mut SystemRng).peer_id().to_string() }
    }

    /// This peer's id, as others see it.
    pub fn peer_id(&self) -> &str {
        &self.id
    }

    fn leave(&self) {
        hub(|topics| {
            topics.retain(|_, entries| {
                entries.retain(|entry| entry.id != self.id);
                !entries.is_empty()
            });
        });
    }
}

impl Default for MemoryTransport {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for MemoryTransport {
    fn drop(&mut self) {
        self.leave();
    }
}

fn hub<T>(use_it: impl FnOnce(&mut Topics) -> T) -> T {
    use_it(&mut HUB.lock().unwrap_or_else(PoisonError::into_inner))
}

#[async_trait]
impl Transport for MemoryTransport {
    async fn connect(&mut self, topic: TopicHash) -> anyhow::Result<mpsc::Receiver<Box<dyn Connection>>> {
        let (accept, connections) = mpsc::channel::<Box<dyn Connection>>(WAITING);
        hub(|topics| {
            let entries = topics.entry(topic).or_default();
            for other in entries.iter().filter(|entry| entry.id != self.id) {
                let Some(theirs) = &other.accept else { continue };
                let (ours, peers) = pair(&self.id, &other.id);
                // Whoever does not take its connections gets no more of them, and this side gets none
                // that leads nowhere.
                if accept.capacity() > 0 && theirs.try_send(Box::new(peers)).is_ok() {
                    accept
                        .try_send(Box::new(ours))
                        .map_err(|_| anyhow!("too many peers wait on this topic"))?;
                }
            }
            entries.retain(|entry| entry.id != self.id);
            entries.push(Entry { id: self.id.clone(), accept: Some(accept) });
            Ok(connections)
        })
    }

    async fn announce(&mut self, topic: TopicHash) -> anyhow::Result<()> {
        hub(|topics| {
            let entries = topics.entry(topic).or_default();
            if entries.iter().all(|entry| entry.id != self.id) {
                entries.push(Entry { id: self.id.clone(), accept: None });
            }
        });
        Ok(())
    }

    async fn lookup(&self, topic: TopicHash) -> anyhow::Result<Vec<PeerInfo>> {
        Ok(hub(|topics| {
            let entries = topics.get(&topic).map(Vec::as_slice).unwrap_or_default();
            let others = entries.iter().filter(|entry| entry.id != self.id);
            others.map(|entry| PeerInfo { id: entry.id.clone(), address: None, connected: false }).collect()
        }))
    }

    async fn disconnect(&mut self) -> anyhow::Result<()> {
        self.leave();
        Ok(())
    }

    fn name(&self) -> &str {
        "memory"
    }
}

/// One end of a conversation.
struct MemoryConnection {
    peer: String,
    outgoing: Option<mpsc::Sender<Vec<u8>>>,
    incoming: mpsc::Receiver<Vec<u8>>,
    /// How many messages this side has taken, for the other side's `flush`.
    taken: watch::Sender<u64>,
    /// How many of this side's messages were taken.
    acknowledged: watch::Receiver<u64>,
    sent: u64,
}

fn pair(one: &str, two: &str) -> (MemoryConnection, MemoryConnection) {
    let (to_two, from_one) = mpsc::channel(QUEUE);
    let (to_one, from_two) = mpsc::channel(QUEUE);
    let (taken_by_one, acknowledged_by_one) = watch::channel(0);
    let (taken_by_two, acknowledged_by_two) = watch::channel(0);
    let end = |peer: &str, outgoing, incoming, taken, acknowledged| MemoryConnection {
        peer: peer.to_owned(),
        outgoing: Some(outgoing),
        incoming,
        taken,
        acknowledged,
        sent: 0,
    };
    (
        end(two, to_two, from_two, taken_by_one, acknowledged_by_two),
        end(one, to_one, from_one, taken_by_two, acknowledged_by_one),
    )
}

#[async_trait]
impl Connection for MemoryConnection {
    async fn send(&mut self, data: &[u8]) -> anyhow::Result<()> {
        let Some(outgoing) = &self.outgoing else { bail!("the conversation was closed here") };
        outgoing.send(data.to_vec()).await.map_err(|_| anyhow!("the peer closed the conversation"))?;
        self.sent += 1;
        Ok(())
    }

    async fn receive(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        let message = self.incoming.recv().await;
        if message.is_some() {
            self.taken.send_modify(|taken| *taken += 1);
        }
        Ok(message)
    }

    async fn close(&mut self) -> anyhow::Result<()> {
        self.outgoing = None;
        Ok(())
    }

    fn peer_id(&self) -> &str {
        &self.peer
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        let sent = self.sent;
        let acknowledged = self.acknowledged.wait_for(|taken| *taken >= sent).await;
        acknowledged.map(drop).map_err(|_| anyhow!("the peer closed the conversation"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn connected(topic: TopicHash) -> [(MemoryTransport, Box<dyn Connection>); 2] {
        let (mut one, mut two) = (MemoryTransport::new(), MemoryTransport::new());
        let mut to_one = one.connect(topic).await.unwrap();
        let mut to_two = two.connect(topic).await.unwrap();
        let (a, b) = (to_one.recv().await.unwrap(), to_two.recv().await.unwrap());
        assert_eq!((a.peer_id(), b.peer_id()), (two.peer_id(), one.peer_id()));
        [(one, a), (two, b)]
    }

    #[tokio::test]
    async fn two_transports_of_a_topic_talk_in_order_and_see_the_end() {
        let [(_one, mut a), (_two, mut b)] = connected([1; 32]).await;
        for n in 0..10_u8 {
            a.send(&[n]).await.unwrap();
        }
        a.close().await.unwrap();
        for n in 0..10_u8 {
            assert_eq!(b.receive().await.unwrap(), Some(vec![n]));
        }
        assert_eq!(b.receive().await.unwrap(), None);
        a.flush().await.unwrap();
        assert!(a.send(b"late").await.is_err());
    }

    #[tokio::test]
    async fn a_receiver_that_does_not_consume_stops_the_sender() {
        let [(_one, mut a), (_two, mut b)] = connected([2; 32]).await;
        let mut sent = 0;
        while tokio::time::timeout(std::time::Duration::from_millis(10), a.send(b"x")).await.is_ok() {
            sent += 1;
        }
        assert_eq!(sent, QUEUE);
        b.receive().await.unwrap();
        a.send(b"x").await.unwrap();
    }

    #[tokio::test]
    async fn who_announced_is_found_and_who_left_is_not() {
        let topic = [3; 32];
        let (mut one, two) = (MemoryTransport::new(), MemoryTransport::new());
        one.announce(topic).await.unwrap();
        let found = two.lookup(topic).await.unwrap();
        assert_eq!(found, [PeerInfo { id: one.peer_id().to_owned(), address: None, connected: false }]);
        assert!(one.lookup(topic).await.unwrap().is_empty(), "a peer does not find itself");
        one.disconnect().await.unwrap();
        assert!(two.lookup(topic).await.unwrap().is_empty());
    }
}

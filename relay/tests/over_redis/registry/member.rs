//! A node as far as its memberships go: lease, registry and roster are real, what it says to others is
//! handed over directly.

use std::sync::{Arc, Weak};

use culvert_relay::admission::Revocations;
use culvert_relay::bus::redis::lease::Event;
use culvert_relay::bus::redis::lease::Lease;
use culvert_relay::bus::redis::membership::Membership;
use culvert_relay::bus::redis::message::Item;
use culvert_relay::bus::redis::metrics::Metrics;
use culvert_relay::bus::redis::reach::Reach;
use culvert_relay::bus::redis::settings::Settings;
use culvert_relay::bus::{Arrival, Inbox, Letter, Load, Undelivered};
use culvert_service_kit::Clock;
use culvert_service_kit::metric_set::Registry;
use culvert_wire::{ConnId, Generation, Member, Members, NodeId, PeerId, TopicId, Verdict};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::node::{DEADLINE, LOAD, eventually};

/// The ways between the nodes of one test.
#[derive(Default)]
pub(crate) struct Ways(Mutex<Vec<(NodeId, Weak<Membership>)>>);

impl Ways {
    fn tell(&self, from: NodeId, to: NodeId, item: Item) {
        let found = self.0.lock().iter().find(|(node, _)| *node == to).and_then(|(_, m)| m.upgrade());
        if let Some(membership) = found {
            membership.received(from, item);
        }
    }
}

/// What the connections of a node were told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Arrived(TopicId, ConnId),
    Departed(TopicId, ConnId),
}

/// The connections of a node, which write down what they are told.
#[derive(Default)]
pub(crate) struct Book(pub(crate) Mutex<Vec<Told>>);

impl Inbox for Book {
    fn deliver(&self, _: &Letter<'_>) -> Result<(), Verdict> {
        Ok(())
    }

    fn deliver_broadcast(&self, _: &Letter<'_>) -> Result<(), u32> {
        Ok(())
    }

    fn verdict(&self, _: Undelivered) {}

    fn arrived(&self, topic: TopicId, arrival: Arrival) {
        self.0.lock().push(Told::Arrived(topic, arrival.member.conn));
    }

    fn departed(&self, topic: TopicId, member: Member) {
        self.0.lock().push(Told::Departed(topic, member.conn));
    }

    fn members(&self, _: TopicId, _: usize) -> Members {
        Members::default()
    }

    fn load(&self) -> Load {
        LOAD
    }

    fn placed(&self, _: Option<NodeId>) {}

    fn revoked(&self, _: Arc<Revocations>) {}

    fn nodes(&self, _: u32) {}

    fn gap(&self, _: &dyn Fn(&TopicId) -> bool, _: u32) {}

    fn degraded(&self, _: bool) {}
}

pub(crate) struct Joiner {
    pub(crate) lease: Arc<Lease>,
    pub(crate) membership: Arc<Membership>,
    pub(crate) book: Arc<Book>,
    registry: Registry,
    ticking: JoinSet<()>,
    running: JoinSet<()>,
}

impl Joiner {
    pub(crate) async fn start(settings: &Settings, ways: &Arc<Ways>) -> Self {
        let registry = Registry::new();
        let metrics = Arc::new(Metrics::register(registry.recorder()));
        let reach = Arc::new(Reach::new(settings).unwrap());
        let lease = Arc::new(Lease::new(reach.clone(), settings, Clock::system(), metrics.clone()));
        let book = Arc::new(Book::default());
        let tell = {
            let (ways, lease) = (ways.clone(), lease.clone());
            move |node, item| {
                if let Some((own, _)) = lease.own() {
                    ways.tell(own, node, item);
                }
            }
        };
        let membership =
            Arc::new(Membership::new(reach, lease.clone(), book.clone(), tell, settings, metrics));
        let mut running = JoinSet::new();
        let run = membership.clone();
        running.spawn(async move { run.run().await });
        let mut joiner = Self { lease, membership, book, registry, ticking: JoinSet::new(), running };
        joiner.lease.first(LOAD, DEADLINE).await.unwrap();
        ways.0.lock().push((joiner.node(), Arc::downgrade(&joiner.membership)));
        joiner.resume();
        eventually("the lease is valid", async || joiner.lease.is_valid()).await;
        joiner
    }

    /// Its lease ticks again.
    pub(crate) fn resume(&mut self) {
        let (lease, membership) = (self.lease.clone(), self.membership.clone());
        self.ticking.spawn(async move {
            lease.run(|| LOAD, |event: Event| membership.event(&event)).await;
        });
    }

    /// Its lease is no longer renewed.
    pub(crate) async fn pause(&mut self) {
        self.ticking.shutdown().await;
    }

    /// The process ends without a word.
    pub(crate) async fn kill(&mut self) {
        self.ticking.shutdown().await;
        self.running.shutdown().await;
    }

    pub(crate) fn node(&self) -> NodeId {
        self.lease.own().unwrap().0
    }

    /// One of its connections.
    pub(crate) fn member(&self, n: u64) -> Member {
        Member { conn: ConnId::new(self.node(), n), peer: PeerId([7; 32]), generation: Generation(n) }
    }

    pub(crate) async fn join(&self, topic: TopicId, n: u64) -> Members {
        let arrival = Arrival { member: self.member(n), replaces: ConnId::NONE };
        self.membership.join(topic, arrival, culvert_wire::limits::MAX_MEMBERS).await
    }

    pub(crate) fn leave(&self, topic: TopicId, n: u64) {
        self.membership.leave(topic, self.member(n));
    }

    pub(crate) async fn lookup(&self, topic: TopicId) -> Members {
        self.membership.lookup(topic, culvert_wire::limits::MAX_MEMBERS).await
    }

    pub(crate) fn told(&self) -> Vec<Told> {
        std::mem::take(&mut *self.book.0.lock())
    }

    pub(crate) fn metric(&self, line: &str) -> f64 {
        let text = self.registry.render();
        let value = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {line} in\n{text}")).parse().unwrap()
    }
}

//! Every other node that this one exchanges messages with.
//!
//! [`Flows`] sorts what the node has to say into one [`Flow`] per other node, and what comes from the inbox
//! back out of it. Publishing is [`super::publisher`]'s: a flow that has something is put on the list of
//! the publisher of its Redis server, once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use culvert_wire::{ConnId, NodeId, TopicId, Verdict};
use hashbrown::HashMap;
use parking_lot::Mutex;

use super::flow::{Entry, Incoming, Numbers, Outgoing};
use super::incarnation::Incarnation;
use super::lease::Lease;
use super::membership::Membership;
use super::message::{EMPTY, Header, Item, Part, Parts, VERSIONS};
use super::metrics::{Direction, Discard, EpochEnd, Metrics};
use super::publisher::Ready;
use super::reach::Reach;
use super::settings::Settings;
use crate::bus::{Inbox, Letter, Undelivered};

/// What all nodes that share one subscription of ours may have under way together. Redis cuts a
/// subscriber off at 32 MiB, or at 8 MiB for a minute.
const SUBSCRIPTION_WINDOW: u64 = 6 << 20;
/// Bounds of what one node may have under way.
const WINDOW: std::ops::RangeInclusive<u64> = (64 << 10)..=(1 << 20);
/// Processes that are known to have lost their lease; older ones are forgotten, and no longer addressed.
const FENCED: usize = 1024;
/// How long a process may be spoken to that the lease table does not show; it is read twice a second.
const UNCONFIRMED: Duration = Duration::from_secs(2);
/// First and longest pause towards an inbox that nobody was subscribed to.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// A flow that nobody has heard for so long looks for the server of its inbox anew.
const ELSEWHERE_AFTER: Duration = Duration::from_millis(300);

/// The traffic with one other node.
pub struct Flow {
    /// The node.
    pub node: NodeId,
    /// Which process it is.
    pub instance: u64,
    /// The channel of its inbox that this node publishes to.
    pub channel: String,
    /// What goes there.
    pub outgoing: Mutex<Outgoing>,
    /// What came from there.
    pub incoming: Mutex<Incoming>,
    /// The publisher's list that it goes on.
    pub ready: ArcSwap<Ready>,
    /// Whether it is on that list.
    pub listed: AtomicBool,
    /// Whether the other node is to be told what came, even if there is nothing else to say.
    pub say: AtomicBool,
    /// Opened for a message of a process that the lease table does not show yet.
    unconfirmed: Mutex<Option<Instant>>,
    pause: Mutex<Option<Pause>>,
}

#[derive(Clone, Copy)]
struct Pause {
    until: Instant,
    length: Duration,
}

/// All flows of this node.
pub struct Flows {
    reach: Arc<Reach>,
    lease: Arc<Lease>,
    inbox: Arc<dyn Inbox>,
    metrics: Arc<Metrics>,
    numbers: Arc<Numbers>,
    newest_version: u8,
    queue_bytes: usize,
    shards: u8,
    flows: ArcSwap<HashMap<NodeId, Arc<Flow>>>,
    /// Writers of `flows`, and the processes whose lease is gone, the latest last.
    changing: Mutex<Vec<u64>>,
    /// Where flows go that have no publisher yet.
    unplaced: Arc<Ready>,
    valid: AtomicBool,
}

impl Flows {
    /// No flows yet; those without a publisher wait on `unplaced`.
    pub fn new(
        settings: &Settings,
        reach: Arc<Reach>,
        lease: Arc<Lease>,
        inbox: Arc<dyn Inbox>,
        metrics: Arc<Metrics>,
        unplaced: Arc<Ready>,
    ) -> Self {
        metrics.most_bytes.set(settings.queue_bytes as f64);
        Self {
            reach,
            lease,
            inbox,
            metrics,
            numbers: Arc::default(),
            newest_version: settings.newest_bus_version,
            queue_bytes: settings.queue_bytes,
            shards: settings.shards,
            flows: ArcSwap::default(),
            changing: Mutex::default(),
            unplaced,
            valid: AtomicBool::new(false),
        }
    }

    /// The flow to a node, if that node is there.
    pub fn get(&self, node: NodeId) -> Option<Arc<Flow>> {
        self.flows.load().get(&node).cloned()
    }

    /// Every flow at the moment.
    pub fn all(&self) -> Arc<HashMap<NodeId, Arc<Flow>>> {
        self.flows.load_full()
    }

    /// Begins to talk to a node, unless it does already. A process that was there before is gone.
    pub fn open(&self, node: NodeId, incarnation: Incarnation, newest: u8) -> Arc<Flow> {
        let mut fenced = self.changing.lock();
        fenced.retain(|instance| *instance != incarnation.instance);
        let before = self.get(node);
        if let Some(flow) = before.as_ref().filter(|flow| flow.instance == incarnation.instance) {
            *flow.unconfirmed.lock() = None;
            return flow.clone();
        }
        let version = newest.min(self.newest_version);
        let instance = incarnation.instance;
        // Which shard is of no importance, as long as a flow stays with it and flows spread over all.
        let own = self.lease.own().map_or(0, |(own, _)| own.0);
        let shard = u8::try_from(own % u16::from(self.shards)).unwrap_or(0);
        let channel = self.reach.keys().inbox(node, shard);
        let outgoing =
            Outgoing::new(self.numbers.clone(), instance, version, self.queue_bytes, Instant::now());
        let flow = Arc::new(Flow {
            node,
            instance,
            channel,
            outgoing: Mutex::new(outgoing),
            incoming: Mutex::default(),
            ready: ArcSwap::from(self.unplaced.clone()),
            listed: AtomicBool::new(false),
            say: AtomicBool::new(false),
            unconfirmed: Mutex::new(None),
            pause: Mutex::new(None),
        });
        let mut flows = HashMap::clone(&self.flows.load());
        flows.insert(node, flow.clone());
        self.flows.store(Arc::new(flows));
        if let Some(before) = before {
            self.forget(&mut fenced, &before);
        }
        flow
    }

    /// Stops to talk to a process that has lost its lease.
    pub fn close(&self, node: NodeId, instance: u64) {
        let mut fenced = self.changing.lock();
        let Some(flow) = self.get(node).filter(|flow| flow.instance == instance) else { return };
        let mut flows = HashMap::clone(&self.flows.load());
        flows.remove(&node);
        self.flows.store(Arc::new(flows));
        self.forget(&mut fenced, &flow);
    }

    fn forget(&self, fenced: &mut Vec<u64>, flow: &Flow) {
        if fenced.len() == FENCED {
            fenced.remove(0);
        }
        fenced.push(flow.instance);
        let mut outgoing = flow.outgoing.lock();
        outgoing.set_reachable(false);
        let under_way = outgoing.end_epoch(Verdict::Unknown);
        let waiting = outgoing.give_up(Verdict::Gone);
        drop(outgoing);
        self.metrics.epochs[EpochEnd::Lease].increment(1);
        self.undelivered(under_way);
        self.undelivered(waiting);
    }

    /// Begins a new epoch towards every node: this node's own lease had lapsed.
    pub fn begin_anew(&self) {
        for flow in self.all().values() {
            self.end_epoch(flow, EpochEnd::Lease);
        }
    }

    /// Begins a new epoch towards a node and tells the senders of what was under way.
    pub fn end_epoch(&self, flow: &Arc<Flow>, why: EpochEnd) {
        let lost = flow.outgoing.lock().end_epoch(Verdict::Unknown);
        self.metrics.epochs[why].increment(1);
        self.undelivered(lost);
        list(flow);
    }

    /// Queues a letter for the node in its address.
    ///
    /// # Errors
    /// Why it was not taken.
    pub fn letter(&self, letter: &Letter<'_>, node: NodeId) -> Result<(), Verdict> {
        let flows = self.flows.load();
        let flow = flows.get(&node).ok_or(Verdict::Gone)?;
        if !self.valid.load(Ordering::Relaxed) || flow.ready.load().is_down() {
            return Err(Verdict::Unreachable);
        }
        flow.outgoing.lock().letter(letter)?;
        list(flow);
        Ok(())
    }

    /// Queues an item for a node; one that is gone needs none.
    pub fn tell(&self, node: NodeId, item: &Item) {
        if let Some(flow) = self.flows.load().get(&node) {
            flow.outgoing.lock().item(item);
            list(flow);
        }
    }

    /// Tells the senders on this node what became of their letters.
    pub fn undelivered(&self, lost: Vec<Undelivered>) {
        for undelivered in lost {
            self.inbox.verdict(undelivered);
        }
    }

    /// What one node may have under way to this one.
    pub fn window(&self) -> u64 {
        let nodes = self.flows.load().len() as u64;
        (SUBSCRIPTION_WINDOW / nodes.div_ceil(self.shards.into()).max(1))
            .clamp(*WINDOW.start(), *WINDOW.end())
    }

    /// Takes a message from the inbox. What concerns memberships goes to `membership`.
    pub fn receive(&self, message: &[u8], membership: &Membership) {
        match self.take(message, membership) {
            Ok(()) => self.metrics.messages[Direction::Received].increment(1),
            Err(reason) => self.metrics.discarded[reason].increment(1),
        }
        self.metrics.bytes[Direction::Received].increment(message.len() as u64);
    }

    fn take(&self, message: &[u8], membership: &Membership) -> Result<(), Discard> {
        let mut items = message;
        let header = Header::take(&mut items).map_err(|_| Discard::Malformed)?;
        if !self.lease.is_valid() {
            return Err(Discard::Invalid);
        }
        if self.lease.own().is_none_or(|(_, own)| own.instance != header.target) {
            return Err(Discard::Foreign);
        }
        let flow = self.source(&header)?;
        let Entry::New { lost } = flow.incoming.lock().begin(&header) else { return Err(Discard::Old) };
        if lost > 0 {
            self.metrics.lost.increment(lost);
            let concerns = |topic: &TopicId| membership.nodes_of(topic).contains(&flow.node);
            self.inbox.gap(&concerns, u32::try_from(lost).unwrap_or(u32::MAX));
        }
        let missed = flow.outgoing.lock().confirmed(&header);
        if let Some(lost) = missed {
            self.metrics.epochs[EpochEnd::Missed].increment(1);
            self.undelivered(lost);
        }
        let (letters, whole) = self.deliver(&flow, &header, items, membership);
        let said = {
            let mut incoming = flow.incoming.lock();
            if !whole {
                incoming.damaged();
            }
            incoming.end(&header, items.len() as u64, letters, self.window())
        };
        if said {
            flow.say.store(true, Ordering::Relaxed);
        }
        if said || flow.outgoing.lock().is_ready() {
            list(&flow);
        }
        self.metrics.letters[Direction::Received].increment(letters);
        if whole { Ok(()) } else { Err(Discard::Malformed) }
    }

    /// Hands on what is in a message; gives the letters in it and whether all of it could be read.
    fn deliver(
        &self,
        flow: &Arc<Flow>,
        header: &Header,
        items: &[u8],
        membership: &Membership,
    ) -> (u64, bool) {
        let mut letters = 0;
        if header.has(EMPTY) {
            return (letters, true);
        }
        for part in Parts::new(header.version, items) {
            match part {
                Ok(Part::Letter(letter)) => {
                    letters += 1;
                    self.hand_over(flow, &letter);
                }
                Ok(Part::Item { number, item, .. }) => {
                    if !flow.incoming.lock().admits(number, &item) {
                        continue;
                    }
                    match item {
                        Item::Undelivered(undelivered) => self.inbox.verdict(undelivered),
                        item => membership.received(flow.node, item),
                    }
                }
                Err(error) => {
                    tracing::error!(node = %flow.node, %error, "a message from another node cannot be read");
                    return (letters, false);
                }
            }
        }
        (letters, true)
    }

    fn hand_over(&self, flow: &Flow, letter: &Letter<'_>) {
        let refused = if letter.to == ConnId::NONE {
            self.inbox.deliver_broadcast(letter).map_err(|count| (Verdict::Full, count))
        } else {
            self.inbox.deliver(letter).map_err(|verdict| (verdict, 1))
        };
        if let Err((verdict, count)) = refused {
            let (from, to) = (letter.from, letter.to);
            let undelivered = Undelivered { topic: Some(letter.topic), from, to, verdict, count };
            flow.outgoing.lock().item(&Item::Undelivered(undelivered));
        }
    }

    /// The flow that a message belongs to. A process that nobody has heard of yet has just begun; one that
    /// has lost its lease is refused, whoever holds its number now.
    fn source(&self, header: &Header) -> Result<Arc<Flow>, Discard> {
        match self.get(header.source) {
            Some(flow) if flow.instance == header.instance => return Ok(flow),
            Some(_) => {
                self.lease.poke();
                return Err(Discard::Fenced);
            }
            None => self.lease.poke(),
        }
        if self.changing.lock().contains(&header.instance) {
            return Err(Discard::Fenced);
        }
        let newest = header.version.min(*VERSIONS.end());
        let incarnation = Incarnation { instance: header.instance, term: 0 };
        let flow = self.open(header.source, incarnation, newest);
        *flow.unconfirmed.lock() = Some(Instant::now());
        Ok(flow)
    }

    /// Stops to send to a node for a moment: nobody was subscribed to its inbox. What was not published
    /// from `sequence` on goes back.
    pub fn unheard(&self, flow: &Arc<Flow>, sequence: Option<u64>, now: Instant) {
        self.metrics.unheard.increment(1);
        let mut outgoing = flow.outgoing.lock();
        let mut lost = sequence.map(|sequence| outgoing.unpublished(sequence)).unwrap_or_default();
        outgoing.set_reachable(false);
        lost.extend(outgoing.give_up(Verdict::Unreachable));
        drop(outgoing);
        self.undelivered(lost);
        let mut pause = flow.pause.lock();
        let length = pause.map_or(PAUSE.0, |pause| (pause.length * 2).min(PAUSE.1));
        *pause = Some(Pause { until: now + length, length });
        if length > ELSEWHERE_AFTER {
            // Perhaps its inbox is served by another server meanwhile, and this one does not know.
            flow.ready.store(self.unplaced.clone());
        }
        self.lease.poke();
    }

    /// Sends to a node again.
    pub fn heard(&self, flow: &Arc<Flow>) {
        if flow.pause.lock().take().is_some() {
            flow.outgoing.lock().set_reachable(true);
            list(flow);
        }
    }

    /// To be called about ten times a second: asks where an answer is due, tries closed ways again, and
    /// gives up what waits while this node's own lease is in doubt.
    pub fn tick(&self, now: Instant) {
        let valid = self.lease.is_valid();
        let was_valid = self.valid.swap(valid, Ordering::Relaxed);
        let (mut held, mut fullest) = (0, 0);
        for flow in self.all().values() {
            let opened = *flow.unconfirmed.lock();
            if valid && opened.is_some_and(|opened| now.duration_since(opened) > UNCONFIRMED) {
                // It had given its lease back before anybody looked.
                self.close(flow.node, flow.instance);
                continue;
            }
            let mut outgoing = flow.outgoing.lock();
            let (waiting, kept) = outgoing.held();
            held += waiting + kept;
            fullest = fullest.max(waiting + kept);
            if !valid {
                let lost = outgoing.give_up(Verdict::Unreachable);
                drop(outgoing);
                self.undelivered(lost);
                continue;
            }
            let again = flow.pause.lock().is_some_and(|pause| pause.until <= now);
            if again {
                outgoing.ask(now);
            }
            if outgoing.is_blocked() {
                self.metrics.credit_stalls.increment(1);
            }
            let due = outgoing.tick(now) || again || !was_valid;
            drop(outgoing);
            if due {
                list(flow);
            }
        }
        self.metrics.held_bytes.set(held as f64);
        self.metrics.fullest_bytes.set(fullest as f64);
    }

    /// Refuses what waits for the nodes behind a Redis server that cannot be reached.
    pub fn give_up_behind(&self, ready: &Arc<Ready>) {
        for flow in self.all().values().filter(|flow| Arc::ptr_eq(&flow.ready.load(), ready)) {
            let lost = flow.outgoing.lock().give_up(Verdict::Unreachable);
            self.undelivered(lost);
        }
    }

    /// Whether this node may publish at the moment.
    pub fn is_valid(&self) -> bool {
        self.lease.is_valid()
    }

    /// This node, as it signs its messages.
    pub fn own(&self) -> Option<(NodeId, Incarnation)> {
        self.lease.own()
    }
}

/// Puts a flow on its publisher's list, if it is not on it already.
pub fn list(flow: &Arc<Flow>) {
    if !flow.listed.swap(true, Ordering::AcqRel) {
        flow.ready.load().push(flow.clone());
    }
}

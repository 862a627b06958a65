//! The subscriptions through which a node receives: one connection for each shard of its inbox.
//!
//! Each shard is subscribed, watched and subscribed anew by itself, for ever. A connection is given up
//! when it is closed, when another server serves its channel, and when it is deaf: open, but nothing
//! comes through it. To notice the last, a probe is published to the channel whenever a second passed in
//! silence, the way a message takes; two of them unheard make it deaf.
//!
//! While no subscription is confirmed, what others publish is lost, and they hear so: nobody received it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use culvert_wire::NodeId;
use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, RedisError, Value};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use super::metrics::{Metrics, Resubscription};
use super::reach::{Place, Reach, ReachError};

/// First byte of a probe, where a message has its version.
const PROBE: u8 = 0;
/// Silence after which a probe is sent, and how long it may take.
const PROBE_PERIOD: Duration = Duration::from_secs(1);
/// Probes in a row that may go unheard; one can be lost to a hiccup.
const UNHEARD: u32 = 2;
/// Bound of the first pause before another attempt. Pauses are random below their bound, so that the nodes
/// of a cluster do not come back to Redis in step.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Bound of every later one at most; short, because a node without inbox is a node cut off.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Receives each message: from which shard, and what. Called inline by the task that reads the connection,
/// in order; must not wait.
pub type Deliver = Arc<dyn Fn(u8, Vec<u8>) + Send + Sync>;

/// The subscriptions of one node number.
pub struct Inboxes {
    reach: Arc<Reach>,
    node: NodeId,
    deliver: Deliver,
    live: watch::Sender<bool>,
    metrics: Metrics,
    /// How many shards are subscribed.
    subscriptions: AtomicUsize,
    shards: u8,
}

/// What one connection's closure and its watcher share.
#[derive(Default)]
struct Line {
    /// Counts what came through, to tell silence.
    pushes: AtomicU32,
    /// The subscription was given up; what its connection still reads is not delivered.
    abandoned: AtomicBool,
    /// The server ended the subscription, not the connection.
    unsubscribed: AtomicBool,
    /// The connection or the subscription ended.
    ended: Notify,
}

/// A confirmed subscription; it ends when dropped.
struct Subscription<'a> {
    inboxes: &'a Inboxes,
    place: Place,
    line: Arc<Line>,
    _connection: MultiplexedConnection,
}

/// An attempt to subscribe came to nothing.
#[derive(Debug, thiserror::Error)]
enum SubscribeError {
    #[error(transparent)]
    Reach(#[from] ReachError),
    #[error("redis at {place} refuses the subscription: {source}")]
    Refused { place: Place, source: RedisError },
    #[error("redis refuses the probe: {0}")]
    Probe(RedisError),
}

impl Inboxes {
    /// The inbox of the node with this number; `live` is true while every shard is subscribed and heard.
    pub fn new(
        reach: Arc<Reach>,
        node: NodeId,
        shards: u8,
        deliver: Deliver,
        live: watch::Sender<bool>,
        metrics: Metrics,
    ) -> Self {
        Self { reach, node, deliver, live, metrics, subscriptions: AtomicUsize::new(0), shards }
    }

    /// Keeps every shard subscribed, and what is known of the servers current, until dropped.
    pub async fn run(&self) {
        tokio::join!(self.reach.watch(), join_all((0..self.shards).map(|shard| self.keep(shard))));
    }

    async fn keep(&self, shard: u8) {
        let channel = self.reach.keys().inbox(self.node, shard);
        let mut pause = FIRST_PAUSE;
        loop {
            match self.subscribe(shard, &channel).await {
                Ok(subscription) => {
                    pause = FIRST_PAUSE;
                    let reason = self.ended(&channel, &subscription).await;
                    self.metrics.resubscriptions[reason].increment(1);
                    tracing::debug!(node = %self.node, shard, server = %subscription.place,
                        reason = reason.name(), "a subscription of the inbox ended and is made anew");
                    drop(subscription);
                    self.reach.refresh().await;
                }
                Err(error) => {
                    self.metrics.subscribe_failures.increment(1);
                    tracing::debug!(%error, node = %self.node, shard, "could not subscribe the inbox");
                    match &error {
                        SubscribeError::Refused { source, .. } => self.reach.note(source).await,
                        SubscribeError::Reach(_) | SubscribeError::Probe(_) => self.reach.refresh().await,
                    }
                    sleep(pause.mul_f64(rand::random())).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    async fn subscribe(&self, shard: u8, channel: &str) -> Result<Subscription<'_>, SubscribeError> {
        let place = self.reach.place(channel).await?;
        let line = Arc::new(Line::default());
        let (deliver, heard) = (Arc::clone(&self.deliver), Arc::clone(&line));
        let push = move |info: PushInfo| heard.push(info, |message| deliver(shard, message));
        let mut connection = self.reach.subscriber(&place, push).await?;
        let command = if self.reach.is_cluster() { "SSUBSCRIBE" } else { "SUBSCRIBE" };
        match redis::cmd(command).arg(channel).exec_async(&mut connection).await {
            Ok(()) => {
                self.count(true);
                Ok(Subscription { inboxes: self, place, line, _connection: connection })
            }
            Err(source) => Err(SubscribeError::Refused { place, source }),
        }
    }

    /// Waits until a subscription has to be made anew.
    async fn ended(&self, channel: &str, subscription: &Subscription<'_>) -> Resubscription {
        let line = &subscription.line;
        tokio::select! {
            () = line.ended.notified() => {
                if line.unsubscribed.load(Ordering::Acquire) {
                    Resubscription::Moved
                } else {
                    Resubscription::Lost
                }
            }
            () = self.reach.moved(channel, &subscription.place) => Resubscription::Moved,
            () = self.deaf(channel, line) => Resubscription::Deaf,
        }
    }

    /// Completes when nothing comes through a connection any more.
    async fn deaf(&self, channel: &str, line: &Line) {
        let mut ticks = interval_at(Instant::now() + PROBE_PERIOD, PROBE_PERIOD);
        // A process that was stopped has not read yet what came meanwhile.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut seen, mut unheard) = (line.pushes.load(Ordering::Relaxed), 0);
        loop {
            ticks.tick().await;
            let pushes = line.pushes.load(Ordering::Relaxed);
            if pushes != seen {
                (seen, unheard) = (pushes, 0);
                continue;
            }
            if unheard == UNHEARD {
                return;
            }
            unheard += 1;
            // Whether it was published is not the question, only whether it is heard.
            if let Ok(Err(error)) = timeout(PROBE_PERIOD, self.publish(channel)).await {
                tracing::debug!(%error, channel, "could not probe the inbox");
            }
        }
    }

    async fn publish(&self, channel: &str) -> Result<(), SubscribeError> {
        let mut connection = self.reach.ask().await?;
        let command = if self.reach.is_cluster() { "SPUBLISH" } else { "PUBLISH" };
        let sent = redis::cmd(command).arg(channel).arg(&[PROBE]).exec_async(&mut connection).await;
        sent.map_err(SubscribeError::Probe)
    }

    /// Counts a shard in or out. All of them share the task of [`Inboxes::run`].
    fn count(&self, subscribed: bool) {
        let subscriptions = if subscribed {
            self.metrics.subscriptions.increment(1);
            self.subscriptions.fetch_add(1, Ordering::Relaxed) + 1
        } else {
            self.metrics.subscriptions.decrement(1);
            self.subscriptions.fetch_sub(1, Ordering::Relaxed) - 1
        };
        let live = subscriptions == usize::from(self.shards);
        if self.live.send_if_modified(|known| std::mem::replace(known, live) != live) {
            match live {
                true => tracing::info!(node = %self.node, "the inbox in redis is subscribed"),
                false => tracing::warn!(node = %self.node, "the inbox in redis is not subscribed completely"),
            }
        }
    }
}

impl Drop for Subscription<'_> {
    fn drop(&mut self) {
        self.line.abandoned.store(true, Ordering::Release);
        self.inboxes.count(false);
    }
}

impl Line {
    /// Takes in what the server pushed.
    fn push(&self, info: PushInfo, deliver: impl FnOnce(Vec<u8>)) {
        match info.kind {
            PushKind::Message | PushKind::SMessage => {
                if self.abandoned.load(Ordering::Acquire) {
                    return;
                }
                self.pushes.fetch_add(1, Ordering::Relaxed);
                // Channel and payload.
                if let Some(Value::BulkString(message)) = info.data.into_iter().nth(1)
                    && message.first().is_some_and(|&version| version != PROBE)
                {
                    deliver(message);
                }
            }
            PushKind::Unsubscribe | PushKind::SUnsubscribe => {
                self.unsubscribed.store(true, Ordering::Release);
                self.ended.notify_one();
            }
            PushKind::Disconnection => self.ended.notify_one(),
            _ => {}
        }
    }
}

//! The subscription through which a replica hears the others.
//!
//! It is watched and made anew for ever: when its connection closes, when another server serves the
//! channel, and when it is deaf: open, but nothing comes through it. To notice the last, a probe is
//! published whenever a second passed in silence. Whatever was published while there was none is lost, so
//! each new one begins with [`Event::Missed`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use culvert_relay::bus::redis::reach::{Place, Reach, ReachError};
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, RedisError, Value, cmd};
use tokio::sync::{Notify, broadcast};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use crate::live::Event;

/// A probe; events are JSON.
const PROBE: &[u8] = b"probe";
/// Silence after which a probe is sent, and how long it may take.
const PROBE_PERIOD: Duration = Duration::from_secs(1);
/// Probes in a row that may go unheard; one can be lost to a hiccup.
const UNHEARD: u32 = 2;
/// Bound of the first pause before another attempt. Pauses are random below their bound, so that replicas
/// do not come back in step.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Bound of every later one at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Hears what replicas tell each other.
pub(super) struct Hearing<'a> {
    reach: &'a Reach,
    channel: String,
    events: &'a broadcast::Sender<Event>,
}

/// What one connection's closure and its watcher share.
#[derive(Default)]
struct Ear {
    /// Counts what came through, to tell silence.
    heard: AtomicU32,
    /// The subscription was given up; what its connection still reads is old.
    abandoned: AtomicBool,
    /// The connection or the subscription ended.
    ended: Notify,
}

/// A confirmed subscription; it ends when dropped.
struct Subscription {
    place: Place,
    ear: Arc<Ear>,
    _connection: MultiplexedConnection,
}

#[derive(Debug, thiserror::Error)]
enum SubscribeError {
    #[error(transparent)]
    Reach(#[from] ReachError),
    #[error("redis refuses: {0}")]
    Refused(#[from] RedisError),
}

impl<'a> Hearing<'a> {
    pub(super) fn new(reach: &'a Reach, channel: String, events: &'a broadcast::Sender<Event>) -> Self {
        Self { reach, channel, events }
    }

    /// Keeps listening, until dropped.
    pub(super) async fn run(&self) {
        let (mut pause, mut failing) = (FIRST_PAUSE, false);
        loop {
            match self.subscribe().await {
                Ok(subscription) => {
                    tracing::info!(server = %subscription.place, "hearing the other replicas");
                    (pause, failing) = (FIRST_PAUSE, false);
                    // Nobody listens in this process: nothing is missed.
                    let _ = self.events.send(Event::Missed);
                    self.ended(&subscription).await;
                    subscription.ear.abandoned.store(true, Ordering::Release);
                    tracing::warn!("the other replicas are not heard; listening anew");
                }
                Err(error) => {
                    if !failing {
                        tracing::warn!(%error, "cannot listen to the other replicas; trying again");
                    }
                    failing = true;
                    if let SubscribeError::Refused(error) = &error {
                        self.reach.note(error).await;
                    }
                    sleep(pause.mul_f64(rand::random())).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
            self.reach.refresh().await;
        }
    }

    async fn subscribe(&self) -> Result<Subscription, SubscribeError> {
        let place = self.reach.place(&self.channel).await?;
        let ear = Arc::new(Ear::default());
        let (heard, events) = (Arc::clone(&ear), self.events.clone());
        let push = move |info: PushInfo| heard.push(info, &events);
        let mut connection = self.reach.subscriber(&place, push).await?;
        cmd("SUBSCRIBE").arg(&self.channel).exec_async(&mut connection).await?;
        Ok(Subscription { place, ear, _connection: connection })
    }

    /// Waits until a subscription has to be made anew.
    async fn ended(&self, subscription: &Subscription) {
        tokio::select! {
            () = subscription.ear.ended.notified() => {}
            () = self.reach.moved(&self.channel, &subscription.place) => {}
            () = self.deaf(&subscription.ear) => {}
        }
    }

    /// Completes when nothing comes through any more.
    async fn deaf(&self, ear: &Ear) {
        let mut ticks = interval_at(Instant::now() + PROBE_PERIOD, PROBE_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut seen, mut unheard) = (ear.heard.load(Ordering::Relaxed), 0);
        loop {
            ticks.tick().await;
            let heard = ear.heard.load(Ordering::Relaxed);
            if heard != seen {
                (seen, unheard) = (heard, 0);
                continue;
            }
            if unheard == UNHEARD {
                return;
            }
            unheard += 1;
            // Whether it was published is not the question, only whether it is heard.
            if let Ok(Err(error)) = timeout(PROBE_PERIOD, self.probe()).await {
                tracing::debug!(%error, "could not probe the channel");
            }
        }
    }

    async fn probe(&self) -> Result<(), SubscribeError> {
        let mut connection = self.reach.ask().await?;
        Ok(cmd("PUBLISH").arg(&self.channel).arg(PROBE).exec_async(&mut connection).await?)
    }
}

impl Ear {
    /// Takes in what the server pushed.
    fn push(&self, info: PushInfo, events: &broadcast::Sender<Event>) {
        match info.kind {
            PushKind::Message => {
                if self.abandoned.load(Ordering::Acquire) {
                    return;
                }
                self.heard.fetch_add(1, Ordering::Relaxed);
                // Channel and payload.
                let Some(Value::BulkString(payload)) = info.data.into_iter().nth(1) else { return };
                if payload == PROBE {
                    return;
                }
                match serde_json::from_slice(&payload) {
                    Ok(event) => {
                        let _ = events.send(event);
                    }
                    // A newer version says something that this one does not know.
                    Err(error) => {
                        tracing::debug!(%error, "an event that this version does not know");
                        let _ = events.send(Event::Missed);
                    }
                }
            }
            PushKind::Unsubscribe | PushKind::Disconnection => self.ended.notify_one(),
            _ => {}
        }
    }
}

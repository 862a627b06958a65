//! Publishes what flows have: one loop per Redis server.
//!
//! Ack-clocked: everything that waits goes out in one write, and the next write waits for the answers. An
//! idle publisher adds no delay, and a busy one makes its own batches, because what comes meanwhile waits
//! for the next write. The answers say how many heard each message; a server that does not answer in time
//! has perhaps published and perhaps not, so that connection is dropped, and the epoch of every flow in
//! the batch ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use culvert_wire::NodeId;
use hashbrown::HashMap;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::flow::Taken;
use super::flows::{Flow, Flows, list};
use super::metrics::{Direction, EpochEnd, Metrics};
use super::pace::Pace;
use super::reach::{Place, Reach, ReachError};
use super::volume::Volume;

/// Bytes of one flow in one write, so that each gets its turn.
const FLOW_BYTES: usize = 64 << 10;
/// Bytes of one flow in one write, however many there are: a full message.
const LEAST_SHARE: usize = 4 << 10;
/// A server that cannot be reached for so long closes the way to the nodes behind it.
const DOWN_AFTER: Duration = Duration::from_secs(1);

/// The flows that have something for one server.
#[derive(Default)]
pub struct Ready {
    flows: Mutex<Vec<Arc<Flow>>>,
    wake: Notify,
    down: AtomicBool,
}

impl Ready {
    /// Adds a flow that is on no list.
    pub fn push(&self, flow: Arc<Flow>) {
        self.flows.lock().push(flow);
        self.wake.notify_one();
    }

    /// Whether the server cannot be reached.
    pub fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    /// The flows, at least one. Cancel safe.
    async fn take(&self) -> Vec<Arc<Flow>> {
        loop {
            let flows = std::mem::take(&mut *self.flows.lock());
            if !flows.is_empty() {
                return flows;
            }
            self.wake.notified().await;
        }
    }
}

/// All publishers of a node.
pub struct Publishers {
    reach: Arc<Reach>,
    flows: Arc<Flows>,
    metrics: Arc<Metrics>,
    unplaced: Arc<Ready>,
    places: Mutex<HashMap<Place, Arc<Ready>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    failed: CancellationToken,
}

impl Publishers {
    /// None yet; they are made for the servers that flows turn out to need, and end with `stop`. One that
    /// ends otherwise cancels `failed`.
    pub fn new(
        reach: Arc<Reach>,
        flows: Arc<Flows>,
        metrics: Arc<Metrics>,
        unplaced: Arc<Ready>,
        tasks: TaskTracker,
        stop: CancellationToken,
        failed: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self { reach, flows, metrics, unplaced, places: Mutex::default(), tasks, stop, failed })
    }

    /// Finds the server of every flow that has none, until stopped.
    pub async fn place(self: Arc<Self>) {
        let mut backoff = backoff();
        loop {
            let flows = tokio::select! {
                flows = self.unplaced.take() => flows,
                () = self.stop.cancelled() => return,
            };
            for flow in flows {
                match self.reach.place(&flow.channel).await {
                    Ok(place) => {
                        backoff = self::backoff();
                        flow.ready.store(self.publisher(place));
                        flow.listed.store(false, Ordering::Release);
                        list(&flow);
                    }
                    Err(error) => {
                        tracing::debug!(%error, node = %flow.node, "the server of an inbox is not known");
                        flow.listed.store(false, Ordering::Release);
                        list(&flow);
                        rest(&mut backoff, &self.stop).await;
                    }
                }
            }
        }
    }

    fn publisher(self: &Arc<Self>, place: Place) -> Arc<Ready> {
        let mut places = self.places.lock();
        if let Some(ready) = places.get(&place) {
            return ready.clone();
        }
        let ready = Arc::<Ready>::default();
        places.insert(place.clone(), ready.clone());
        let (publishers, served, guard) = (self.clone(), ready.clone(), self.failed.clone().drop_guard());
        self.tasks.spawn(async move {
            if publishers.publish(place, served).await {
                guard.disarm();
            }
        });
        ready
    }

    /// The life of one publisher. It ends with the bus, or when its server no longer serves any inbox;
    /// `false` if it could not begin.
    async fn publish(&self, place: Place, ready: Arc<Ready>) -> bool {
        let mut pace = match Pace::new() {
            Ok(pace) => pace,
            Err(error) => {
                tracing::error!(%error, "a publisher cannot start");
                return false;
            }
        };
        let mut volume = Volume::new(self.reach.timeout());
        let mut connection = None;
        loop {
            if connection.is_none() {
                let connected = tokio::select! {
                    connected = self.connect(&place, &ready) => connected,
                    () = self.stop.cancelled() => return true,
                };
                let Some(connected) = connected else {
                    self.leave(&place, &ready);
                    return true;
                };
                connection = Some(connected);
            }
            let flows = tokio::select! {
                flows = ready.take() => flows,
                () = self.stop.cancelled() => return true,
            };
            pace.rest().await;
            if let Some(open) = &mut connection
                && !self.flush(flows, open, &mut volume).await
            {
                connection = None;
            }
        }
    }

    /// Connects, however long it takes; `None` once the server serves no inbox of a flow any more.
    async fn connect(&self, place: &Place, ready: &Arc<Ready>) -> Option<MultiplexedConnection> {
        let since = Instant::now();
        let mut backoff = backoff();
        loop {
            let error = match self.reach.publisher(place).await {
                Ok(connection) => {
                    ready.down.store(false, Ordering::Relaxed);
                    return Some(connection);
                }
                Err(error) => error,
            };
            self.complain(place, ready, since, &error);
            self.reach.refresh().await;
            if self.moved(place, ready).await {
                return None;
            }
            rest(&mut backoff, &self.stop).await;
        }
    }

    fn complain(&self, place: &Place, ready: &Arc<Ready>, since: Instant, error: &ReachError) {
        if since.elapsed() >= DOWN_AFTER || ready.is_down() {
            if !ready.down.swap(true, Ordering::Relaxed) {
                tracing::error!(%place, %error, "redis cannot be reached; nodes behind it are out of reach");
            }
            self.flows.give_up_behind(ready);
        }
    }

    /// Whether the inboxes of all flows here are served elsewhere now.
    async fn moved(&self, place: &Place, ready: &Arc<Ready>) -> bool {
        let flows = self.flows.all();
        for flow in flows.values().filter(|flow| Arc::ptr_eq(&flow.ready.load(), ready)) {
            match self.reach.place(&flow.channel).await {
                Ok(now) if now != *place => {}
                Ok(_) | Err(_) => return false,
            }
        }
        true
    }

    /// Ends a publisher: its flows look for their servers anew.
    fn leave(&self, place: &Place, ready: &Arc<Ready>) {
        let mut places = self.places.lock();
        places.remove(place);
        let listed = std::mem::take(&mut *ready.flows.lock());
        let flows = self.flows.all();
        let here = flows.values().filter(|flow| Arc::ptr_eq(&flow.ready.load(), ready));
        for flow in here.chain(&listed) {
            flow.ready.store(self.unplaced.clone());
            flow.listed.store(false, Ordering::Release);
            list(flow);
        }
    }

    /// Writes what these flows have and awaits the answers; `false` if the connection is of no use any
    /// more.
    async fn flush(
        &self,
        flows: Vec<Arc<Flow>>,
        connection: &mut MultiplexedConnection,
        volume: &mut Volume,
    ) -> bool {
        let Some((own, incarnation)) = self.flows.own().filter(|_| self.flows.is_valid()) else {
            // Nothing may be said; the tick lists them again when it may.
            flows.iter().for_each(|flow| flow.listed.store(false, Ordering::Release));
            return true;
        };
        let now = Instant::now();
        let mut pipe = redis::pipe();
        pipe.ignore_errors();
        let command = if self.reach.is_cluster() { "SPUBLISH" } else { "PUBLISH" };
        let (mut batch, mut written, mut messages, mut letters) = (Vec::new(), 0, 0, 0);
        let share = (volume.bytes() / flows.len().max(1)).clamp(LEAST_SHARE, FLOW_BYTES);
        // Listed again behind those that had no turn: otherwise these would never have one.
        let mut more = Vec::new();
        for flow in flows {
            flow.listed.store(false, Ordering::Release);
            if written >= volume.bytes() {
                list(&flow);
                continue;
            }
            let mut takens: Vec<Taken> = Vec::new();
            let mut bytes = 0;
            while bytes < share {
                let Some(taken) = self.take(&flow, own, incarnation.instance, now) else { break };
                bytes += taken.message.len();
                letters += u64::from(taken.letters);
                pipe.cmd(command).arg(&flow.channel).arg(&taken.message[..]);
                takens.push(taken);
            }
            if bytes >= share {
                more.push(flow.clone());
            }
            written += bytes;
            messages += takens.len() as u64;
            if !takens.is_empty() {
                batch.push((flow, takens));
            }
        }
        more.iter().for_each(list);
        if batch.is_empty() {
            return true;
        }
        self.metrics.messages[Direction::Sent].increment(messages);
        self.metrics.letters[Direction::Sent].increment(letters);
        self.metrics.bytes[Direction::Sent].increment(written as u64);
        let answers: redis::RedisResult<Vec<redis::RedisResult<u64>>> = pipe.query_async(connection).await;
        match answers {
            Ok(answers) => {
                volume.took(written, now.elapsed());
                self.metrics.flush_seconds.record(now.elapsed());
                self.answered(batch, answers).await;
                true
            }
            Err(error) => {
                tracing::warn!(%error, "redis did not answer a publish; what was under way is not known");
                self.metrics.flush_failures.increment(1);
                volume.failed();
                for (flow, _) in batch {
                    self.flows.end_epoch(&flow, EpochEnd::Unanswered);
                }
                false
            }
        }
    }

    /// The next message of a flow, if it has one.
    fn take(&self, flow: &Flow, own: NodeId, instance: u64, now: Instant) -> Option<Taken> {
        let mut outgoing = flow.outgoing.lock();
        let say = flow.say.swap(false, Ordering::Relaxed);
        if !say && !outgoing.is_ready() {
            return None;
        }
        // What is confirmed here counts as told, so it is asked for only when a message is certain.
        let confirm = flow.incoming.lock().confirm(self.flows.window());
        outgoing.take(own, instance, confirm, say, now)
    }

    /// Takes the answers, in the order of the messages.
    async fn answered(&self, batch: Vec<(Arc<Flow>, Vec<Taken>)>, answers: Vec<redis::RedisResult<u64>>) {
        let mut answers = answers.into_iter();
        for (flow, takens) in batch {
            let mut unheard: Option<&Taken> = None;
            let (mut mixed, mut refused) = (false, false);
            for taken in &takens {
                match answers.next() {
                    Some(Ok(1..)) => mixed |= unheard.is_some(),
                    Some(Ok(0)) => unheard = unheard.or(Some(taken)),
                    Some(Err(error)) => {
                        tracing::debug!(%error, node = %flow.node, "redis refused a message");
                        self.reach.note(&error).await;
                        refused = true;
                        unheard = unheard.or(Some(taken));
                    }
                    None => mixed = true,
                }
            }
            if refused {
                // Another server serves this inbox now.
                flow.ready.store(self.unplaced.clone());
            }
            match unheard {
                // Some of it was heard after some was not: the other node will miss what was not.
                Some(_) if mixed => self.flows.end_epoch(&flow, EpochEnd::Missed),
                Some(taken) => self.flows.unheard(&flow, taken.sequence, Instant::now()),
                None => self.flows.heard(&flow),
            }
        }
    }
}

fn backoff() -> backon::ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(20))
        .with_max_delay(Duration::from_millis(500))
        .with_jitter()
        .without_max_times()
        .build()
}

/// Waits for the next attempt, or for the end.
async fn rest(backoff: &mut backon::ExponentialBackoff, stop: &CancellationToken) {
    let pause = backoff.next().unwrap_or(DOWN_AFTER);
    tokio::select! {
        () = tokio::time::sleep(pause) => {}
        () = stop.cancelled() => {}
    }
}

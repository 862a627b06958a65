//! Pairs of peers that exchange numbered messages and notice every one that is lost, doubled or late.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use culvert_client::{
    ReceiveHalf, ReconnectPolicy, RelayConnection, RelayOptions, RelayTransport, SearchPolicy, SendHalf,
    TopicSecret, TransportConfig, TransportMode,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Longest wait for anything that should happen at once.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) struct Peer {
    pub(crate) transport: RelayTransport,
    pub(crate) connections: mpsc::Receiver<RelayConnection>,
}

impl Peer {
    pub(crate) async fn enter(url: &str, topic: [u8; 32], options: RelayOptions) -> Result<Self> {
        let config = TransportConfig {
            mode: TransportMode::Relay,
            relay_url: Some(url.to_owned()),
            timeout_ms: 20_000,
            ..Default::default()
        };
        let mut transport = RelayTransport::new(config, options)?;
        let connections = transport.connect_relay(topic).await?;
        Ok(Self { transport, connections })
    }

    pub(crate) async fn next(&mut self) -> Result<RelayConnection> {
        timeout(SOON, self.connections.recv()).await.context("no peer came")?.context("the transport ended")
    }
}

pub(crate) fn member(secret: &TopicSecret) -> RelayOptions {
    let reconnect = ReconnectPolicy { longest: Duration::from_secs(2), ..Default::default() };
    let search = SearchPolicy { first: Duration::from_millis(300), ..Default::default() };
    RelayOptions { topic_secret: Some(secret.clone()), reconnect, search, ..Default::default() }
}

/// One direction of a pair.
#[derive(Default)]
struct Flow {
    received: AtomicU64,
    path_changes: AtomicU64,
    /// When the last message came, and the longest time between two since the last look.
    gaps: Mutex<(Option<Instant>, Duration)>,
}

impl Flow {
    fn arrived(&self) {
        let mut gaps = self.gaps.lock().unwrap();
        let now = Instant::now();
        if let Some(last) = gaps.0 {
            gaps.1 = gaps.1.max(now - last);
        }
        gaps.0 = Some(now);
        self.received.fetch_add(1, Ordering::SeqCst);
    }

    /// The longest gap until now, one that still lasts included.
    fn take_gap(&self) -> Duration {
        let mut gaps = self.gaps.lock().unwrap();
        let lasting = gaps.0.map(|last| last.elapsed()).unwrap_or_default();
        std::mem::take(&mut gaps.1).max(lasting)
    }
}

/// Every pair talks in both directions until it is stopped.
pub(crate) struct Talk {
    interval: Duration,
    flows: Vec<Arc<Flow>>,
    seen_changes: Vec<u64>,
    tasks: JoinSet<Result<()>>,
    stop: CancellationToken,
    _peers: Vec<Peer>,
}

/// How long moved pairs were interrupted.
#[derive(Debug)]
#[expect(dead_code, reason = "all of it is printed, and tests ask for some of it")]
pub(crate) struct Pauses {
    pub(crate) moved: usize,
    pub(crate) median: Duration,
    pub(crate) p99: Duration,
    pub(crate) longest: Duration,
}

impl Talk {
    /// `pairs` of peers at `url`, each message `interval` after the one before.
    pub(crate) async fn begin(url: &str, pairs: usize, interval: Duration) -> Result<Self> {
        let mut joining = JoinSet::new();
        for _ in 0..pairs {
            let url = url.to_owned();
            joining.spawn(async move {
                let secret = TopicSecret::generate();
                let mut a = Peer::enter(&url, secret.topic(), member(&secret)).await?;
                let mut b = Peer::enter(&url, secret.topic(), member(&secret)).await?;
                let (to_b, to_a) = (a.next().await?, b.next().await?);
                anyhow::Ok(([a, b], [to_b, to_a]))
            });
        }
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let (mut flows, mut peers) = (Vec::new(), Vec::new());
        while let Some(joined) = joining.join_next().await {
            let (both, [to_b, to_a]) = joined??;
            peers.extend(both);
            let ((send_a, receive_a), (send_b, receive_b)) = (to_b.split(), to_a.split());
            for (send, receive) in [(send_a, receive_b), (send_b, receive_a)] {
                let flow = Arc::new(Flow::default());
                let (done, count) = tokio::sync::oneshot::channel();
                tasks.spawn(send_numbered(send, interval, Arc::clone(&flow), stop.clone(), done));
                tasks.spawn(receive_numbered(receive, Arc::clone(&flow), count));
                flows.push(flow);
            }
        }
        let seen_changes = vec![0; flows.len()];
        let mut talk = Self { interval, flows, seen_changes, tasks, stop, _peers: peers };
        talk.hear_everybody().await?;
        talk.pauses();
        Ok(talk)
    }

    /// Waits until every direction has brought one more message.
    pub(crate) async fn hear_everybody(&mut self) -> Result<()> {
        let before: Vec<_> = self.flows.iter().map(|flow| flow.received.load(Ordering::SeqCst)).collect();
        let flows = &self.flows;
        crate::balancer::until(Duration::from_secs(60), "a message in every direction", || {
            flows.iter().zip(&before).all(|(flow, before)| flow.received.load(Ordering::SeqCst) > *before)
        })
        .await
        .map_err(|error| {
            let silent = flows
                .iter()
                .zip(&before)
                .filter(|(flow, before)| flow.received.load(Ordering::SeqCst) <= **before);
            error.context(format!("{} directions are silent", silent.count()))
        })
    }

    /// The pauses of the pairs that moved since the last call.
    pub(crate) fn pauses(&mut self) -> Pauses {
        let mut pauses = Vec::new();
        for (pair, seen) in self.flows.chunks(2).zip(self.seen_changes.chunks_mut(2)) {
            let gap = pair.iter().map(|flow| flow.take_gap()).max().unwrap_or_default();
            let mut moved = false;
            for (flow, seen) in pair.iter().zip(seen) {
                let changes = flow.path_changes.load(Ordering::SeqCst);
                moved |= std::mem::replace(seen, changes) != changes;
            }
            if moved {
                pauses.push(gap.saturating_sub(self.interval));
            }
        }
        pauses.sort_unstable();
        let share = |percent: usize| pauses.get(pauses.len() * percent / 100).copied().unwrap_or_default();
        Pauses {
            moved: pauses.len(),
            median: share(50),
            p99: share(99),
            longest: pauses.last().copied().unwrap_or_default(),
        }
    }

    /// Stops sending; every message must have arrived once and in order. Gives how many there were.
    pub(crate) async fn end(mut self) -> Result<u64> {
        self.stop.cancel();
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                ended??;
            }
            anyhow::Ok(())
        };
        timeout(Duration::from_secs(60), all).await.context("not everything arrived")??;
        Ok(self.flows.iter().map(|flow| flow.received.load(Ordering::SeqCst)).sum())
    }
}

async fn send_numbered(
    mut send: SendHalf,
    interval: Duration,
    flow: Arc<Flow>,
    stop: CancellationToken,
    done: tokio::sync::oneshot::Sender<u64>,
) -> Result<()> {
    let mut ticks = tokio::time::interval(interval);
    let mut sent = 0_u64;
    while !stop.is_cancelled() {
        ticks.tick().await;
        send.send(Bytes::copy_from_slice(&sent.to_be_bytes())).await?;
        sent += 1;
        flow.path_changes.store(send.stats().path_changes, Ordering::SeqCst);
    }
    done.send(sent).ok().context("the receiver ended first")?;
    send.flush().await?;
    Ok(())
}

async fn receive_numbered(
    mut receive: ReceiveHalf,
    flow: Arc<Flow>,
    mut count: tokio::sync::oneshot::Receiver<u64>,
) -> Result<()> {
    let mut expected = 0_u64;
    let mut total = None;
    while total.is_none_or(|total| expected < total) {
        tokio::select! {
            message = receive.receive() => {
                let message = message?.context("the conversation ended")?;
                ensure!(message[..] == expected.to_be_bytes(), "{message:?} instead of {expected}");
                expected += 1;
                flow.arrived();
            }
            sent = &mut count, if total.is_none() => total = Some(sent.context("the sender ended")?),
        }
    }
    Ok(())
}

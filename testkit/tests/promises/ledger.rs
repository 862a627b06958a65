//! The ledgers that other tests trust see what they are there to see: loss, doubles, disorder and pauses.

use std::time::Duration;

use async_trait::async_trait;
use culvert_client::{Connection, MemoryTransport, TopicSecret};
use culvert_testkit::relay::Cluster;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::common::frames::{Lanes, Load, Tally};
use crate::common::pairs::{Ledger, Traffic, percentile};
use crate::common::{PATIENCE, Pair, message, pair};

const PACE: Duration = Duration::from_millis(5);
const PAUSE: Duration = Duration::from_millis(150);

/// What happens to the fifth message.
#[derive(Clone, Copy)]
enum Fault {
    Lost,
    Doubled,
    Swapped,
    Late,
}

/// A conversation that has a fault on the way.
struct Faulty {
    inner: Box<dyn Connection>,
    fault: Option<Fault>,
    received: u32,
    /// Delivered before anything else.
    kept: Option<Vec<u8>>,
    /// Told of each message that has come this far.
    progress: mpsc::UnboundedSender<u32>,
}

impl Faulty {
    async fn next(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        let message = self.inner.receive().await?;
        self.received += 1;
        let _ = self.progress.send(self.received);
        Ok(message)
    }
}

#[async_trait]
impl Connection for Faulty {
    async fn send(&mut self, data: &[u8]) -> anyhow::Result<()> {
        self.inner.send(data).await
    }

    async fn receive(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        if let Some(kept) = self.kept.take() {
            return Ok(Some(kept));
        }
        let mut message = self.next().await?;
        if self.received == 5 {
            match self.fault {
                None => {}
                Some(Fault::Lost) => message = self.next().await?,
                Some(Fault::Doubled) => self.kept.clone_from(&message),
                Some(Fault::Swapped) => {
                    self.kept = message;
                    message = self.next().await?;
                }
                Some(Fault::Late) => sleep(PAUSE).await,
            }
        }
        Ok(message)
    }

    async fn close(&mut self) -> anyhow::Result<()> {
        self.inner.close().await
    }

    fn peer_id(&self) -> &str {
        self.inner.peer_id()
    }
}

async fn traffic_with(fault: Option<Fault>) -> (Vec<Pair>, Ledger) {
    let secret = TopicSecret::generate();
    let (anna, ben) = (Box::new(MemoryTransport::new()), Box::new(MemoryTransport::new()));
    let mut pair = pair(&secret, anna, ben).await;
    let (progress, mut messages) = mpsc::unbounded_channel();
    pair.ben = Box::new(Faulty { inner: pair.ben, fault, received: 0, kept: None, progress });
    let traffic = Traffic::start(vec![pair], PACE);
    // A pair in which the fifth message came twice receives nothing more, and says so at the end.
    let last = if matches!(fault, Some(Fault::Doubled)) { 5 } else { 6 };
    let enough = async { while messages.recv().await.is_some_and(|received| received < last) {} };
    timeout(Duration::from_secs(20), enough).await.unwrap();
    timeout(Duration::from_secs(20), traffic.end()).await.unwrap()
}

#[tokio::test]
async fn messages_that_arrive_once_and_in_order_balance_and_the_pair_goes_on() {
    let (mut pairs, ledger) = traffic_with(None).await;
    ledger.balances();
    assert!(ledger.messages >= 5, "{}", ledger.messages);
    assert_eq!((ledger.pauses.len(), ledger.delays.len()), (1, 1));
    pairs[0].anna.send(b"still here").await.unwrap();
    assert_eq!(message(&mut pairs[0].ben).await, b"still here");
}

#[tokio::test]
async fn it_goes_on_when_every_pair_does() {
    let secret = TopicSecret::generate();
    let pair = pair(&secret, Box::new(MemoryTransport::new()), Box::new(MemoryTransport::new())).await;
    let traffic = Traffic::start(vec![pair], PACE);
    traffic.goes_on(10, PATIENCE).await;
    let (_pairs, ledger) = traffic.end().await;
    ledger.balances();
    assert!(ledger.messages >= 10, "{}", ledger.messages);
}

#[tokio::test]
#[should_panic(expected = "1 of 1 pairs do not go on")]
async fn it_does_not_go_on_when_one_pair_does_not() {
    let secret = TopicSecret::generate();
    let pair = pair(&secret, Box::new(MemoryTransport::new()), Box::new(MemoryTransport::new())).await;
    // The second message of an hourly pace is not due.
    let traffic = Traffic::start(vec![pair], Duration::from_secs(3600));
    traffic.goes_on(2, Duration::from_millis(100)).await;
}

#[tokio::test]
async fn what_is_lost_doubled_or_out_of_order_is_named() {
    for (fault, sentence) in [
        (Fault::Lost, "pair 0: message 5 came where 4 was due"),
        (Fault::Doubled, "pair 0: message 4 came where 5 was due"),
        (Fault::Swapped, "pair 0: message 5 came where 4 was due"),
    ] {
        assert_eq!(traffic_with(Some(fault)).await.1.wrong, [sentence]);
    }
}

#[tokio::test]
#[should_panic(expected = "1 pairs went wrong")]
async fn a_ledger_that_does_not_balance_fails_its_test() {
    traffic_with(Some(Fault::Lost)).await.1.balances();
}

#[tokio::test]
async fn a_pause_is_measured_as_the_time_without_a_delivery() {
    let (_pairs, ledger) = traffic_with(Some(Fault::Late)).await;
    ledger.balances();
    assert!(ledger.pauses[0] >= PAUSE - PACE, "{:?}", ledger.pauses);
    assert!(ledger.delays[0] >= PAUSE - PACE, "{:?}", ledger.delays);
}

#[test]
fn a_percentile_is_the_smallest_value_that_enough_others_do_not_exceed() {
    let sorted: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
    assert_eq!(percentile(&sorted, 50), Duration::from_millis(100));
    assert_eq!(percentile(&sorted, 99), Duration::from_millis(198));
    assert_eq!(percentile(&sorted, 100), Duration::from_millis(200));
    assert_eq!(percentile(&sorted[..1], 99), Duration::from_millis(1));
    assert_eq!(percentile(&[], 50), Duration::ZERO);
}

#[tokio::test]
async fn frames_across_nodes_that_cannot_reach_each_other_for_a_while_are_all_accounted_for() {
    let cluster = Cluster::open(2).await.unwrap();
    let (one, two) = (&cluster.nodes()[0], &cluster.nodes()[1]);
    let load = Load { frames: 20, every: Duration::from_millis(5) };
    let ways = [(one.addr(), two.addr()), (two.addr(), one.addr()), (one.addr(), one.addr())];
    let lanes = Lanes::start(ways, &one.raw(), load).await;
    lanes.deliver(100, PATIENCE).await;
    cluster.hub().cut(one.id(), two.id());
    lanes.deliver(100, PATIENCE).await;
    cluster.hub().heal(one.id(), two.id());
    lanes.deliver(100, PATIENCE).await;
    let tally = lanes.end().await;
    assert!(tally.delivered >= 300 && tally.definite > 0, "{tally:?}");
}

#[test]
fn a_ledger_of_frames_balances_only_with_every_frame_in_it_once() {
    let good = Tally { sent: 10, delivered: 6, definite: 2, unknown: 3, misplaced: 0, gaps: 1 };
    assert!(good.balances(), "one of those reported unknown arrived, two did not");
    assert!(Tally { unknown: 2, ..good }.balances());
    assert!(!Tally { unknown: 1, ..good }.balances(), "one frame is lost silently");
    assert!(!Tally { delivered: 9, ..good }.balances(), "one frame has a verdict and arrived");
    assert!(!Tally { misplaced: 1, ..good }.balances());
}

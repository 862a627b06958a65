//! How many connections come to a cluster, second by second.

use std::net::SocketAddr;
use std::time::Duration;

use culvert_testkit::relay::Metrics;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

const OFTEN: Duration = Duration::from_millis(250);
const SECOND: Duration = Duration::from_secs(1);

/// Asks all nodes from time to time what they have accepted.
pub(crate) struct Arrivals {
    end: oneshot::Sender<()>,
    watching: JoinSet<Vec<Sample>>,
}

/// What had come until then.
struct Sample {
    at: Instant,
    connections: f64,
}

/// What came while it was looked.
pub(crate) struct Arrived(Vec<Sample>);

impl Arrivals {
    /// Begins to ask.
    pub(crate) fn watch(admin: &[SocketAddr]) -> Self {
        let (end, ended) = oneshot::channel();
        let mut watching = JoinSet::new();
        watching.spawn(watch(admin.to_vec(), ended));
        Self { end, watching }
    }

    /// What has come since.
    pub(crate) async fn end(mut self) -> Arrived {
        drop(self.end);
        Arrived(self.watching.join_next().await.unwrap().unwrap())
    }
}

impl Arrived {
    /// The most that came in a second, by the samples.
    fn most_in_a_second(&self) -> f64 {
        let ends = self.0.iter().enumerate();
        let in_a_second = ends.map(|(index, end)| {
            let within = self.0[..=index].iter().find(|sample| end.at - sample.at <= SECOND);
            end.connections - within.map_or(end.connections, |sample| sample.connections)
        });
        in_a_second.fold(0.0, f64::max)
    }

    /// Says how so many peers that were sent away over this window came. Panics if they came as a crowd.
    pub(crate) fn are_smeared(&self, peers: f64, window: Duration) -> String {
        let all = self.0.last().unwrap().connections - self.0[0].connections;
        let (most, even) = (self.most_in_a_second(), peers / window.as_secs_f64());
        assert!(all >= peers, "only {all} of {peers} came back");
        // Moments that are drawn at random come in clusters: no second of many has four deviations more.
        // As much again for samples that come late on a busy machine.
        let random = even + 4.0 * even.sqrt();
        assert!(most <= 2.0 * random, "{most} in one second is a crowd");
        format!(
            "{all} connections for {peers} peers sent away over {window:?}: at most {most} in a second, \
             {even:.0} if even"
        )
    }
}

async fn watch(admin: Vec<SocketAddr>, mut end: oneshot::Receiver<()>) -> Vec<Sample> {
    let mut ticks = interval(OFTEN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut samples, mut counts) = (Vec::new(), vec![0.0; admin.len()]);
    loop {
        for (count, node) in counts.iter_mut().zip(&admin) {
            // A node that has drained counts no more, and what it had counted stays counted.
            if let Ok(metrics) = Metrics::scrape(*node).await {
                *count = metrics.sum("culvert_relay_accepted_total", &[]);
            }
        }
        samples.push(Sample { at: Instant::now(), connections: counts.iter().sum() });
        tokio::select! {
            _ = ticks.tick() => {}
            _ = &mut end => return samples,
        }
    }
}

/// So many connections in each quarter of a second.
fn arrived(quarters: impl IntoIterator<Item = f64>) -> Arrived {
    let (mut at, mut connections) = (Instant::now(), 0.0);
    let mut samples = vec![Sample { at, connections }];
    for quarter in quarters {
        at += OFTEN;
        connections += quarter;
        samples.push(Sample { at, connections });
    }
    Arrived(samples)
}

#[test]
fn an_even_stream_of_arrivals_is_no_crowd() {
    let even = arrived([25.0; 40]);
    assert_eq!(even.most_in_a_second(), 100.0);
    even.are_smeared(1000.0, 10 * SECOND);
}

#[test]
#[should_panic(expected = "is a crowd")]
fn many_arrivals_in_one_second_are_a_crowd() {
    arrived([0.0, 20.0, 100.0, 150.0, 130.0, 600.0]).are_smeared(1000.0, 10 * SECOND);
}

#[test]
#[should_panic(expected = "came back")]
fn peers_that_do_not_come_back_are_missed() {
    arrived([25.0; 30]).are_smeared(1000.0, 10 * SECOND);
}

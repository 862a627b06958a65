//! The recorder of one node and its rendering.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::Recorder;
use super::family::SECONDS_SUFFIX;

/// Upper bounds of histograms whose name ends in `_seconds`.
///
/// From 100 µs (a frame between two nodes) to a minute (the longest wait a node permits), about 2.5 apart.
pub const SECONDS_BUCKETS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0, 60.0,
];

/// Upper bounds of every other histogram: bytes and counts, powers of four up to 1 MiB.
pub const BYTES_BUCKETS: &[f64] =
    &[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0];

/// Observations wait in memory until they are folded into buckets; this often keeps them few.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// The series of one node; cheap to clone.
#[derive(Clone)]
pub struct Registry {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        let builder = PrometheusBuilder::new();
        let recorder = builder
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS_BUCKETS)
            .and_then(|builder| builder.set_buckets(BYTES_BUCKETS))
            .expect("the bucket lists are not empty")
            .build_recorder();
        let handle = recorder.handle();
        Self { recorder: Arc::new(recorder), handle }
    }

    /// Where sets are registered.
    pub fn recorder(&self) -> &dyn Recorder {
        &*self.recorder
    }

    /// Every series in the Prometheus text format.
    pub fn render(&self) -> String {
        let gauges = format!("{SECONDS_SUFFIX} gauge\n");
        self.handle.render().replace(&gauges, &format!("{SECONDS_SUFFIX} counter\n"))
    }

    /// Folds observations into buckets until dropped; never returns.
    ///
    /// Whoever owns the registry runs it beside the server: without it, and without scrapes, histograms
    /// grow with every observation.
    pub async fn upkeep(&self) {
        let mut ticks = tokio::time::interval(UPKEEP_EVERY);
        loop {
            ticks.tick().await;
            self.handle.run_upkeep();
        }
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

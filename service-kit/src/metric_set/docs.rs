//! What a series is, in words: the source of the help texts and of `docs/metrics.md`.

use std::fmt::Write;

use metrics::Recorder;

/// Documentation of one series.
#[derive(Debug, Clone, Copy)]
pub struct SeriesDoc {
    /// Name as exported.
    pub name: &'static str,
    /// What its numbers are.
    pub kind: SeriesKind,
    /// One or two sentences, from the field's doc comment.
    pub help: &'static str,
    /// Labels in the order of declaration.
    pub labels: &'static [LabelDoc],
}

impl SeriesDoc {
    /// Hands the help text to the recorder.
    pub fn describe(&self, recorder: &dyn Recorder) {
        let (name, help) = (self.name.into(), self.help.into());
        match self.kind {
            SeriesKind::Counter => recorder.describe_counter(name, None, help),
            SeriesKind::Gauge | SeriesKind::Seconds => recorder.describe_gauge(name, None, help),
            SeriesKind::Histogram => recorder.describe_histogram(name, None, help),
        }
    }
}

/// Documentation of one label.
#[derive(Debug, Clone, Copy)]
pub struct LabelDoc {
    /// Label name.
    pub key: &'static str,
    /// Lists every value that it takes.
    pub values: fn() -> Vec<&'static str>,
}

/// What the numbers of a series are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeriesKind {
    /// Only goes up, from zero at start.
    Counter,
    /// The same in seconds, which are no whole numbers.
    Seconds,
    /// Goes up and down.
    Gauge,
    /// Counts observations in buckets.
    Histogram,
}

impl SeriesKind {
    /// The type as Prometheus calls it.
    pub const fn name(self) -> &'static str {
        match self {
            SeriesKind::Counter | SeriesKind::Seconds => "counter",
            SeriesKind::Gauge => "gauge",
            SeriesKind::Histogram => "histogram",
        }
    }
}

/// Renders series as a Markdown table, one row each, in the order given.
pub fn markdown_table(series: &[SeriesDoc]) -> String {
    let mut table = String::from("| Series | Type | Labels | Meaning |\n| --- | --- | --- | --- |\n");
    for doc in series {
        let labels: Vec<String> = doc
            .labels
            .iter()
            .map(|label| format!("`{}` = {}", label.key, (label.values)().join(", ")))
            .collect();
        let labels = if labels.is_empty() { "–".to_owned() } else { labels.join("; ") };
        // Writing to a string does not fail.
        let _ = writeln!(table, "| `{}` | {} | {labels} | {} |", doc.name, doc.kind.name(), doc.help);
    }
    table
}

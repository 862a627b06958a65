//! What is shown while a run goes on, on standard error.
//!
//! A terminal gets one line that is rewritten; anything else gets plain lines, fewer of them in long runs.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::measure::{Count, Sample, Series};
use crate::report::Unit;

/// Series of which percentiles are shown: the first that a scenario has.
const SHOWN: [Series; 6] =
    [Series::OneWay, Series::RoundTrip, Series::Transfer, Series::Reconnect, Series::Join, Series::Connect];
/// Seconds between plain lines in runs of more than [`SHORT`].
const SELDOM: u64 = 10;
/// Runs that get a plain line each second.
const SHORT: Duration = Duration::from_secs(30);

/// What a person sees of a run.
pub struct Live {
    shape: Shape,
    duration: Duration,
    last: String,
}

enum Shape {
    Line(ProgressBar),
    Lines,
    Nothing,
}

/// One second of a run.
pub struct Second<'a> {
    /// What all workers measured in it.
    pub sample: &'a Sample,
    /// Processor time of the relays in it, if it is known.
    pub relays: Option<Duration>,
}

impl Live {
    /// For a run of this length.
    pub fn new(quiet: bool, duration: Duration) -> Self {
        let shape = match () {
            () if quiet => Shape::Nothing,
            () if std::io::stderr().is_terminal() => {
                let line = ProgressBar::new_spinner();
                let style = ProgressStyle::with_template("{spinner} {wide_msg}");
                line.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
                line.enable_steady_tick(Duration::from_millis(200));
                Shape::Line(line)
            }
            () => Shape::Lines,
        };
        Self { shape, duration, last: String::new() }
    }

    /// Says what is being done before and after the measuring.
    pub fn stage(&mut self, text: &str) {
        if self.last == text {
            return;
        }
        text.clone_into(&mut self.last);
        self.say(text);
    }

    /// Says how many connections there are while peers connect.
    pub fn connecting(&mut self, connections: u64, of: usize) {
        if let Shape::Line(line) = &self.shape {
            line.set_message(format!("connecting: {connections} of {of}"));
        }
    }

    /// Shows a second of what is measured.
    pub fn second(&mut self, number: u32, second: &Second<'_>) {
        let is_shown = match self.shape {
            Shape::Line(_) => true,
            Shape::Lines => self.duration <= SHORT || u64::from(number) % SELDOM == 0,
            Shape::Nothing => false,
        };
        if is_shown {
            self.say(&text(second, self.duration));
        }
    }

    /// Takes the line away.
    pub fn end(&self) {
        if let Shape::Line(line) = &self.shape {
            line.finish_and_clear();
        }
    }

    fn say(&self, text: &str) {
        match &self.shape {
            Shape::Line(line) => line.set_message(text.to_owned()),
            // Progress that nobody reads is no reason to end a run.
            Shape::Lines => drop(writeln!(std::io::stderr(), "{text}")),
            Shape::Nothing => {}
        }
    }
}

fn text(Second { sample, relays }: &Second<'_>, duration: Duration) -> String {
    let span = sample.span.as_secs_f64().max(f64::MIN_POSITIVE);
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let rate = sample.count(Count::Delivered) as f64 / span;
    let mut parts = vec![
        whole_seconds(sample.at),
        format!("{} connections", sample.connections),
        format!("{} frames/s", Unit::Count.show(rate.round())),
    ];
    let times = SHOWN.iter().find_map(|series| Some((series, sample.times.get(series)?)));
    if let Some((series, times)) = times
        && let Ok(times) = times.decode()
    {
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let show = |quantile| Unit::Seconds.show(times.value_at_quantile(quantile) as f64 / 1e9);
        parts.push(format!("{} p50 {} p99 {}", series.name(), show(0.5), show(0.99)));
    }
    if let Some(relays) = relays {
        parts.push(format!("relays {:.0} % of a core", 100.0 * relays.as_secs_f64() / span));
    }
    parts.push(format!("{} left", whole_seconds(duration.saturating_sub(sample.at))));
    parts.join(" · ")
}

fn whole_seconds(time: Duration) -> String {
    humantime::format_duration(Duration::from_secs((time + Duration::from_millis(500)).as_secs())).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Recorder;

    #[test]
    fn a_second_is_a_line_with_its_rate_its_percentiles_and_the_time_left() {
        let recorder = Recorder::default();
        recorder.add(Count::Delivered, 3000);
        recorder.record(Series::OneWay, 2_000_000);
        recorder.set_connections(4);
        let sample = recorder.take(Duration::from_secs(3), Duration::from_secs(1));
        let relays = Some(Duration::from_millis(500));
        let line = text(&Second { sample: &sample, relays }, Duration::from_secs(10));
        for part in ["4 connections", "one_way p50 2", "relays 50 % of a core", "3s · ", "7s left"] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
    }
}

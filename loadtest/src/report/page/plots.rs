//! Which plots a run has.

use anyhow::Result;

use super::plot::{Across, Band, LINES, Line, Plot};
use crate::measure::{Count, Series};
use crate::report::figures::{PERCENTILES, percentile};
use crate::report::spans::{Span, Summary, spans};
use crate::report::unit::Unit;
use crate::report::usage::Part;
use crate::report::{ProcessUse, Report, Role};

/// More points than this cannot be told apart.
const POINTS: usize = 120;
/// Shares of values of which the percentile curve is made: so many steps to each nine.
const STEPS_PER_NINE: i32 = 8;

/// All plots of a run that have something to show.
///
/// # Errors
/// A histogram is damaged.
pub(super) fn plots(report: &Report) -> Result<Vec<Plot>> {
    let spans = spans(report, POINTS)?;
    let over_time = OverTime { report, spans: &spans };
    let mut plots = vec![over_time.throughput(), over_time.bytes(), over_time.undelivered()];
    plots.extend(Series::ALL.iter().filter_map(|series| over_time.percentiles(*series)));
    plots.push(curve(report)?);
    plots.extend([
        over_time.cpu_per_frame(),
        over_time.cpu_share(),
        over_time.memory(),
        over_time.memory_per_connection(),
        over_time.connections(),
    ]);
    plots.retain(Plot::has_values);
    Ok(plots)
}

struct OverTime<'a> {
    report: &'a Report,
    spans: &'a [Span],
}

impl OverTime<'_> {
    fn plot(&self, id: &'static str, title: &str, unit: Unit, lines: Vec<Line>, caption: &str) -> Plot {
        let bands = self.report.faults.iter().enumerate().map(|(at, fault)| Band {
            number: at + 1,
            from: fault.at.as_secs_f64(),
            to: (fault.at + fault.lasted).as_secs_f64(),
        });
        Plot {
            id,
            title: title.to_owned(),
            caption: caption.to_owned(),
            across: Across::Time,
            unit,
            spread: false,
            until: self.report.run.measured.as_secs_f64(),
            at: self.spans.iter().map(Span::middle).collect(),
            lines,
            bands: bands.collect(),
        }
    }

    fn line(&self, name: &str, value: impl Fn(&Span) -> Option<f64>) -> Line {
        Line { name: name.to_owned(), values: self.spans.iter().map(value).collect() }
    }

    fn throughput(&self) -> Plot {
        let mut lines = vec![self.line("delivered", |span| Some(span.rate(Count::Delivered)))];
        // Two lines on top of each other say no more than one.
        let is_apart = |span: &Span| {
            let (sent, delivered) = (span.count(Count::Sent), span.count(Count::Delivered));
            sent.abs_diff(delivered) > sent / 50
        };
        if self.spans.iter().any(is_apart) {
            lines.push(self.line("sent", |span| Some(span.rate(Count::Sent))));
        }
        if self.report.total.count(Count::Sent) + self.report.total.count(Count::Delivered) == 0 {
            lines.clear();
        }
        let caption = "Data frames or messages that arrived.";
        self.plot("throughput", "Frames a second", Unit::PerSecond, lines, caption)
    }

    fn undelivered(&self) -> Plot {
        let reasons = self.report.total.undelivered.iter().filter(|(_, number)| **number > 0);
        let lines = reasons.map(|(name, _)| self.line(name, |span| Some(span.undelivered_rate(name))));
        let caption = "Frames that a relay reported as undelivered, by reason.";
        self.plot("undelivered", "Frames not delivered, a second", Unit::PerSecond, lines.collect(), caption)
    }

    fn bytes(&self) -> Plot {
        let any = self.spans.iter().any(|span| span.count(Count::DeliveredBytes) > 0);
        let line = self.line("delivered", |span| Some(span.rate(Count::DeliveredBytes)));
        let lines = if any { vec![line] } else { Vec::new() };
        self.plot("bytes", "Payload bytes a second", Unit::BytesPerSecond, lines, "Payload that arrived.")
    }

    fn percentiles(&self, series: Series) -> Option<Plot> {
        let values = |value: &dyn Fn(&Summary) -> Option<f64>| {
            self.spans.iter().map(|span| span.times.get(&series).and_then(value)).collect::<Vec<_>>()
        };
        let with_values = self.spans.iter().filter(|span| span.times.contains_key(&series)).count();
        if with_values < 2 {
            return None;
        }
        let percentiles = PERCENTILES.iter().enumerate().map(|(at, (_, _, name))| Line {
            name: (*name).to_owned(),
            values: values(&|times| times.percentiles[at]),
        });
        let longest = Line { name: "max".to_owned(), values: values(&|times| Some(times.longest)) };
        let lines = percentiles.chain([longest]).filter(|line| line.values.iter().any(Option::is_some));
        let title = format!("{}, over time", title(series));
        let caption = series.help().trim();
        let plot = self.plot(series.name(), &title, Unit::Seconds, lines.collect(), caption);
        Some(Plot { spread: true, ..plot })
    }

    /// A line for each process of these roles, or one for each role where there are too many to tell apart.
    fn by_process(&self, roles: &[Role], value: impl Fn(&[&ProcessUse], &Span) -> Option<f64>) -> Vec<Line> {
        let line = |name: &str, processes: &[&ProcessUse]| self.line(name, |span| value(processes, span));
        let processes: Vec<_> = roles.iter().flat_map(|role| self.report.of_role(*role)).collect();
        if processes.len() <= LINES.len() {
            return processes.iter().map(|process| line(&process.name, &[*process])).collect();
        }
        let of_role = |role: &Role| {
            let processes: Vec<_> = self.report.of_role(*role).collect();
            let name = match processes.len() {
                0 => return None,
                1 => processes[0].name.clone(),
                many => format!("{} × {many}", role.name()),
            };
            Some(line(&name, &processes))
        };
        roles.iter().filter_map(of_role).collect()
    }

    fn cpu_per_frame(&self) -> Plot {
        let lines = self.by_process(&Role::ALL, |processes, span| {
            let frames = span.count(Count::Delivered);
            (frames > 0).then(|| cpu(processes, span.part).map(|cpu| cpu / frames as f64)).flatten()
        });
        self.plot(
            "cpu-per-frame",
            "Processor time per delivered frame",
            Unit::Seconds,
            lines,
            "Of each process, kernel included, divided by all frames that arrived.",
        )
    }

    fn cpu_share(&self) -> Plot {
        let lines = self.by_process(&Role::ALL, |processes, span| {
            Some(cpu(processes, span.part)? / span.part.length().as_secs_f64())
        });
        self.plot(
            "cpu-share",
            "Share of a processor core",
            Unit::Cores,
            lines,
            "What each process used; 100 % is one core.",
        )
    }

    fn memory(&self) -> Plot {
        let lines = self.by_process(&Role::ALL, |processes, span| {
            let each =
                processes.iter().map(|process| process.resident(span.part.to).map(|bytes| bytes as f64));
            each.sum::<Option<f64>>()
        });
        self.plot("memory", "Resident memory", Unit::Bytes, lines, "Resident memory of each process.")
    }

    fn memory_per_connection(&self) -> Plot {
        let line =
            self.line("relays", |span| self.report.memory_per_connection(span.part.to, span.connections));
        self.plot(
            "memory-per-connection",
            "Relay memory per connection",
            Unit::Bytes,
            vec![line],
            "Growth of resident memory since before the first peer, by open connections.",
        )
    }

    fn connections(&self) -> Plot {
        let line = self.line("open", |span| Some(span.connections as f64));
        self.plot("connections", "Connections", Unit::Count, vec![line], "Connections that were open.")
    }
}

fn cpu(processes: &[&ProcessUse], part: Part) -> Option<f64> {
    processes.iter().map(|process| process.cpu(part)).sum()
}

/// All percentiles of all series of times.
fn curve(report: &Report) -> Result<Plot> {
    let mut decoded = Vec::new();
    for (series, encoded) in &report.total.times {
        let times = encoded.decode()?;
        if !times.is_empty() {
            decoded.push((*series, times));
        }
    }
    let most = decoded.iter().map(|(_, times)| times.len()).max().unwrap_or_default() as f64;
    let steps = (0..).map(|step| 10_f64.powf(f64::from(step) / f64::from(STEPS_PER_NINE)));
    let at: Vec<f64> = steps.take_while(|one_in| *one_in <= most.min(1e7) * 1.000_001).collect();
    let lines = decoded.iter().map(|(series, times)| Line {
        name: series.name().to_owned(),
        values: at.iter().map(|one_in| percentile(times, 1.0 - 1.0 / one_in)).collect(),
    });
    Ok(Plot {
        id: "curve",
        title: "Times by percentile".to_owned(),
        caption: "At most so long, for which share of all values.".to_owned(),
        across: Across::Nines,
        unit: Unit::Seconds,
        spread: true,
        until: 0.0,
        lines: lines.collect(),
        at,
        bands: Vec::new(),
    })
}

/// What a series is called above a plot.
fn title(series: Series) -> String {
    let name = series.name().replace('_', " ");
    let mut letters = name.chars();
    let first = letters.next().map(char::to_uppercase).into_iter().flatten();
    first.chain(letters).chain(" times".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    fn ids(report: &Report) -> Vec<&'static str> {
        plots(report).unwrap().iter().map(|plot| plot.id).collect()
    }

    #[test]
    fn a_run_has_the_plots_for_which_it_has_values() {
        assert_eq!(
            ids(&example::steady()),
            [
                "throughput",
                "bytes",
                "one_way",
                "curve",
                "cpu-per-frame",
                "cpu-share",
                "memory",
                "memory-per-connection",
                "connections"
            ]
        );
        let chaos = ids(&example::chaos());
        assert!(chaos.contains(&"reconnect") && chaos.contains(&"undelivered"), "{chaos:?}");
        let mut idle = example::steady();
        for sample in idle.timeline.iter_mut().chain([&mut idle.total]) {
            sample.counts.clear();
            sample.times.clear();
        }
        assert_eq!(ids(&idle), ["cpu-share", "memory", "memory-per-connection", "connections"]);
    }

    #[test]
    fn every_value_of_a_line_has_its_place() {
        for plot in plots(&example::chaos()).unwrap() {
            for line in &plot.lines {
                assert_eq!(line.values.len(), plot.at.len(), "{}", plot.id);
            }
        }
    }

    #[test]
    fn faults_are_marked_where_time_goes_across() {
        for plot in plots(&example::chaos()).unwrap() {
            let expected = if plot.across == Across::Time { 5 } else { 0 };
            assert_eq!(plot.bands.len(), expected, "{}", plot.id);
        }
    }

    #[test]
    fn many_processes_are_drawn_by_role() {
        let mut report = example::chaos();
        let relay = report.processes[0].clone();
        report.processes.extend(std::iter::repeat_n(relay, 9));
        let plots = plots(&report).unwrap();
        let memory = plots.iter().find(|plot| plot.id == "memory").unwrap();
        let names: Vec<_> = memory.lines.iter().map(|line| line.name.as_str()).collect();
        assert_eq!(names, ["relay × 12", "redis", "haproxy", "worker 1"]);
    }
}

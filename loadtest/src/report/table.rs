//! A run in the terminal, for ten seconds of reading: what was loaded, what got through, how long it took,
//! what it cost. What went wrong comes last, where the eye rests when the output stops.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde_json::Value;

use crate::measure::Count;
use crate::report::figures::{PERCENTILES, figures, verdict_sentence};
use crate::report::unit::{Unit, grouped};
use crate::report::{Figures, Report, Role};
use crate::scenario::Scenario;
use culvert_wire::{Close, Verdict};

/// Where the width of the terminal is not known.
const WIDTH: u16 = 80;
/// Lines longer than this are hard to read.
const WIDEST: u16 = 120;
/// Rows of numbers are not broken for a terminal narrower than this.
const NUMBERS: u16 = 76;
/// What there is no figure for.
const ABSENT: &str = "–";

/// The table, as wide as the terminal is.
pub fn table(report: &Report) -> String {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    table_in(report, size.map(|size| size.ws_col).filter(|columns| *columns > 0).unwrap_or(WIDTH))
}

/// The table, so many columns wide.
pub fn table_in(report: &Report, width: u16) -> String {
    let width = width.min(WIDEST);
    let figures = figures(report);
    let sections = [
        headline(report, width),
        throughput(report, &figures, width),
        times(&figures, width),
        reasons("NOT DELIVERED", &report.total.undelivered, verdict_meaning, width),
        reasons("CLOSED", &report.total.closed, close_meaning, width),
        cost(report, &figures, width),
        sentences("DONE ON PURPOSE", &report.fault_sentences(), width),
        sentences("NOTES", &report.notes, width),
        verdict(report, width),
    ];
    let written = sections.into_iter().filter(|section| !section.is_empty());
    let mut text = written.collect::<Vec<_>>().join("\n\n");
    text.push('\n');
    // A sentence may quote what a relay said, which is not to drive the terminal.
    text.retain(|character| character == '\n' || !character.is_control());
    text
}

/// What a scenario was told, a word each: `pairs 50`.
pub(super) fn settings(scenario: &Scenario) -> Vec<(String, String)> {
    let Ok(Value::Object(settings)) = serde_json::to_value(scenario) else { return Vec::new() };
    let told = settings.into_iter().filter(|(name, value)| name != "scenario" && !value.is_null());
    let told = told.map(|(name, value)| (name.replace('_', "-"), setting(&value)));
    told.filter(|(_, value)| !value.is_empty()).collect()
}

fn setting(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.as_f64().map_or(number.to_string(), |number| number.to_string()),
        Value::Array(values) => values.iter().map(setting).collect::<Vec<_>>().join(","),
        // A duration.
        Value::Object(parts) => match (parts.get("secs").and_then(Value::as_u64), parts.get("nanos")) {
            (Some(seconds), Some(nanos)) => {
                Unit::Seconds.brief(seconds as f64 + nanos.as_f64().unwrap_or_default() / 1e9)
            }
            _ => value.to_string(),
        },
        other => other.to_string(),
    }
}

fn headline(report: &Report, width: u16) -> String {
    let run = &report.run;
    let settings = settings(&report.scenario).into_iter();
    // What is switched off need not be read; the page has it.
    let switched_on = settings.filter(|(_, value)| value != "0" && value != "false");
    let told: Vec<_> = switched_on.map(|(name, value)| format!("{name} {value}")).collect();
    let commit = run.commit.as_ref().map(|commit| format!(" ({commit})")).unwrap_or_default();
    let workers = if run.workers == 1 { "1 worker".to_owned() } else { format!("{} workers", run.workers) };
    let mut lines = plain(width);
    lines.add_row(["load", &format!("{}: {}", report.scenario.name(), told.join(", "))]);
    lines.add_row(["on", &run.target]);
    lines.add_row([
        "for",
        &format!(
            "{}, after {} of warm-up, with {workers}",
            Unit::Seconds.brief(run.measured.as_secs_f64()),
            Unit::Seconds.brief(run.warm_up.as_secs_f64()),
        ),
    ]);
    lines.add_row(["from", &format!("{}; culvert-loadtest {}{commit}", run.machine, run.version)]);
    rendered(&mut lines)
}

fn throughput(report: &Report, figures: &Figures, width: u16) -> String {
    let show = |name: &str, unit: Unit| figures.get(name).map(|value| unit.show(*value));
    let mut lines = plain(width);
    if report.total.count(Count::Sent) > 0 {
        let span = report.timeline.first().map_or(1.0, |sample| sample.span.as_secs_f64().round());
        let span = if span > 1.0 { Unit::Seconds.brief(span) } else { "second".to_owned() };
        let rates = [
            show("frames_per_second", Unit::PerSecond).map(|rate| rate.replace('/', " frames/")),
            show("bytes_per_second", Unit::BytesPerSecond),
            show("frames_per_second.min", Unit::PerSecond).map(|rate| format!("slowest {span} {rate}")),
        ];
        lines.add_row(["delivered", &rates.into_iter().flatten().collect::<Vec<_>>().join(", ")]);
        lines.add_row(["frames", &ledger(report)]);
    }
    let mut connections =
        vec![format!("{} open at most", show("connections", Unit::Count).unwrap_or_default())];
    for (name, what) in [("connects_per_second", "connected"), ("joins_per_second", "joined")] {
        connections.extend(show(name, Unit::PerSecond).map(|rate| format!("{what} {rate}")));
    }
    for (count, what) in [
        (Count::ConnectFailures, "attempts to connect failed"),
        (Count::Disconnected, "lost"),
        (Count::JoinsRefused, "joins refused"),
    ] {
        let number = report.total.count(count);
        connections.extend((number > 0).then(|| format!("{} {what}", grouped(number as f64))));
    }
    lines.add_row(["connections", &connections.join(", ")]);
    if report.total.count(Count::Files) > 0 {
        let rate = show("files_per_second", Unit::PerSecond).unwrap_or_default();
        lines.add_row(["files", &format!("{} whole, {rate}", report.total.count(Count::Files))]);
    }
    titled("THROUGHPUT", &mut lines)
}

/// What became of all frames.
fn ledger(report: &Report) -> String {
    let count = |count| report.total.count(count);
    let show = |number: u64| Unit::Count.show(number as f64);
    let mut parts = vec![
        format!("{} sent", show(count(Count::Sent))),
        format!("{} delivered", show(count(Count::Delivered))),
    ];
    let undelivered = report.total.undelivered.values().sum();
    for (number, what) in [
        (undelivered, "reported as undelivered"),
        (count(Count::Gaps), "in gaps"),
        (count(Count::Duplicated), "twice"),
        (count(Count::Reordered), "out of order"),
        (count(Count::Missing), "MISSING"),
    ] {
        parts.extend((number > 0).then(|| format!("{} {what}", show(number))));
    }
    parts.join(", ")
}

fn times(figures: &Figures, width: u16) -> String {
    let mut table = plain(width.max(NUMBERS));
    let percentiles = PERCENTILES.map(|(_, _, name)| name);
    table.set_header(["TIMES"].iter().chain(&percentiles).chain(&["max", "values"]));
    for series in crate::measure::Series::ALL {
        let name = series.name();
        let Some(values) = figures.get(&format!("{name}.count")) else { continue };
        let time = |suffix: &str| {
            let time = figures.get(&format!("{name}.{suffix}"));
            time.map_or(ABSENT.to_owned(), |time| Unit::Seconds.show(*time))
        };
        let mut row = vec![name.to_owned()];
        row.extend(PERCENTILES.iter().map(|(suffix, ..)| time(suffix)));
        row.extend([time("max"), Unit::Count.show(*values)]);
        table.add_row(row);
    }
    align_right(&mut table, 1..);
    if table.is_empty() { String::new() } else { rendered(&mut table) }
}

fn reasons(
    title: &str,
    numbers: &std::collections::BTreeMap<String, u64>,
    meaning: fn(&str) -> &'static str,
    width: u16,
) -> String {
    let mut largest: Vec<_> = numbers.iter().filter(|(_, number)| **number > 0).collect();
    largest.sort_by_key(|(_, number)| std::cmp::Reverse(**number));
    let all = numbers.values().sum::<u64>() as f64;
    let mut table = plain(width);
    table.set_header([title, "number", "share", "why"]);
    for (name, number) in &largest {
        let number = **number as f64;
        table.add_row([
            name.as_str(),
            &Unit::Count.show(number),
            &Unit::Share.show(number / all),
            meaning(name),
        ]);
    }
    align_right(&mut table, 1..3);
    if largest.is_empty() { String::new() } else { rendered(&mut table) }
}

/// What a verdict of that name means.
pub(super) fn verdict_meaning(name: &str) -> &'static str {
    let verdict = Verdict::ALL.iter().find(|verdict| verdict.name() == name);
    verdict.map_or("", |verdict| verdict_sentence(*verdict))
}

/// What a close of that name means.
pub(super) fn close_meaning(name: &str) -> &'static str {
    Close::ALL.iter().find(|close| close.name() == name).map_or("", |close| close.sentence())
}

fn cost(report: &Report, figures: &Figures, width: u16) -> String {
    let mut table = plain(width.max(NUMBERS));
    table.set_header(["COST", "cores", "CPU/frame", "bytes/CPU s", "CPU/connect", "memory, most"]);
    for role in Role::ALL {
        let processes = report.of_role(role).count();
        if processes == 0 {
            continue;
        }
        let name = role.name();
        let cell = |prefix: &str, unit: Unit| {
            let value = figures.get(&format!("{prefix}.{name}"));
            value.map_or(ABSENT.to_owned(), |value| unit.show(*value))
        };
        let memory = figures.get(&format!("resident.{name}.max"));
        table.add_row([
            if processes == 1 { name.to_owned() } else { format!("{name} ×{processes}") },
            cell("cores", Unit::Cores),
            cell("cpu_per_frame", Unit::Seconds),
            cell("bytes_per_cpu_second", Unit::BytesPerSecond),
            cell("cpu_per_connection", Unit::Seconds),
            memory.map_or(ABSENT.to_owned(), |bytes| Unit::Bytes.show(*bytes)),
        ]);
    }
    align_right(&mut table, 1..);
    let each = figures.get("memory_per_connection").map(|bytes| {
        format!(
            "{} of relay memory per connection, at {} connections",
            Unit::Bytes.show(*bytes),
            grouped(figures.get("connections").copied().unwrap_or_default()),
        )
    });
    let mut parts = Vec::new();
    parts.extend((!table.is_empty()).then(|| rendered(&mut table)));
    parts.extend(each);
    parts.join("\n")
}

fn sentences(title: &str, sentences: &[String], width: u16) -> String {
    if sentences.is_empty() {
        return String::new();
    }
    let mut lines = plain(width);
    for sentence in sentences {
        lines.add_row(["·", sentence]);
    }
    titled(title, &mut lines)
}

fn verdict(report: &Report, width: u16) -> String {
    if report.failures.is_empty() {
        return String::new();
    }
    let mut lines = plain(width);
    for (at, failure) in report.failures.iter().enumerate() {
        lines.add_row([&format!("{}.", at + 1), failure]);
    }
    let rule = "━".repeat(usize::from(width.min(WIDTH)));
    format!("{rule}\n{}", titled("THE RUN FAILED", &mut lines))
}

impl Report {
    /// What was done on purpose, a sentence each.
    pub(super) fn fault_sentences(&self) -> Vec<String> {
        let sentence = |fault: &crate::report::Fault| {
            let (at, lasted) = (fault.at.as_secs_f64(), fault.lasted.as_secs_f64());
            format!("at {}, for {}: {}", Unit::Seconds.brief(at), Unit::Seconds.brief(lasted), fault.what)
        };
        self.faults.iter().map(sentence).collect()
    }
}

fn titled(title: &str, lines: &mut Table) -> String {
    format!("{title}\n{}", rendered(lines))
}

/// A table without lines, which wraps what does not fit.
pub(super) fn plain(width: u16) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_width(width).set_content_arrangement(ContentArrangement::Dynamic);
    table
}

/// The table as text, from the first column on.
pub(super) fn rendered(table: &mut Table) -> String {
    if let Some(first) = table.column_mut(0) {
        first.set_padding((0, 1));
    }
    table.trim_fmt()
}

pub(super) fn align_right(table: &mut Table, columns: impl std::ops::RangeBounds<usize>) {
    let right = table.column_iter_mut().enumerate().filter(|(at, _)| columns.contains(at));
    right.for_each(|(_, column)| column.set_cell_alignment(CellAlignment::Right));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    #[test]
    fn a_run_reads_well_in_eighty_columns() {
        for report in [example::steady(), example::chaos()] {
            let text = table_in(&report, 80);
            println!("{text}");
            let longest = text.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(longest <= 80, "{longest} columns:\n{text}");
            assert!(text.lines().all(|line| line.trim_end() == line), "{text}");
        }
    }

    #[test]
    fn a_narrow_terminal_wraps_and_loses_nothing() {
        let report = example::chaos();
        let narrow = table_in(&report, 50);
        for word in ["one_way", "unreachable", "relay ×3", "THE RUN FAILED", "missing"] {
            assert!(narrow.contains(word), "{word}:\n{narrow}");
        }
    }

    #[test]
    fn the_table_says_what_was_measured_in_units_for_people() {
        let text = table_in(&example::steady(), 80);
        for expected in
            ["steady: ", "1 relay of this program", "k frames/s", "p99.9", " ms", "1.01 µs", "KiB"]
        {
            assert!(text.contains(expected), "{expected}:\n{text}");
        }
        assert!(!text.contains("FAILED") && !text.contains("NOT DELIVERED"), "{text}");
    }

    #[test]
    fn failures_come_last_and_are_unmistakable() {
        let report = example::chaos();
        let text = table_in(&report, 80);
        let failed = text.find("THE RUN FAILED").unwrap();
        assert!(text[failed..].contains(&report.failures[0]), "{text}");
        assert!(text.find("NOTES").unwrap() < failed && text.find("NOT DELIVERED").unwrap() < failed);
    }

    #[test]
    fn what_a_relay_said_does_not_drive_the_terminal() {
        let mut report = example::steady();
        report.notes = vec!["refused: \u{1b}[2J\u{7}gone".into()];
        assert!(table_in(&report, 80).contains("refused: [2Jgone"));
    }

    #[test]
    fn what_was_not_measured_is_not_shown_as_zero() {
        let mut report = example::steady();
        report.processes.clear();
        report.total.times.clear();
        let text = table_in(&report, 80);
        assert!(!text.contains("COST") && !text.contains("TIMES"), "{text}");
    }
}

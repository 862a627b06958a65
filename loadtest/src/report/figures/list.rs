//! The list of all figures, and what each means: for thresholds, comparisons, pages and the README.

use std::fmt::Write;
use std::sync::LazyLock;

use culvert_wire::{Close, Verdict};

use super::PERCENTILES;
use crate::measure::{Count, Series};
use crate::report::Role;
use crate::report::unit::Unit;

/// Which direction is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
    /// It describes the load, not how well it was carried.
    Neither,
}

/// A figure that a report may have.
#[derive(Debug, Clone)]
pub struct Figure {
    /// Its name in thresholds and comparisons.
    pub name: String,
    /// What it is in.
    pub unit: Unit,
    /// Which direction is better.
    pub better: Better,
    /// A sentence.
    pub meaning: String,
    /// The heading under which people look for it.
    pub group: Group,
}

/// Headings, in the order in which people read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// How much got through.
    Throughput,
    /// How long it took.
    Times,
    /// What did not get through, and why.
    Undelivered,
    /// Connections that a relay ended, and why.
    Closed,
    /// What processors and memory it cost.
    Cost,
    /// What was counted.
    Counts,
}

impl Group {
    /// All of them.
    pub const ALL: [Group; 6] =
        [Group::Throughput, Group::Times, Group::Undelivered, Group::Closed, Group::Cost, Group::Counts];

    /// The heading.
    pub fn title(self) -> &'static str {
        match self {
            Group::Throughput => "Throughput",
            Group::Times => "Times",
            Group::Undelivered => "Not delivered",
            Group::Closed => "Connections that a relay ended",
            Group::Cost => "Cost",
            Group::Counts => "Counts",
        }
    }
}

/// Rates of counts that people ask for.
pub(super) const RATES: [(Count, &str, &str, Better); 5] = [
    (
        Count::Delivered,
        "frames_per_second",
        "Data frames or messages that arrived, a second, on average.",
        Better::Higher,
    ),
    (
        Count::Sent,
        "sent_per_second",
        "Data frames or messages handed to a socket or a session, a second, on average.",
        Better::Neither,
    ),
    (
        Count::Connected,
        "connects_per_second",
        "Connections from dial to welcome, a second, on average; absent if there were none.",
        Better::Higher,
    ),
    (
        Count::Joined,
        "joins_per_second",
        "Topics joined, a second, on average; absent if there were none.",
        Better::Higher,
    ),
    (
        Count::Files,
        "files_per_second",
        "Files that arrived whole, a second; absent if there were none.",
        Better::Higher,
    ),
];

/// Every figure that a report may have, by group.
pub fn known() -> &'static [Figure] {
    static KNOWN: LazyLock<Vec<Figure>> = LazyLock::new(list);
    &KNOWN
}

/// The figure of that name.
pub fn figure(name: &str) -> Option<&'static Figure> {
    known().iter().find(|figure| figure.name == name)
}

fn list() -> Vec<Figure> {
    let mut list = Vec::new();
    let mut add = |group, name: &str, unit, better, meaning: &str| {
        let (name, meaning) = (name.to_owned(), meaning.to_owned());
        list.push(Figure { name, unit, better, meaning, group });
    };
    let (higher, lower, neither) = (Better::Higher, Better::Lower, Better::Neither);

    for (_, name, meaning, better) in RATES {
        add(Group::Throughput, name, Unit::PerSecond, better, meaning);
    }
    add(
        Group::Throughput,
        "frames_per_second.min",
        Unit::PerSecond,
        higher,
        "The same in the slowest second; of runs longer than 15 minutes, in the slowest point of the timeline, \
         which is of several seconds.",
    );
    add(
        Group::Throughput,
        "bytes_per_second",
        Unit::BytesPerSecond,
        higher,
        "Payload bytes that arrived, a second, on average.",
    );

    for series in Series::ALL {
        let (name, help) = (series.name(), series.help().trim());
        for (suffix, quantile, _) in PERCENTILES {
            let share = quantile * 100.0;
            let meaning = format!("{share} % of the times were at most this. {help}");
            add(Group::Times, &format!("{name}.{suffix}"), Unit::Seconds, lower, &meaning);
        }
        add(Group::Times, &format!("{name}.max"), Unit::Seconds, lower, &format!("The longest. {help}"));
        add(Group::Times, &format!("{name}.mean"), Unit::Seconds, lower, &format!("The average. {help}"));
        add(
            Group::Times,
            &format!("{name}.count"),
            Unit::Count,
            neither,
            &format!("How many times were recorded. {help}"),
        );
    }

    add(
        Group::Undelivered,
        "undelivered",
        Unit::Count,
        lower,
        "Frames that a relay reported as undelivered, whatever the reason.",
    );
    add(
        Group::Undelivered,
        "undelivered_share",
        Unit::Share,
        lower,
        "The part of all frames that arrived or were reported as undelivered that the latter are.",
    );
    for verdict in Verdict::ALL {
        let meaning = format!("Frames reported as undelivered: {}.", verdict_sentence(*verdict));
        add(Group::Undelivered, &format!("undelivered.{}", verdict.name()), Unit::Count, lower, &meaning);
    }

    add(Group::Closed, "closed", Unit::Count, lower, "Connections that a relay ended, whatever the reason.");
    for close in Close::ALL {
        let meaning = format!("Connections that a relay ended: {}.", close.sentence());
        add(Group::Closed, &format!("closed.{}", close.name()), Unit::Count, lower, &meaning);
    }

    for role in Role::ALL {
        let (name, who) = (role.name(), role.plural());
        for (prefix, unit, better, meaning) in [
            (
                "cpu_per_frame",
                Unit::Seconds,
                lower,
                format!("Processor time of {who}, kernel included, for each data frame that arrived."),
            ),
            (
                "cpu_per_connection",
                Unit::Seconds,
                lower,
                format!(
                    "Processor time of {who} for each connection made; absent where more than ten frames arrived for each."
                ),
            ),
            (
                "bytes_per_cpu_second",
                Unit::BytesPerSecond,
                higher,
                format!("Payload bytes that arrived for each second of processor time of {who}."),
            ),
            ("cores", Unit::Cores, neither, format!("Cores that {who} together kept busy, on average.")),
        ] {
            add(Group::Cost, &format!("{prefix}.{name}"), unit, better, &meaning);
        }
        add(
            Group::Cost,
            &format!("resident.{name}.max"),
            Unit::Bytes,
            lower,
            &format!("Most resident memory that one process had: {who}."),
        );
        add(
            Group::Cost,
            &format!("resident_growth.{name}"),
            Unit::Share,
            lower,
            &format!(
                "By how much a process ({who}) exceeded, later, the most resident memory that it had in the \
                 first sixth of the time, at most five minutes; negative if none did."
            ),
        );
    }
    add(
        Group::Cost,
        "memory_per_connection",
        Unit::Bytes,
        lower,
        "By how much the resident memory of all relays together grew since before the first peer connected, \
         for each connection, in the last second in which most connections were open. Of few connections it is \
         mostly what a relay needs anyway.",
    );

    add(Group::Counts, "measured", Unit::Seconds, neither, "How long was measured, without the warm-up.");
    add(
        Group::Counts,
        "connections",
        Unit::Count,
        neither,
        "Most connections that were open at the end of a second.",
    );
    for count in Count::ALL {
        let unit = match count {
            Count::SentBytes | Count::DeliveredBytes => Unit::Bytes,
            _ => Unit::Count,
        };
        let better = match count {
            Count::Delivered | Count::DeliveredBytes | Count::Files => higher,
            Count::Missing
            | Count::Duplicated
            | Count::Reordered
            | Count::Gaps
            | Count::ConnectFailures
            | Count::Disconnected
            | Count::JoinsRefused => lower,
            _ => neither,
        };
        add(Group::Counts, count.name(), unit, better, count.help().trim());
    }
    add(
        Group::Counts,
        "faults",
        Unit::Count,
        neither,
        "What was done to relays and Redis on purpose, how many times.",
    );
    add(Group::Counts, "failures", Unit::Count, lower, "Reasons for which the run failed.");
    list
}

/// What a verdict means, for people who load a relay.
pub(crate) fn verdict_sentence(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Gone => "the receiver was no longer connected, or no longer in the topic",
        Verdict::Unreachable => "the receiver's node could not be reached",
        Verdict::Full => "the receiver's queue, or the sender's share of it, was full",
        Verdict::Limited => "the sender was over one of its limits",
        Verdict::NotAllowed => "the sender was not in the topic, or might not use that class",
        Verdict::Unknown => "the node lost touch while they were under way; they may have arrived",
    }
}

/// What every figure means, for `loadtest/README.md`.
pub fn markdown() -> String {
    let mut text = String::new();
    for group in Group::ALL {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "### {}\n", group.title());
        if group == Group::Times {
            text.push_str(&markdown_of_times());
            continue;
        }
        text.push_str("| figure | in | better | meaning |\n| --- | --- | --- | --- |\n");
        for figure in known().iter().filter(|figure| figure.group == group) {
            let better = match figure.better {
                Better::Higher => "more",
                Better::Lower => "less",
                Better::Neither => "",
            };
            let meaning = figure.meaning.replace('|', "\\|");
            let _ = writeln!(text, "| `{}` | {} | {better} | {meaning} |", figure.name, figure.unit.name());
        }
        text.push('\n');
    }
    text
}

fn markdown_of_times() -> String {
    let mut text = String::from(
        "Each of these has `.p50`, `.p90`, `.p99`, `.p999` (so many per cent of the times were at most this: 50, \
         90, 99,\n99.9), `.max`, `.mean`, all in seconds, less is better, and `.count`, the number of times. They \
         are percentiles of\nall values of all workers, not averages of percentiles. A percentile is there only \
         if at least one value lies\nbeyond it: `.p999` needs 1,000 values. `p99` alone is short for `one_way.p99`, \
         or for `round_trip.p99` where\nthere is no one-way time.\n\n| figures | meaning |\n| --- | --- |\n",
    );
    for series in Series::ALL {
        let _ = writeln!(text, "| `{}.*` | {} |", series.name(), series.help().trim());
    }
    text.push('\n');
    text
}

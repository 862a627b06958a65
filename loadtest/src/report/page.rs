//! A run as one HTML file that opens anywhere: nothing in it is fetched, and nothing that a report holds can
//! run.
//!
//! The file's own content security policy forbids every request and every script but the one that offers the
//! embedded JSON for download. Every text is escaped by the template; the embedded JSON has no `<`.

mod plot;
mod plots;
mod scale;

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result};
use askama::Template;
use aws_lc_rs::digest;
use data_encoding::BASE64;

use self::plot::{Plot, dark_rules, swatch_rules};
use crate::report::figures::{Group, figures, known};
use crate::report::table::{close_meaning, settings, verdict_meaning};
use crate::report::unit::Unit;
use crate::report::{Figures, Report, Role};

/// The only script: hands the embedded report to whoever asks for it.
const SCRIPT: &str = "document.getElementById('save').addEventListener('click',function(){\
var link=document.createElement('a');\
link.href=URL.createObjectURL(new Blob([document.getElementById('report').textContent],{type:'application/json'}));\
link.download='culvert-loadtest.json';link.click();URL.revokeObjectURL(link.href);});";

/// Figures at the top of the page, the first few of these that there are.
const HIGHLIGHTS: [(&str, &str); 13] = [
    ("frames_per_second", "frames delivered"),
    ("bytes_per_second", "payload delivered"),
    ("one_way.p50", "one way, median"),
    ("one_way.p99", "one way, p99"),
    ("round_trip.p50", "round trip, median"),
    ("round_trip.p99", "round trip, p99"),
    ("reconnect.p99", "reconnect, p99"),
    ("connect.p99", "connect, p99"),
    ("cpu_per_frame.relay", "relay CPU per frame"),
    ("cpu_per_connection.relay", "relay CPU per connect"),
    ("memory_per_connection", "memory per connection"),
    ("connections", "connections"),
    ("undelivered", "undelivered"),
];
const TILES: usize = 8;

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    policy: String,
    script: &'static str,
    dark_rules: String,
    light_swatches: String,
    dark_swatches: String,
    report: &'a Report,
    title: String,
    started: String,
    tiles: Vec<Tile>,
    facts: Vec<(&'static str, String)>,
    settings: Vec<(String, String)>,
    faults: Vec<String>,
    plots: Vec<Shown>,
    reasons: Vec<(&'static str, Vec<Reason>)>,
    processes: Vec<Process>,
    figures: Vec<(&'static str, Vec<Row>)>,
    json: String,
}

struct Tile {
    label: &'static str,
    number: String,
    unit: String,
}

/// A plot as the page shows it.
struct Shown {
    id: &'static str,
    title: String,
    caption: String,
    is_logarithmic: bool,
    svg: String,
    first_column: &'static str,
    legend: Vec<(usize, String)>,
    rows: Vec<Vec<String>>,
}

struct Reason {
    name: String,
    number: String,
    share: String,
    /// Of the longest bar, in per cent.
    width: String,
    meaning: &'static str,
}

struct Process {
    name: String,
    role: &'static str,
    cores: String,
    cpu: String,
    before: String,
    most: String,
    last: String,
}

struct Row {
    name: &'static str,
    shown: String,
    exact: String,
    meaning: &'static str,
}

/// The page of a run.
///
/// # Errors
/// A histogram is damaged, or a plot cannot be drawn.
pub fn page(report: &Report) -> Result<String> {
    let figures = figures(report);
    let [light_swatches, dark_swatches] = swatch_rules();
    let plots = plots::plots(report)?;
    let page = Page {
        policy: policy(),
        script: SCRIPT,
        dark_rules: dark_rules(),
        light_swatches,
        dark_swatches,
        report,
        title: title(report, &figures),
        started: started(report),
        tiles: tiles(&figures),
        facts: facts(report),
        settings: settings(&report.scenario),
        faults: report.fault_sentences(),
        plots: plots.iter().map(shown).collect::<Result<_>>()?,
        reasons: vec![
            ("Not delivered, by reason", reasons(&report.total.undelivered, verdict_meaning)),
            ("Connections that a relay ended, by reason", reasons(&report.total.closed, close_meaning)),
        ],
        processes: report.processes.iter().map(|process| process_row(report, process)).collect(),
        figures: figure_rows(&figures),
        // A closing tag in it would end the script element.
        json: serde_json::to_string(report).context("the report is not JSON")?.replace('<', "\\u003c"),
    };
    page.render().context("the page's template cannot be filled")
}

/// Nothing may be fetched, and no script but ours may run.
fn policy() -> String {
    let hash = BASE64.encode(digest::digest(&digest::SHA256, SCRIPT.as_bytes()).as_ref());
    format!(
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'"
    )
}

fn title(report: &Report, figures: &Figures) -> String {
    let rate = figures.get("frames_per_second").filter(|rate| **rate > 0.0);
    match rate {
        Some(rate) => {
            format!("{}: {}", report.scenario.name(), Unit::PerSecond.brief(*rate).replace('/', " frames/"))
        }
        None => report.scenario.name().to_owned(),
    }
}

fn started(report: &Report) -> String {
    let started = UNIX_EPOCH + Duration::from_secs(report.run.started_at);
    humantime::format_rfc3339_seconds(started).to_string().replace('T', " ").replace('Z', " UTC")
}

fn tiles(figures: &Figures) -> Vec<Tile> {
    let there = HIGHLIGHTS.iter().filter_map(|(name, label)| {
        let value = figures.get(*name)?;
        let always = matches!(*name, "undelivered" | "connections");
        let unit = crate::report::figure(name)?.unit;
        let shown = unit.show(*value);
        let (number, unit) = match shown.split_once([' ', '/']) {
            Some((number, _)) => (number.to_owned(), shown[number.len()..].trim_start().to_owned()),
            None => (shown, String::new()),
        };
        (*value > 0.0 || always).then_some(Tile { label, number, unit })
    });
    there.take(TILES).collect()
}

fn facts(report: &Report) -> Vec<(&'static str, String)> {
    let run = &report.run;
    let seconds = |duration: Duration| Unit::Seconds.brief(duration.as_secs_f64());
    let commit = run.commit.as_ref().map(|commit| format!(", commit {commit}")).unwrap_or_default();
    vec![
        ("Target", run.target.clone()),
        ("Machine", run.machine.clone()),
        ("Measured", format!("{}, after {} of warm-up", seconds(run.measured), seconds(run.warm_up))),
        ("Workers", run.workers.to_string()),
        ("Program", format!("culvert-loadtest {}{commit}", run.version)),
    ]
}

fn shown(plot: &Plot) -> Result<Shown> {
    Ok(Shown {
        id: plot.id,
        title: plot.title.clone(),
        caption: plot.caption.clone(),
        is_logarithmic: plot.is_logarithmic(),
        svg: plot.svg()?,
        first_column: if plot.across == plot::Across::Time { "at" } else { "of values" },
        legend: plot
            .lines
            .iter()
            .enumerate()
            .map(|(at, line)| (at % plot::LINES.len(), line.name.clone()))
            .collect(),
        rows: plot.rows(),
    })
}

fn reasons(numbers: &BTreeMap<String, u64>, meaning: fn(&str) -> &'static str) -> Vec<Reason> {
    let mut largest: Vec<_> = numbers.iter().filter(|(_, number)| **number > 0).collect();
    largest.sort_by_key(|(_, number)| std::cmp::Reverse(**number));
    let all = numbers.values().sum::<u64>() as f64;
    let most = largest.first().map_or(1.0, |(_, number)| **number as f64);
    let reason = |(name, number): &(&String, &u64)| Reason {
        name: (*name).clone(),
        number: Unit::Count.show(**number as f64),
        share: Unit::Share.show(**number as f64 / all),
        width: format!("{:.1}", **number as f64 / most * 100.0),
        meaning: meaning(name),
    };
    largest.iter().map(reason).collect()
}

fn process_row(report: &Report, process: &crate::report::ProcessUse) -> Process {
    let whole = crate::report::usage::Part { from: Duration::ZERO, to: report.run.measured };
    let cpu = process.cpu(whole);
    let known = process.points.last().map(|point| point.at.min(report.run.measured));
    let bytes = |bytes: Option<u64>| {
        bytes.filter(|bytes| *bytes > 0).map_or("–".to_owned(), |bytes| Unit::Bytes.show(bytes as f64))
    };
    let or_absent = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
    Process {
        name: process.name.clone(),
        role: match process.role {
            Role::Relay => "relay",
            Role::Redis => "Redis",
            Role::Balancer => "balancer",
            Role::Load => "load",
        },
        cores: or_absent(cpu.zip(known).map(|(cpu, known)| Unit::Cores.show(cpu / known.as_secs_f64()))),
        cpu: or_absent(cpu.map(|cpu| Unit::Seconds.show(cpu))),
        before: bytes(Some(process.resident_before)),
        most: bytes(process.points.iter().map(|point| point.resident).max()),
        last: bytes(process.points.last().map(|point| point.resident)),
    }
}

/// All figures by group, without reasons that did not occur.
fn figure_rows(figures: &Figures) -> Vec<(&'static str, Vec<Row>)> {
    let rows = |group: Group| {
        let there = known().iter().filter(|figure| figure.group == group).filter_map(|figure| {
            let value = *figures.get(&figure.name)?;
            let is_reason = matches!(group, Group::Undelivered | Group::Closed) && figure.name.contains('.');
            (value != 0.0 || !is_reason).then(|| Row {
                name: &figure.name,
                shown: figure.unit.show(value),
                exact: format!("{value}"),
                meaning: &figure.meaning,
            })
        });
        (group.title(), there.collect::<Vec<_>>())
    };
    Group::ALL.into_iter().map(rows).filter(|(_, rows)| !rows.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    #[test]
    fn a_page_asks_nobody_for_anything() {
        for report in [example::steady(), example::chaos()] {
            let page = page(&report).unwrap();
            assert!(page.contains("default-src &#39;none&#39;"), "the policy is not there");
            let markup = &page[..page.find("type=\"application/json\"").unwrap()];
            for request in ["src=", "url(", "@import", "<link", "<iframe", "<img", "href=\"http"] {
                assert!(!markup.contains(request), "{request}");
            }
        }
    }

    #[test]
    fn what_a_report_holds_cannot_become_markup() {
        let mut report = example::chaos();
        let hostile = "</script><script>alert(1)</script><b x=\"'>&";
        report.run.command = hostile.into();
        report.run.machine = hostile.into();
        report.run.target = hostile.into();
        report.notes = vec![hostile.into()];
        report.failures = vec![hostile.into()];
        report.faults[0].what = hostile.into();
        report.processes[0].name = hostile.into();
        report.total.undelivered.insert(hostile.into(), 5);
        let page = page(&report).unwrap();
        assert!(!page.contains("<script>alert") && !page.contains("<b x"), "unescaped");
        assert_eq!(page.matches("</script>").count(), 2, "the embedded report and the download");
    }

    #[test]
    fn the_report_in_the_page_is_the_report() {
        let report = example::steady();
        let page = page(&report).unwrap();
        let start = page.find("id=\"report\">").unwrap() + "id=\"report\">".len();
        let json = &page[start..start + page[start..].find("</script>").unwrap()];
        assert_eq!(serde_json::from_str::<Report>(json).unwrap(), report);
    }

    #[test]
    fn a_page_shows_all_that_a_run_has_to_say() {
        let report = example::chaos();
        let page = page(&report).unwrap();
        for text in
            [&report.failures[0], &report.notes[0], "Redis was stopped for 4 s", "unreachable", "relay 3"]
        {
            assert!(page.contains(text), "{text}");
        }
        for (name, value) in figures(&report) {
            let occurs = value != 0.0 || !name.contains('.');
            assert!(!occurs || page.contains(&format!(">{name}<")), "{name}");
        }
        assert_eq!(page.matches("<svg").count(), page.matches("role=\"img\"").count());
    }

    /// Writes the pages of the examples where somebody wants to look at them.
    #[test]
    fn pages_can_be_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = std::env::var_os("LOOK_AT_PAGES").map(std::path::PathBuf::from);
        let folder = wanted.as_deref().unwrap_or(folder.path());
        for (name, report) in [("steady", example::steady()), ("chaos", example::chaos())] {
            let path = folder.join(format!("{name}.html"));
            crate::report::write_atomically(&path, page(&report).unwrap().as_bytes()).unwrap();
            assert!(std::fs::metadata(&path).unwrap().len() > 50_000);
        }
    }
}

//! The generated lists of series, and the manual.

use std::collections::{HashMap, HashSet};

use culvert_testkit::binaries::workspace;

use crate::read;

/// What a list says of one series: the values of each of its labels.
pub(crate) type Labels = HashMap<String, HashSet<String>>;

/// Every series of both programs, a histogram as the three that it is scraped as.
pub(crate) fn series() -> HashMap<String, Labels> {
    let mut all = HashMap::new();
    for page in ["metrics.md", "broker-metrics.md"] {
        let text = read(workspace().join("docs").join(page));
        for line in text.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = line.split(" | ").collect();
            let [name, kind, labels, ..] = cells[..] else { panic!("{page}: {line}") };
            let (name, labels) = (name.trim_matches(['|', ' ', '`']), label_values(labels));
            match kind {
                "histogram" => {
                    for part in ["bucket", "sum", "count"] {
                        all.insert(format!("{name}_{part}"), labels.clone());
                    }
                }
                _ => drop(all.insert(name.to_owned(), labels)),
            }
        }
    }
    assert!(all.len() > 50, "the lists of series are not where they were: {} found", all.len());
    all
}

/// As in "`outcome` = done, failed; `way` = session".
fn label_values(cell: &str) -> Labels {
    let one = |label: &str| {
        let (key, values) = label.split_once(" = ")?;
        let values = values.split(", ").map(str::to_owned).collect();
        Some((key.trim_matches(['`', ' ']).to_owned(), values))
    };
    cell.split("; ").filter_map(one).collect()
}

pub(crate) fn manual() -> String {
    read(workspace().join("docs/operations.md"))
}

/// The headings of the manual's section on alerts: the names of alerts.
pub(crate) fn explained_alerts() -> Vec<String> {
    let manual = manual();
    let lines = manual.lines().skip_while(|line| *line != "## Alerts").skip(1);
    let section = lines.take_while(|line| !line.starts_with("## "));
    section.filter_map(|line| line.strip_prefix("### ").map(str::to_owned)).collect()
}

/// Where the manual can be pointed at, as the usual renderers of Markdown name it.
pub(crate) fn anchors() -> HashSet<String> {
    let manual = manual();
    let headings = manual.lines().filter_map(|line| line.strip_prefix('#'));
    let anchor = |heading: &str| {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        text.chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
            .collect::<String>()
            .replace(' ', "-")
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_within_the_manual_leads_somewhere() {
    let (manual, anchors) = (manual(), anchors());
    let links = manual.split("](#").skip(1).filter_map(|rest| rest.split_once(')'));
    let lost: Vec<&str> = links.map(|(link, _)| link).filter(|link| !anchors.contains(*link)).collect();
    assert!(lost.is_empty(), "docs/operations.md has no headings for {lost:?}");
}

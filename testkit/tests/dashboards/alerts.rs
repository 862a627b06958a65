//! The rules: accepted, tested in both directions, explained, and about series that exist.

use std::collections::{HashMap, HashSet};

use yaml_rust2::{Yaml, YamlLoader};

use crate::prometheus::promtool;
use crate::promql::{Selector, selectors};
use crate::{boards, deploy, docs, read};

const RULES: &str = "prometheus/rules.yaml";
const TESTS: &str = "prometheus/rules_test.yaml";

fn yaml(path: &str) -> Yaml {
    YamlLoader::load_from_str(&read(deploy(path))).unwrap().remove(0)
}

fn list<'a>(yaml: &'a Yaml, key: &str) -> &'a [Yaml] {
    yaml[key].as_vec().map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(yaml: &'a Yaml, key: &str) -> &'a str {
    yaml[key].as_str().unwrap_or_else(|| panic!("no {key} in {yaml:?}"))
}

/// Every rule of the file that has this key, `alert` or `record`.
fn rules(kind: &str) -> Vec<Yaml> {
    let all = yaml(RULES);
    let rules = list(&all, "groups").iter().flat_map(|group| list(group, "rules"));
    rules.filter(|rule| rule[kind].as_str().is_some()).cloned().collect()
}

/// What is recorded, by name.
pub(crate) fn records() -> Vec<String> {
    rules("record").iter().map(|rule| text(rule, "record").to_owned()).collect()
}

pub(crate) fn alert_names() -> Vec<String> {
    rules("alert").iter().map(|rule| text(rule, "alert").to_owned()).collect()
}

/// Panics unless every series exists, with every label value that is asked for. `$` stands for anything.
pub(crate) fn asks_for_what_exists(place: &str, query: &str) {
    let (series, records) = (docs::series(), records());
    for Selector { series: name, matchers } in selectors(query) {
        if ["up", "ALERTS"].contains(&name.as_str()) || records.contains(&name) {
            continue;
        }
        let labels = series.get(&name).unwrap_or_else(|| panic!("{place}: there is no series {name}"));
        for (label, _, value) in &matchers {
            if ["namespace", "job", "instance", "le"].contains(&label.as_str()) {
                continue;
            }
            let values = labels.get(label).unwrap_or_else(|| panic!("{place}: {name} has no label {label}"));
            for value in value.split('|') {
                assert!(values.contains(value), "{place}: {name} is never {label}={value}");
            }
        }
    }
}

#[tokio::test]
async fn prometheus_accepts_the_rules_and_the_configuration() {
    let folder = deploy("prometheus");
    let said = promtool(&["check", "rules", "rules.yaml"], &folder).await.unwrap();
    assert!(said.contains("SUCCESS"), "{said}");
    let said = promtool(&["check", "config", "prometheus.yml"], &folder).await.unwrap();
    assert!(said.contains("is valid"), "{said}");
}

#[tokio::test]
async fn every_alert_fires_when_it_should_and_not_otherwise() {
    promtool(&["test", "rules", "rules_test.yaml"], &deploy("prometheus")).await.unwrap();
    // promtool passes what nobody tests.
    let tests = yaml(TESTS);
    let (mut fires, mut is_silent) = (HashSet::new(), HashSet::new());
    for test in list(&tests, "tests").iter().flat_map(|test| list(test, "alert_rule_test")) {
        let alert = text(test, "alertname");
        let expected = list(test, "exp_alerts");
        if expected.is_empty() {
            is_silent.insert(alert)
        } else {
            fires.insert(alert)
        };
    }
    for alert in alert_names() {
        assert!(fires.contains(alert.as_str()), "no test in which {alert} fires");
        assert!(is_silent.contains(alert.as_str()), "no test in which {alert} does not fire");
    }
}

#[test]
fn every_alert_says_what_is_the_matter_and_where_it_is_explained() {
    let anchors = docs::anchors();
    for rule in rules("alert") {
        let name = text(&rule, "alert");
        let severity = text(&rule["labels"], "severity");
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: severity {severity}");
        let (summary, description) =
            (text(&rule["annotations"], "summary"), text(&rule["annotations"], "description"));
        assert!(!summary.is_empty() && !summary.ends_with('.'), "{name}: {summary}");
        let is_specific = description.contains("{{ $labels.") || name.ends_with("Absent");
        assert!(description.ends_with('.') && is_specific, "{name}: {description}");
        let anchor = text(&rule["annotations"], "runbook_url").strip_prefix("docs/operations.md#").unwrap();
        assert_eq!(anchor, name.to_lowercase());
        assert!(anchors.contains(anchor), "docs/operations.md does not explain {name}");
    }
}

#[test]
fn every_paragraph_on_alerts_has_its_alert_once_and_the_other_way_round() {
    let (mut explained, mut alerts) = (docs::explained_alerts(), alert_names());
    explained.sort();
    alerts.sort();
    assert_eq!(explained, alerts);
    alerts.dedup();
    assert_eq!(explained, alerts, "two rules have one name");
}

#[test]
fn every_alert_is_linked_from_a_panel_that_shows_it() {
    let linked: HashSet<String> = boards::all()
        .iter()
        .flat_map(boards::panels)
        .flat_map(|panel| panel["links"].as_array().cloned().unwrap_or_default())
        .filter_map(|link| Some(link["url"].as_str()?.rsplit_once('#')?.1.to_owned()))
        .collect();
    let lost: Vec<_> =
        alert_names().into_iter().filter(|alert| !linked.contains(&alert.to_lowercase())).collect();
    assert!(lost.is_empty(), "no panel leads to {lost:?}");
}

#[test]
fn rules_ask_for_series_that_exist() {
    for rule in rules("alert").iter().chain(&rules("record")) {
        let name = rule["alert"].as_str().or(rule["record"].as_str()).unwrap();
        asks_for_what_exists(name, text(rule, "expr"));
    }
}

#[test]
fn recorded_series_are_named_by_level_metric_and_operation_and_are_used() {
    let alerts: Vec<Yaml> = rules("alert");
    let mut uses: HashMap<String, u32> = HashMap::new();
    for rule in &alerts {
        selectors(text(rule, "expr")).into_iter().for_each(|used| *uses.entry(used.series).or_default() += 1);
    }
    for name in records() {
        let parts: Vec<&str> = name.split(':').collect();
        assert!(parts.len() == 3 && ["instance", "job"].contains(&parts[0]), "{name}");
        assert!(parts.iter().all(|part| !part.is_empty()), "{name}");
        assert!(uses.contains_key(&name), "no alert uses {name}");
    }
}

//! The dashboards: in a shape that Grafana shows, with what somebody needs at three in the morning.

use std::collections::HashSet;
use std::iter::once;

use serde_json::Value;

use crate::alerts::asks_for_what_exists;
use crate::promql::selectors;
use crate::{deploy, docs, read};

/// Columns of Grafana's grid.
const COLUMNS: u64 = 24;

/// Every dashboard.
pub(crate) fn all() -> Vec<Value> {
    let files = std::fs::read_dir(deploy("grafana")).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let boards: Vec<Value> = files
        .map(|path| {
            let board: Value = serde_json::from_str(&read(&path)).unwrap();
            // Grafana names files that it exports by it, and links need it.
            assert_eq!(board["uid"].as_str(), path.file_stem().and_then(|stem| stem.to_str()));
            board
        })
        .collect();
    assert!(boards.len() >= 4, "the dashboards are not where they were");
    boards
}

/// What a dashboard shows, rows included.
pub(crate) fn panels(board: &Value) -> Vec<Value> {
    board["panels"].as_array().unwrap().clone()
}

/// Its queries, each with the place of its panel.
pub(crate) fn queries(board: &Value) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for panel in panels(board).iter().filter(|panel| !is_row(panel)) {
        let place = place(board, panel);
        let targets = panel["targets"].as_array().unwrap_or_else(|| panic!("{place} asks for nothing"));
        assert!(!targets.is_empty(), "{place} asks for nothing");
        for target in targets {
            all.push((place.clone(), target["expr"].as_str().unwrap().to_owned()));
        }
    }
    all
}

fn place(board: &Value, panel: &Value) -> String {
    format!("{} / {}", board["title"].as_str().unwrap(), panel["title"].as_str().unwrap())
}

fn is_row(panel: &Value) -> bool {
    panel["type"] == "row"
}

/// What may be chosen on top of it.
pub(crate) fn variables(board: &Value) -> Vec<&Value> {
    board["templating"]["list"].as_array().unwrap().iter().collect()
}

#[test]
fn dashboards_and_their_panels_have_ids_of_their_own() {
    let mut uids = HashSet::new();
    for board in all() {
        assert!(uids.insert(board["uid"].to_string()), "two dashboards are {}", board["uid"]);
        let mut ids = HashSet::new();
        for panel in panels(&board) {
            assert!(panel["id"].as_u64().is_some_and(|id| ids.insert(id)), "{}", place(&board, &panel));
        }
    }
}

#[test]
fn panels_stand_side_by_side_on_the_grid() {
    for board in all() {
        let mut taken = HashSet::new();
        for panel in panels(&board) {
            let at =
                |key: &str| panel["gridPos"][key].as_u64().unwrap_or_else(|| panic!("no {key}: {panel}"));
            let (x, y, w, h) = (at("x"), at("y"), at("w"), at("h"));
            let place = place(&board, &panel);
            assert!(w > 0 && h > 0 && x + w <= COLUMNS, "{place} is outside the grid");
            let cells = (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y)));
            for cell in cells {
                assert!(taken.insert(cell), "{place} lies over another panel");
            }
        }
    }
}

#[test]
fn every_panel_says_what_it_means_in_which_unit_and_when_to_worry() {
    for board in all() {
        for panel in panels(&board).iter().filter(|panel| !is_row(panel)) {
            let place = place(&board, panel);
            let description = panel["description"].as_str().unwrap_or_default();
            assert!(description.len() > 30 && description.ends_with('.'), "{place}: {description:?}");
            let defaults = &panel["fieldConfig"]["defaults"];
            assert!(defaults["unit"].as_str().is_some_and(|unit| !unit.is_empty()), "{place} has no unit");
            let steps = defaults["thresholds"]["steps"].as_array().map_or(0, Vec::len);
            assert!(steps > 0, "{place} has no thresholds");
        }
    }
}

#[test]
fn every_query_goes_to_the_chosen_prometheus_and_instances() {
    for board in all() {
        let names: Vec<&str> =
            variables(&board).iter().map(|variable| variable["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["datasource", "namespace", "job", "instance", "manual"], "{}", board["title"]);
        let datasource = variables(&board)[0];
        assert_eq!((&datasource["type"], &datasource["query"]), (&"datasource".into(), &"prometheus".into()));
        // Whoever chooses nothing sees what is on offer, and no other target of the same Prometheus.
        let job = variables(&board)[2];
        let offered = selectors(job["definition"].as_str().unwrap()).remove(0).matchers;
        let all = ("job".to_owned(), "=~".to_owned(), job["allValue"].as_str().unwrap().to_owned());
        assert!(offered.contains(&all), "{}: all jobs are {all:?}", board["title"]);
        for panel in panels(&board).iter().filter(|panel| !is_row(panel)) {
            let targets = panel["targets"].as_array().unwrap().iter();
            for place_of_source in once(panel).chain(targets) {
                assert_eq!(place_of_source["datasource"]["uid"], "${datasource}", "{}", place(&board, panel));
            }
        }
        for (place, query) in queries(&board) {
            // Whatever is not narrowed down itself is joined with what is.
            let chosen = ["namespace", "job", "instance"]
                .map(|label| (label.to_owned(), "=~".to_owned(), format!("${label}")));
            let selectors = selectors(&query);
            let is_narrow =
                selectors.iter().any(|one| chosen.iter().all(|label| one.matchers.contains(label)));
            assert!(is_narrow || query.contains("ALERTS"), "{place}: {query} is about every instance");
        }
    }
}

#[test]
fn queries_ask_for_series_that_exist() {
    for board in all() {
        for (place, query) in queries(&board) {
            asks_for_what_exists(&place, &query);
        }
        for variable in variables(&board).iter().filter(|variable| variable["type"] == "query") {
            let query = variable["query"]["query"].as_str().unwrap();
            let inner = query.strip_prefix("label_values(").and_then(|query| query.rsplit_once(',')).unwrap();
            asks_for_what_exists(board["title"].as_str().unwrap(), inner.0);
        }
    }
}

#[test]
fn dashboards_lead_to_each_other_and_to_the_manual() {
    let anchors = docs::anchors();
    for board in all() {
        let (title, tags) = (board["title"].as_str().unwrap(), &board["tags"]);
        assert!(tags.as_array().unwrap().contains(&"culvert".into()), "{title}: {tags}");
        let links = board["links"].as_array().unwrap();
        let others = links.iter().find(|link| link["type"] == "dashboards").unwrap();
        assert_eq!((&others["tags"], &others["includeVars"]), (tags, &true.into()), "{title}");
        let of_panels = panels(&board).into_iter().flat_map(|panel| panel["links"].as_array().cloned());
        let pages = links.iter().filter(|link| link["type"] == "link").cloned().chain(of_panels.flatten());
        for link in pages {
            let url = link["url"].as_str().unwrap();
            let anchor = url.strip_prefix("${manual}/operations.md#");
            assert!(anchor.is_some_and(|anchor| anchors.contains(anchor)), "{title}: {url} leads nowhere");
        }
        let rows: Vec<_> = panels(&board).into_iter().filter(is_row).collect();
        assert!(rows.iter().any(|row| row["title"] == "Who is hurting"), "{title} has no such row");
    }
}

#[test]
fn every_series_is_on_a_dashboard() {
    let shown: HashSet<String> = all()
        .iter()
        .flat_map(queries)
        .flat_map(|(_, query)| selectors(&query))
        .map(|selector| selector.series)
        .collect();
    let lost: Vec<_> = docs::series()
        .into_keys()
        // Of a histogram, quantiles need the buckets only.
        .filter(|name| !name.ends_with("_sum") && !name.ends_with("_count") && !shown.contains(name))
        .collect();
    assert!(lost.is_empty(), "no dashboard shows {lost:?}");
}

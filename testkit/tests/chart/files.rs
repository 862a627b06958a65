//! The chart brings copies of what is in `deploy/`, because Helm packs no links.

use std::collections::BTreeMap;
use std::path::Path;

use culvert_testkit::binaries::workspace;

use crate::tools;

fn files(folder: &Path, ending: &str) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == ending))
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(&path).unwrap())
        })
        .collect()
}

#[test]
fn dashboards_and_rules_are_those_of_deploy() {
    let (deploy, chart) = (workspace().join("deploy"), tools::chart().join("files"));
    let mut originals = BTreeMap::new();
    for (name, text) in files(&deploy.join("grafana"), "json") {
        originals.insert(format!("dashboards/{name}"), text);
    }
    let rules = std::fs::read_to_string(deploy.join("prometheus/rules.yaml")).unwrap();
    originals.insert("rules.yaml".to_owned(), rules);
    assert!(originals.len() > 2, "{:?}", originals.keys());
    for (name, text) in &originals {
        tools::assert_fresh(&chart.join(name), text);
    }
    let copies = files(&chart.join("dashboards"), "json").len() + files(&chart, "yaml").len();
    assert_eq!(copies, originals.len(), "files/ has copies of what is not in deploy/");
}

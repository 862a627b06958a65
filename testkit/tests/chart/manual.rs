//! `values.yaml` is the manual: what it documents is used, what is used is documented, the README says the same.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;

use serde_json::{Value, json};

use crate::render::{Case, matrix, template};
use crate::snapshots::without_chance;
use crate::{tools, yaml};

/// A value with its documentation; what is below it is its default as a whole.
#[derive(Debug)]
struct Entry {
    path: Vec<String>,
    meaning: String,
}

/// What `values.yaml` says: the values, and what its sections are about.
#[derive(Debug, Default)]
struct Manual {
    entries: Vec<Entry>,
    sections: Vec<(String, String)>,
}

/// A comment that begins with `--` documents the key that follows; another one above a key of the first level is
/// what its section is about.
fn read_manual() -> Manual {
    let mut manual = Manual::default();
    let (mut comment, mut path): (Vec<&str>, Vec<(usize, String)>) = Default::default();
    let text = values_text();
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let line = line.trim();
        if let Some(words) = line.strip_prefix('#') {
            comment.push(words.trim());
            continue;
        }
        let said = std::mem::take(&mut comment).join(" ");
        let Some((key, _)) = line.split_once(':').filter(|(key, _)| !key.starts_with('-')) else { continue };
        path.truncate(path.iter().take_while(|(outer, _)| *outer < indent).count());
        path.push((indent, key.to_owned()));
        let path: Vec<String> = path.iter().map(|(_, key)| key.clone()).collect();
        if manual
            .entries
            .last()
            .is_some_and(|entry| path.len() > entry.path.len() && path.starts_with(&entry.path))
        {
            assert!(!said.starts_with("--"), "{} is documented within a documented value", path.join("."));
            continue;
        }
        match said.strip_prefix("-- ") {
            Some(meaning) => manual.entries.push(Entry { path, meaning: meaning.to_owned() }),
            None if indent == 0 && !said.is_empty() => manual.sections.push((key.to_owned(), said)),
            None => {}
        }
    }
    assert!(manual.entries.len() > 150, "{}", manual.entries.len());
    manual
}

fn values_text() -> String {
    std::fs::read_to_string(tools::chart().join("values.yaml")).unwrap()
}

fn pointer(path: &[String]) -> String {
    path.iter().map(|key| format!("/{}", key.replace('/', "~1"))).collect()
}

/// The paths of all values that hold nothing further.
fn leaves(value: &Value, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    match value.as_object().filter(|object| !object.is_empty()) {
        Some(object) => {
            for (key, value) in object {
                path.push(key.clone());
                leaves(value, path, found);
                path.pop();
            }
        }
        None => found.push(path.clone()),
    }
}

#[test]
fn every_value_is_documented_once() {
    let (manual, values) = (read_manual(), yaml::document(&values_text()));
    let mut all = Vec::new();
    leaves(&values, &mut Vec::new(), &mut all);
    for leaf in all {
        let documented = manual.entries.iter().filter(|entry| leaf.starts_with(&entry.path)).count();
        assert_eq!(documented, 1, "{} has no documentation (a comment that begins with --)", leaf.join("."));
    }
    for Entry { path, meaning } in &manual.entries {
        assert!(values.pointer(&pointer(path)).is_some(), "{}", path.join("."));
        assert!(meaning.ends_with('.') && meaning.len() > 8, "{}: {meaning}", path.join("."));
    }
}

#[test]
fn every_value_that_a_template_names_exists() {
    let values = yaml::document(&values_text());
    let mut named = BTreeSet::new();
    for text in templates() {
        for (mark, of_part) in [(".Values.", false), ("$values.", true), (".values.", true)] {
            for (at, _) in text.match_indices(mark) {
                let path: String = text[at + mark.len()..]
                    .chars()
                    .take_while(|c| c.is_ascii_alphanumeric() || *c == '.')
                    .collect();
                named.insert((of_part, path.trim_end_matches('.').replace('.', "/")));
            }
        }
    }
    assert!(named.len() > 60, "{named:?}");
    for (of_part, path) in named {
        let exists = |prefix: &str| values.pointer(&format!("{prefix}/{path}")).is_some();
        // What one of the two parts has not, Helm takes for empty.
        let found = if of_part { exists("/relay") || exists("/broker") } else { exists("") };
        assert!(found, "a template names {path}, which values.yaml has not");
    }
}

fn templates() -> Vec<String> {
    fn walk(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else {
                found.push(std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut found = Vec::new();
    walk(&tools::chart().join("templates"), &mut found);
    found
}

/// Changing a documented value changes the manifests of one of the values files.
#[test]
fn every_documented_value_is_used() {
    let Some(helm) = tools::helm() else { return };
    let values = yaml::document(&values_text());
    let rendered = |case: &Case, more: &[&str]| {
        // The largest part of the manifests, which takes the longest, depends on nothing.
        let more = [&["--set", "monitoring.dashboards.enabled=false"], more].concat();
        let (done, out, err) = template(&helm, Some(&case.path), &more);
        assert!(done || err.contains("make no installation"), "{}: {more:?}: {err}", case.name);
        done.then(|| without_chance(&out))
    };
    let mut bases: Vec<_> = matrix().into_iter().map(|case| (rendered(&case, &[]).unwrap(), case)).collect();
    // Most values are seen in the first two.
    let order =
        |name: &str| ["production", "evaluation"].iter().position(|first| *first == name).unwrap_or(9);
    bases.sort_by_key(|(_, case)| order(&case.name));
    let manual = read_manual();
    let tested = manual
        .entries
        .iter()
        .filter(|entry| !entry.path.starts_with(&["monitoring".into(), "dashboards".into()]));
    let (left, unused) = (Mutex::new(tested), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let next = left.lock().unwrap().next();
                    let Some(entry) = next else { break };
                    let value = values.pointer(&pointer(&entry.path)).unwrap();
                    let mut sets = vec![format!("{}={}", entry.path.join("."), another(&entry.path, value))];
                    sets.extend(companions(&entry.path));
                    let more: Vec<&str> = sets.iter().flat_map(|set| ["--set-json", set]).collect();
                    let shows =
                        |(base, case): &(String, Case)| rendered(case, &more).is_some_and(|now| now != *base);
                    if !bases.iter().any(shows) {
                        unused.lock().unwrap().push(sets);
                    }
                }
            });
        }
    });
    let unused = unused.into_inner().unwrap();
    assert!(unused.is_empty(), "documented, and of no effect with any file in ci/: {unused:#?}");
}

#[test]
fn every_documented_value_of_the_dashboards_is_used() {
    let Some(helm) = tools::helm() else { return };
    let production = tools::chart().join("ci/production.yaml");
    let dashboards = |set: &str| -> Vec<Value> {
        let (done, out, err) = template(&helm, Some(&production), &["--set-json", set]);
        assert!(done, "{err}");
        let is_one = |object: &Value| {
            object["kind"] == "ConfigMap"
                && object["metadata"]["labels"]["app.kubernetes.io/component"] == "dashboard"
        };
        yaml::documents(&out).into_iter().filter(is_one).collect()
    };
    assert_eq!(dashboards("monitoring.dashboards.enabled=false").len(), 0);
    for (at, others) in [("labels", 7), ("annotations", 1)] {
        let found = dashboards(&format!("monitoring.dashboards.{at}={{\"other\": \"yes\"}}"));
        assert!(found.len() > 2, "{}", found.len());
        for dashboard in found {
            assert_eq!(dashboard["metadata"][at]["other"], "yes", "{at}");
            assert!(dashboard["metadata"][at].as_object().unwrap().len() > others, "{at}");
        }
    }
}

/// What else has to be set for a value to make an installation.
fn companions(path: &[String]) -> Vec<String> {
    let part = &path[0];
    match path[1..].join(".").as_str() {
        "tls.certManager.enabled" => {
            let issuer = format!("{part}.tls.certManager.issuerRef.name=\"other\"");
            vec![format!("{part}.tls.existingSecret=\"\""), issuer]
        }
        "tlsRoute.enabled" => vec![format!("{part}.tlsRoute.parentRefs=[{{\"name\":\"other\"}}]")],
        _ => Vec::new(),
    }
}

/// Another value of the same kind, which the schema accepts.
fn another(path: &[String], value: &Value) -> Value {
    let key = path.last().map(String::as_str).unwrap_or_default();
    let above = path.len().checked_sub(2).map_or("", |at| path[at].as_str());
    let network = json!([{"ipBlock": {"cidr": "203.0.113.0/24"}}]);
    match (above, key, value) {
        // Of production, where it is off.
        ("evaluation", "enabled", _) => json!(true),
        (_, _, Value::Bool(truth)) => json!(!truth),
        (_, "terminationGracePeriodSeconds", _) => json!(4321),
        (_, "nodePort", _) => json!(31234),
        (_, "replicas", _) => json!(7),
        (_, "minAvailable", _) => json!(1),
        (_, "maxUnavailable", Value::Null) => json!(2),
        (_, "minReplicas", _) => json!(6),
        (_, _, Value::Number(number)) => json!(number.as_u64().unwrap() + 1),
        (_, _, Value::Null) => json!(77),
        (_, "digest", _) => json!(format!("sha256:{}", "f".repeat(64))),
        (_, "pullPolicy", _) => json!("Always"),
        ("service", "type", _) => json!("NodePort"),
        (_, "externalTrafficPolicy", _) => json!("Cluster"),
        (_, "ipFamilyPolicy", _) => json!("SingleStack"),
        (_, "ipFamilies", _) => json!(["IPv6"]),
        ("tlsRoute", "apiVersion", _) => json!("v1alpha2"),
        (_, "mode", _) => json!("cluster"),
        (_, "duration" | "renewBefore", _) => json!("99h"),
        ("monitoring", "interval", _) => json!("77s"),
        ("topologySpread", _, _) => json!(if value == "DoNotSchedule" { "" } else { "DoNotSchedule" }),
        ("postgres", "storage", _) => json!("77Gi"),
        ("test", "relay", _) => json!("wss://other.example.org"),
        (_, "addresses", _) => json!(["redis://other.example.org:7777"]),
        (_, "keySets", _) => json!(["https://other.example.org/keys"]),
        ("broker", "relays", _) => json!(["wss://other.example.org"]),
        (_, "names", _) => json!(["other.example.org"]),
        (_, "proxyProtocolFrom" | "loadBalancerSourceRanges", _) => json!(["203.0.113.0/24"]),
        ("redis", "ports", _) => json!([7777]),
        (_, "files", _) => json!(["other.pem"]),
        ("networkPolicy", "extraEgress", _) => json!([{"to": network}]),
        ("networkPolicy", _, Value::Array(_)) => network,
        (_, "imagePullSecrets", _) => json!([{"name": "other"}]),
        (_, "parentRefs", _) => json!([{"name": "other"}]),
        (_, "tolerations", _) => json!([{"key": "other", "operator": "Exists"}]),
        (_, "extraEnv", _) => json!([{"name": "OTHER", "value": "1"}]),
        (_, "extraEnvFrom", _) => json!([{"secretRef": {"name": "other"}}]),
        (_, "extraVolumes", _) => json!([{"name": "other", "emptyDir": {}}]),
        (_, "extraVolumeMounts", _) => json!([{"name": "other", "mountPath": "/other"}]),
        (_, "settings", _) => json!({"log": "warn"}),
        ("behavior" | "autoscaling", "behavior", _) => {
            json!({"scaleDown": {"stabilizationWindowSeconds": 7}})
        }
        ("probes", _, _) => json!({"periodSeconds": 77}),
        (_, "resources", _) => json!({"requests": {"cpu": "77m"}}),
        (_, "affinity", _) => json!({"podAntiAffinity": {}}),
        (_, _, Value::Object(_)) => json!({"other": "yes"}),
        (_, _, Value::String(_)) => json!("other"),
        other => panic!("no other value for {}: {other:?}", path.join(".")),
    }
}

/// The values in the README make an installation, with nothing generated.
#[test]
fn the_example_for_production_in_the_readme_is_complete() {
    let Some(helm) = tools::helm() else { return };
    let readme = std::fs::read_to_string(tools::chart().join("README.md")).unwrap();
    let (_, example) = readme.split_once("```yaml\n# production.yaml\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let values = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    std::fs::write(values.path(), example).unwrap();
    let (done, out, err) = template(&helm, Some(values.path()), &[]);
    assert!(done, "{err}");
    assert!(!out.contains("kind: Secret\n") && !out.contains("evaluation"), "{out}");
    // The Secrets that the commands above it make are those that it names.
    let made: BTreeSet<&str> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("kubectl -n culvert create secret "))
        .map(|command| command.split(' ').nth(1).unwrap())
        .collect();
    assert_eq!(made.len(), 5, "{made:?}");
    for name in made {
        assert!(example.contains(&format!("existingSecret: {name}}}")), "{name}");
        assert!(out.contains(&format!("name: {name}\n")), "{name}");
    }
}

/// README.md: what is written by hand, and the table of all values below the mark.
#[test]
fn the_readme_lists_the_values_as_they_are() {
    const MARK: &str = "<!-- Generated from values.yaml from here on; do not edit. -->\n";
    let path = tools::chart().join("README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let (by_hand, _) = readme.split_once(MARK).expect("the mark is there");
    let (manual, values) = (read_manual(), yaml::document(&values_text()));
    let mut text = format!("{by_hand}{MARK}");
    let mut section = "";
    for Entry { path, meaning } in &manual.entries {
        // Values of the first level that stand alone come first, under the heading by hand.
        let top = if path.len() > 1 { path[0].as_str() } else { "" };
        if top != section || section.is_empty() && text.ends_with(MARK) {
            if !top.is_empty() {
                text.push_str(&format!("\n### {top}\n"));
                if let Some((_, about)) = manual.sections.iter().find(|(key, _)| key == top) {
                    text.push_str(&format!("\n{about}\n"));
                }
            } else {
                text.push_str("\n### Names and images\n");
            }
            text.push_str("\n| Value | Default | Meaning |\n| --- | --- | --- |\n");
            section = top;
        }
        let default = values.pointer(&pointer(path)).unwrap();
        let name = path.join(".");
        text.push_str(&format!("| `{name}` | `{default}` | {} |\n", meaning.replace('|', "\\|")));
    }
    tools::assert_fresh(&path, &text);
}

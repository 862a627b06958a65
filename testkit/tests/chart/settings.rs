//! Settings of the programs in the chart: they exist, and the programs accept them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use culvert_testkit::binaries::{self, workspace};
use culvert_testkit::certs::TestCa;
use data_encoding::BASE64;
use serde_json::Value;

use crate::render::{containers, manifests, matrix, objects, pod, text};
use crate::{tools, yaml};

/// What the chart makes no use of, and does not let through: a file of its own, secrets in the environment, a
/// database that pods cannot share, tables that `migrate` makes.
const ELSEWHERE: &[&str] = &[
    "config",
    "access-token",
    "redis-password",
    "redis-sentinel-password",
    "database-url",
    "database-file",
    "data-keys",
    "institution-password",
    "migrate",
    "plain-text",
];

/// The part, the file that lists its settings, and its name in the schema.
const PARTS: &[(&str, &str, &str)] = &[
    ("relay", "docs/configuration.md", "relaySettings"),
    ("broker-api", "docs/broker-configuration.md", "brokerSettings"),
];

/// Every setting in one of the generated lists, with its variable.
fn documented(file: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(workspace().join(file)).unwrap();
    let row = |line: &str| {
        let cells: Vec<&str> = line.split(" | ").collect();
        let variable = cells.get(3)?.trim_matches('`');
        let is_setting = cells.len() == 5 && variable.starts_with("CULVERT_");
        is_setting.then(|| (cells[0].trim_matches(['|', ' ', '`']).to_owned(), variable.to_owned()))
    };
    let settings: Vec<_> = text.lines().filter_map(row).collect();
    assert!(settings.len() > 40, "{file}: {settings:?}");
    settings
}

/// The settings that the chart renders for a part, in its file and as variables of its container.
fn rendered(helm: &Path, part: &str, documented: &[(String, String)]) -> BTreeSet<String> {
    let file = format!("/data/{part}.toml");
    let mut found = BTreeSet::new();
    for (_, object) in objects(helm) {
        if let Some(text) = object.pointer(&file).and_then(Value::as_str) {
            found.extend(text.parse::<toml::Table>().unwrap().into_iter().map(|(key, _)| key));
        }
        let Some(pod) = pod(&object) else { continue };
        for variable in pod["containers"].as_array().unwrap().iter().flat_map(variables) {
            let setting = documented.iter().find(|(_, name)| name == text(variable, "/name"));
            found.extend(setting.map(|(setting, _)| setting.clone()));
        }
    }
    found
}

fn variables(container: &Value) -> impl Iterator<Item = &Value> {
    container["env"].as_array().into_iter().flatten()
}

/// A setting is either a value of the chart's own, or let through by its name; the schema knows which.
#[test]
fn the_schema_knows_every_setting_of_the_programs() {
    let Some(helm) = tools::helm() else { return };
    let path = tools::chart().join("values.schema.json");
    // JSON is YAML, and read like this it is in order.
    let mut schema = yaml::document(&std::fs::read_to_string(&path).unwrap());
    for (part, file, name) in PARTS {
        let documented = documented(file);
        let rendered = rendered(&helm, part, &documented);
        let documented: Vec<String> = documented.into_iter().map(|(setting, _)| setting).collect();
        for setting in &rendered {
            assert!(documented.contains(setting), "the chart sets {setting}, which {file} has not");
        }
        let given = yaml::document(&std::fs::read_to_string(tools::chart().join("values.yaml")).unwrap());
        let through: BTreeSet<String> = matrix()
            .iter()
            .map(|case| yaml::document(&std::fs::read_to_string(&case.path).unwrap()))
            .chain([given])
            .flat_map(|values| {
                let key = if *part == "relay" { "relay" } else { "broker" };
                values[key]["settings"]
                    .as_object()
                    .cloned()
                    .unwrap_or_default()
                    .into_iter()
                    .map(|(key, _)| key)
            })
            .collect();
        let own: BTreeSet<&String> = rendered.difference(&through).collect();
        let let_through: Vec<&String> = documented
            .iter()
            .filter(|setting| !own.contains(setting) && !ELSEWHERE.contains(&setting.as_str()))
            .collect();
        schema["definitions"][name]["propertyNames"]["enum"] = serde_json::to_value(let_through).unwrap();
    }
    tools::assert_fresh(&path, &format!("{}\n", serde_json::to_string_pretty(&schema).unwrap()));
}

#[test]
fn every_variable_that_the_chart_sets_exists() {
    let Some(helm) = tools::helm() else { return };
    let mut known: BTreeSet<String> =
        PARTS.iter().flat_map(|(_, file, _)| documented(file)).map(|(_, variable)| variable).collect();
    let client = std::fs::read_to_string(workspace().join("cli/src/cli.rs")).unwrap();
    known.extend(client.split('"').filter(|word| word.starts_with("CULVERT_")).map(str::to_owned));
    let mut seen = BTreeSet::new();
    for (case, object) in objects(&helm) {
        let Some(pod) = pod(&object) else { continue };
        for variable in
            containers(pod).flat_map(|container| container["env"].as_array().into_iter().flatten())
        {
            let name = text(variable, "/name");
            if name.starts_with("CULVERT_") {
                assert!(known.contains(name), "{case}: {name} is no setting");
                seen.insert(name.to_owned());
            }
        }
    }
    assert!(seen.len() > 5, "{seen:?}");
}

/// The files of a pod's Secrets, in a folder: those that the chart generated, and others of the right kind.
fn materialize(folder: &Path, objects: &[Value], pod: &Value, ca: &TestCa) {
    let leaf = ca.issue(&["relay.example.org", "broker.example.org"]).unwrap();
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap();
    let made = |name: &str, key: &str| {
        let is_it =
            |object: &&Value| text(object, "/kind") == "Secret" && text(object, "/metadata/name") == name;
        let data = objects.iter().find(is_it)?["data"][key].as_str()?;
        Some(String::from_utf8(BASE64.decode(data.as_bytes()).unwrap()).unwrap())
    };
    let volumes = pod["volumes"].as_array().into_iter().flatten();
    let sources = volumes.filter_map(|volume| volume.pointer("/projected/sources")?.as_array()).flatten();
    let secrets = sources.map(|source| &source["secret"]);
    for (secret, item) in
        secrets.flat_map(|secret| secret["items"].as_array().unwrap().iter().map(move |item| (secret, item)))
    {
        let path = text(item, "/path");
        let content = made(text(secret, "/name"), text(item, "/key")).unwrap_or_else(|| match path {
            "tls/tls.crt" => read(leaf.cert_path()),
            "tls/tls.key" => read(leaf.key_path()),
            "data-keys" => BASE64.encode(&[7; 32]),
            "database-url" => "postgres://culvert:secret@postgres.example.org/culvert".to_owned(),
            path if path.ends_with(".crt") => read(ca.path()),
            // An Ed25519 public key: RFC 8410, 10.1.
            path if path.starts_with("ticket-keys/") => "-----BEGIN PUBLIC KEY-----\n\
                 MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n"
                .to_owned(),
            _ => "a password of more than twenty letters".to_owned(),
        });
        let file = folder.join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, content).unwrap();
    }
}

/// The programs themselves read what the chart renders, with the Secrets that it generates or that have the form
/// of those that an operator brings.
#[tokio::test]
async fn the_programs_accept_their_settings() {
    let Some(helm) = tools::helm() else { return };
    let programs =
        [("relay", binaries::relay().await.unwrap()), ("broker-api", binaries::broker().await.unwrap())];
    let ca = TestCa::new("chart").unwrap();
    let mut seen = 0;
    for case in matrix() {
        let objects = yaml::documents(&manifests(&helm, &case));
        for (part, program) in &programs {
            let file = format!("/data/{part}.toml");
            let Some(config) = objects.iter().find_map(|object| object.pointer(&file)?.as_str()) else {
                continue;
            };
            let name = format!("/etc/culvert/config/{part}.toml");
            let of_part = |object: &&Value| pod(object).is_some_and(|pod| pod.to_string().contains(&name));
            let pod = pod(objects.iter().find(of_part).unwrap()).unwrap();
            let folder = tempfile::tempdir().unwrap();
            materialize(folder.path(), &objects, pod, &ca);
            let here = |text: &str| text.replace("/etc/culvert/secrets", folder.path().to_str().unwrap());
            let path = folder.path().join("config.toml");
            std::fs::write(&path, here(config)).unwrap();
            let mut check = Command::new(program);
            check.env_clear().arg("check-config").arg("--config").arg(&path);
            let container = &pod["containers"][0];
            for variable in
                variables(container).filter(|variable| text(variable, "/name").starts_with("CULVERT_"))
            {
                check.env(text(variable, "/name"), text(variable, "/value"));
            }
            let (accepted, out, err) = tools::run(&mut check);
            assert!(accepted, "{}: {part}: {err}\n{config}", case.name);
            for setting in ["drain-window", "admin-listen"] {
                let mut lines = out.lines();
                let line = lines.find(|line| line.starts_with(&format!("{setting} = "))).unwrap();
                assert!(!line.ends_with("# default"), "{}: {part}: {line}", case.name);
            }
            // The container that makes the tables has variables instead of a file.
            for container in pod["initContainers"].as_array().into_iter().flatten() {
                let mut check = Command::new(program);
                check.env_clear().arg("check-config");
                for variable in container["env"].as_array().unwrap() {
                    check.env(text(variable, "/name"), here(text(variable, "/value")));
                }
                let (accepted, _, err) = tools::run(&mut check);
                assert!(accepted, "{}: migrations: {err}", case.name);
            }
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen}");
}

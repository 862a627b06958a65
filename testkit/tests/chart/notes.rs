//! What an installation says to do next names what is really there.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::render::{Case, kubernetes, matrix, text};
use crate::{tools, yaml};

/// A copy of the chart in which the notes are an object as well: `helm template` does not print them.
fn chart_with_notes() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (copied, _, err) = tools::run(Command::new("cp").arg("-r").arg(tools::chart()).arg(folder.path()));
    assert!(copied, "{err}");
    let object = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes}\ndata:\n  \
                  notes: {{ include (print $.Template.BasePath \"/NOTES.txt\") . | toJson }}\n";
    std::fs::write(folder.path().join("culvert/templates/notes.yaml"), object).unwrap();
    folder
}

/// The notes of a case, and `kind/name` of every object.
fn notes(helm: &Path, chart: &Path, case: &Case) -> (String, BTreeSet<String>) {
    let mut template = Command::new(helm);
    template
        .args(["template", "culvert"])
        .arg(chart)
        .args(["--namespace", "relays", "--values"])
        .arg(&case.path);
    let (done, out, err) = tools::run(template.args(["--kube-version", &kubernetes("newest")]));
    assert!(done, "{}: {err}", case.name);
    let objects = yaml::documents(&out);
    let notes = objects.iter().find(|object| text(object, "/metadata/name") == "notes").unwrap();
    let names = objects
        .iter()
        .map(|object| format!("{}/{}", text(object, "/kind").to_lowercase(), text(object, "/metadata/name")));
    (text(notes, "/data/notes").to_owned(), names.collect())
}

#[test]
fn notes_name_what_is_there() {
    let Some(helm) = tools::helm() else { return };
    let folder = chart_with_notes();
    let mut seen = 0;
    for case in matrix() {
        let (notes, objects) = notes(&helm, &folder.path().join("culvert"), &case);
        assert!(!notes.contains("<no value>") && !notes.contains("{{ "), "{}: {notes}", case.name);
        assert!(notes.contains("wss://") && notes.contains("-n relays"), "{}: {notes}", case.name);
        let words: Vec<&str> = notes.split_whitespace().collect();
        for pair in words.windows(3) {
            let named = match pair {
                ["status", object, _] => (*object).to_owned(),
                ["exec", "-it", object] => object.replace("deploy/", "deployment/"),
                ["get", kind @ ("secret" | "service"), name] => format!("{kind}/{name}"),
                ["Ingress", name, _] => format!("ingress/{name}"),
                [kind @ ("(deployment" | "(statefulset"), name, _] => {
                    format!("{}/{}", &kind[1..], name.trim_end_matches(").").trim_end_matches("),"))
                }
                _ => continue,
            };
            assert!(objects.contains(&named), "{}: there is no {named}: {notes}", case.name);
            seen += 1;
        }
        let is_trial = objects.iter().any(|name| name.ends_with("-evaluation"));
        assert_eq!(notes.contains("THIS IS AN EVALUATION"), is_trial, "{}: {notes}", case.name);
        let has_test = objects.iter().any(|name| name.starts_with("pod/"));
        assert_eq!(notes.contains("test culvert --logs"), has_test, "{}: {notes}", case.name);
        assert_eq!(
            notes.contains("user create"),
            objects.contains("deployment/culvert-broker-api") || objects.contains("deployment/cv-broker-api"),
            "{}: {notes}",
            case.name
        );
    }
    assert!(seen > 40, "{seen}");
}

//! What Helm makes of the chart and some values.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::{tools, yaml};

/// A values file of the matrix.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// Its name, without ending.
    pub(crate) name: String,
    /// Where it is.
    pub(crate) path: PathBuf,
}

/// Every values file in `ci/`, in order.
pub(crate) fn matrix() -> Vec<Case> {
    let folder = tools::chart().join("ci");
    let mut cases: Vec<Case> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml"))
        .map(|path| Case { name: path.file_stem().unwrap().to_str().unwrap().to_owned(), path })
        .collect();
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(cases.len() > 10, "{} has {} values files", folder.display(), cases.len());
    cases
}

/// The `oldest` or the `newest` version of Kubernetes that the chart supports.
pub(crate) fn kubernetes(which: &str) -> String {
    let about = yaml::document(&std::fs::read_to_string(tools::chart().join("Chart.yaml")).unwrap());
    about["annotations"][format!("culvert/{which}-kubernetes")].as_str().unwrap().to_owned()
}

/// `helm template`, as at an installation into the namespace `relays`.
pub(crate) fn template(helm: &Path, values: Option<&Path>, more: &[&str]) -> (bool, String, String) {
    let mut command = Command::new(helm);
    command.args(["template", "culvert"]).arg(tools::chart()).args(["--namespace", "relays"]);
    // What Helm believes without a cluster depends on how it was built.
    if !more.contains(&"--kube-version") {
        command.args(["--kube-version", &kubernetes("newest")]);
    }
    if let Some(values) = values {
        command.arg("--values").arg(values);
    }
    tools::run(command.args(more))
}

/// The manifests, which there must be.
pub(crate) fn manifests(helm: &Path, case: &Case) -> String {
    let (done, out, err) = template(helm, Some(&case.path), &[]);
    assert!(done, "{}: {err}", case.name);
    out
}

/// Every object of every case, with the case's name.
pub(crate) fn objects(helm: &Path) -> Vec<(String, Value)> {
    let of = |case: Case| {
        let objects = yaml::documents(&manifests(helm, &case));
        objects.into_iter().map(move |object| (case.name.clone(), object))
    };
    matrix().into_iter().flat_map(of).collect()
}

/// The value at a JSON pointer, as text.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// What an object is, for messages: `Deployment culvert-relay`.
pub(crate) fn title(object: &Value) -> String {
    format!("{} {}", text(object, "/kind"), text(object, "/metadata/name"))
}

/// The pod that an object describes, if it does.
pub(crate) fn pod(object: &Value) -> Option<&Value> {
    match text(object, "/kind") {
        "Pod" => object.get("spec"),
        "Deployment" | "StatefulSet" | "Job" => object.pointer("/spec/template/spec"),
        _ => None,
    }
}

/// All containers of a pod, those that run before it included.
pub(crate) fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers"].into_iter().filter_map(|key| pod.get(key)?.as_array()).flatten()
}

/// The labels, or what else has such entries, at a JSON pointer.
pub(crate) fn labels(object: &Value, at: &str) -> BTreeMap<String, String> {
    let labels = object.pointer(at).and_then(Value::as_object);
    let entry =
        |(key, value): (&String, &Value)| (key.clone(), value.as_str().unwrap_or_default().to_owned());
    labels.into_iter().flatten().map(entry).collect()
}

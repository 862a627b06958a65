//! What Helm makes of the chart and some values.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::{tools, yaml};

/// A values file of the matrix.
#[derive(Debug, Clone)]
pub struct Case {
    /// Its name, without ending.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
}

/// Every values file in `ci/`, in order.
pub fn matrix() -> Vec<Case> {
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

/// `helm template`, as at an installation into the namespace `relays`.
pub fn template(helm: &Path, values: Option<&Path>, more: &[&str]) -> (bool, String, String) {
    let mut command = Command::new(helm);
    command.args(["template", "culvert"]).arg(tools::chart()).args(["--namespace", "relays"]);
    if let Some(values) = values {
        command.arg("--values").arg(values);
    }
    tools::run(command.args(more))
}

/// The manifests, which there must be.
pub fn manifests(helm: &Path, case: &Case) -> String {
    let (done, out, err) = template(helm, Some(&case.path), &[]);
    assert!(done, "{}: {err}", case.name);
    out
}

/// Every object of every case, with the case's name.
pub fn objects(helm: &Path) -> Vec<(String, Value)> {
    let of = |case: Case| {
        let objects = yaml::documents(&manifests(helm, &case));
        objects.into_iter().map(move |object| (case.name.clone(), object))
    };
    matrix().into_iter().flat_map(of).collect()
}

/// The value at a JSON pointer, as text.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// What an object is, for messages: `Deployment culvert-relay`.
pub fn title(object: &Value) -> String {
    format!("{} {}", text(object, "/kind"), text(object, "/metadata/name"))
}

/// The pod that an object describes, if it does.
pub fn pod(object: &Value) -> Option<&Value> {
    match text(object, "/kind") {
        "Pod" => object.get("spec"),
        "Deployment" | "StatefulSet" | "Job" => object.pointer("/spec/template/spec"),
        _ => None,
    }
}

/// All containers of a pod, those that run before it included.
pub fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers"].into_iter().filter_map(|key| pod.get(key)?.as_array()).flatten()
}

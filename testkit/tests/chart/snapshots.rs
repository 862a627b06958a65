//! Manifests for every values file: they pass lint and validation, and are those that were reviewed.

use std::process::Command;

use crate::render::{kubernetes, manifests, matrix, template};
use crate::{tools, yaml};

#[test]
fn lint_finds_nothing_in_any_values_file() {
    let Some(helm) = tools::helm() else { return };
    for case in matrix() {
        let mut lint = Command::new(&helm);
        lint.args(["lint", "--strict", "--quiet", "--kube-version", &kubernetes("newest")])
            .arg(tools::chart())
            .arg("--values")
            .arg(&case.path);
        let (done, out, err) = tools::run(&mut lint);
        assert!(done, "{}: {out}{err}", case.name);
    }
}

#[test]
fn manifests_are_those_that_were_reviewed() {
    let Some(helm) = tools::helm() else { return };
    let folder = tools::chart().join("ci/snapshots");
    let mut expected = Vec::new();
    for case in matrix() {
        expected.push(format!("{}.yaml", case.name));
        let text = without_chance(&manifests(&helm, &case));
        tools::assert_fresh(&folder.join(expected.last().unwrap()), &text);
    }
    let mut found: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(found, expected, "snapshots without a values file, or the other way round");
}

/// Secrets that the chart generates differ each time; their shape is checked elsewhere. Dashboards and rules are
/// compared with those in `deploy/`.
pub(crate) fn without_chance(manifests: &str) -> String {
    let mut kept = String::new();
    for document in manifests.split("---\n").filter(|document| !document.trim().is_empty()) {
        let kinds = ["kind: Secret\n", "kind: ConfigMap\n", "kind: PrometheusRule\n"];
        if !kinds.iter().any(|kind| document.contains(kind)) {
            kept.push_str(&format!("---\n{document}"));
            continue;
        }
        let object = yaml::document(document);
        let is = |kind: &str, part: &str| {
            object["kind"] == kind && object["metadata"]["labels"]["app.kubernetes.io/component"] == part
        };
        let cut = match () {
            () if is("Secret", "evaluation") => Some("\ndata:\n"),
            () if is("ConfigMap", "dashboard") => Some("\ndata:\n"),
            () if is("PrometheusRule", "rules") => Some("\nspec:\n"),
            () => None,
        };
        kept.push_str("---\n");
        match cut.and_then(|cut| document.split_once(cut).map(|(head, body)| (head, cut, body))) {
            Some((head, cut, body)) => {
                kept.push_str(head);
                kept.push_str(cut);
                // The names of what is in it, each once.
                for line in body.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   ")) {
                    let key = line.split_once(':').map_or(line, |(key, _)| key);
                    kept.push_str(&format!("{key}: (not in the snapshot)\n"));
                }
            }
            None => kept.push_str(document),
        }
    }
    kept
}

#[test]
fn the_oldest_and_the_newest_kubernetes_accept_every_manifest() {
    let (Some(helm), Some(kubeconform)) = (tools::helm(), tools::kubeconform()) else { return };
    let schemas = culvert_testkit::binaries::workspace().join("testkit/tests/chart/schemas");
    for version in [kubernetes("oldest"), kubernetes("newest")] {
        let version = version.as_str();
        for case in matrix() {
            // A hook for upgrades is part of it, too.
            let more = ["--kube-version", version, "--is-upgrade"];
            let (done, out, err) = template(&helm, Some(&case.path), &more);
            assert!(done, "{} on {version}: {err}", case.name);
            let rendered = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
            std::fs::write(rendered.path(), &out).unwrap();
            let mut validate = Command::new(&kubeconform);
            validate.args(["-strict", "-summary", "-kubernetes-version", version]);
            for place in ["{{.NormalizedKubernetesVersion}}", "custom"] {
                let schema = schemas.join(place).join("{{.ResourceKind}}{{.KindSuffix}}.json");
                validate.arg("-schema-location").arg(schema);
            }
            let (valid, said, err) = tools::run(validate.arg(rendered.path()));
            assert!(valid, "{} on {version}: {said}{err}", case.name);
            assert!(said.contains("Skipped: 0") && !said.contains("Valid: 0"), "{}: {said}", case.name);
        }
    }
}

#[test]
fn a_kubernetes_older_than_the_oldest_is_refused() {
    let Some(helm) = tools::helm() else { return };
    let (done, _, err) = template(&helm, None, &["--kube-version", "1.28.0"]);
    assert!(!done && err.contains("1.29"), "{err}");
}

#[test]
fn validation_finds_a_field_that_does_not_exist() {
    let Some(kubeconform) = tools::kubeconform() else { return };
    let schemas = culvert_testkit::binaries::workspace().join("testkit/tests/chart/schemas");
    let objects = [
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 443, targetPart: tls}]}\n",
        "apiVersion: v1\nkind: Service\nmetadata: {name: a, lables: {}}\nspec: {ports: [{port: 443}]}\n",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: TLSRoute\nmetadata: {name: a}\nspec: {hostnames: [a.b], \
         rules: [{backendRef: []}]}\n",
        "apiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata: {name: a}\nspec: {secret: a}\n",
        "apiVersion: monitoring.coreos.com/v1\nkind: PodMonitor\nmetadata: {name: a}\nspec: {selector: {}, \
         podMetricsEndpoints: [{prot: admin}]}\n",
    ];
    for object in objects {
        let rendered = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
        std::fs::write(rendered.path(), object).unwrap();
        let mut validate = Command::new(&kubeconform);
        validate.args(["-strict", "-kubernetes-version", "1.29.0"]);
        for place in ["{{.NormalizedKubernetesVersion}}", "custom"] {
            let schema = schemas.join(place).join("{{.ResourceKind}}{{.KindSuffix}}.json");
            validate.arg("-schema-location").arg(schema);
        }
        let (valid, said, _) = tools::run(validate.arg(rendered.path()));
        assert!(!valid && said.contains("additional properties"), "{object}: {said}");
    }
}

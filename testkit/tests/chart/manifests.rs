//! What holds for every manifest of every values file.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::render::{Case, containers, labels, manifests, matrix, objects, pod, template, text, title};
use crate::{tools, yaml};

/// The objects of a case, as at an upgrade.
fn upgraded(helm: &std::path::Path, case: &Case) -> Vec<Value> {
    let (done, out, err) = template(helm, Some(&case.path), &["--is-upgrade"]);
    assert!(done, "{}: {err}", case.name);
    yaml::documents(&out)
}

/// The settings of a part, from its ConfigMap.
fn settings(objects: &[Value], part: &str) -> Option<toml::Table> {
    let file = format!("/data/{part}.toml");
    let text = objects.iter().find_map(|object| object.pointer(&file)?.as_str())?;
    Some(text.parse().unwrap_or_else(|error| panic!("{part}.toml: {error}: {text}")))
}

fn holds(labels: &BTreeMap<String, String>, selector: &BTreeMap<String, String>) -> bool {
    !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn pod_labels(object: &Value) -> BTreeMap<String, String> {
    let at =
        if text(object, "/kind") == "Pod" { "/metadata/labels" } else { "/spec/template/metadata/labels" };
    labels(object, at)
}

#[test]
fn a_pod_has_more_time_to_stop_than_its_program_takes_to_drain() {
    let Some(helm) = tools::helm() else { return };
    let mut seen = 0;
    for case in matrix() {
        let objects = yaml::documents(&manifests(&helm, &case));
        for part in ["relay", "broker-api"] {
            let Some(settings) = settings(&objects, part) else { continue };
            let seconds = |key: &str| -> u64 {
                let text = settings[key].as_str().unwrap();
                text.strip_suffix('s').unwrap().parse().unwrap()
            };
            let drain = seconds("drain-delay") + seconds("drain-window") + 2 * seconds("drain-grace");
            let deployment = objects.iter().find(|object| {
                text(object, "/kind") == "Deployment"
                    && labels(object, "/metadata/labels")["app.kubernetes.io/component"] == part
            });
            let grace = pod(deployment.unwrap()).unwrap()["terminationGracePeriodSeconds"].as_u64().unwrap();
            assert!(grace >= drain, "{}: {part} has {grace} s and drains for {drain} s", case.name);
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn a_disruption_budget_always_lets_a_pod_go() {
    let Some(helm) = tools::helm() else { return };
    let mut seen = 0;
    for case in matrix() {
        let objects = yaml::documents(&manifests(&helm, &case));
        for budget in objects.iter().filter(|object| text(object, "/kind") == "PodDisruptionBudget") {
            let selector = labels(budget, "/spec/selector/matchLabels");
            let owner =
                objects.iter().find(|object| pod(object).is_some() && holds(&pod_labels(object), &selector));
            let owner = owner.unwrap_or_else(|| panic!("{}: {} is for no pod", case.name, title(budget)));
            let scaler = objects.iter().find(|object| {
                text(object, "/kind") == "HorizontalPodAutoscaler"
                    && text(object, "/spec/scaleTargetRef/name") == text(owner, "/metadata/name")
            });
            let fewest = scaler.map_or(&owner["spec"]["replicas"], |scaler| &scaler["spec"]["minReplicas"]);
            let fewest = fewest.as_u64().unwrap();
            let count = |value: &Value| match value.as_str() {
                // Both kinds are rounded up by Kubernetes.
                Some(percent) => {
                    (percent.trim_end_matches('%').parse::<u64>().unwrap() * fewest).div_ceil(100)
                }
                None => value.as_u64().unwrap(),
            };
            let may_go = match (&budget["spec"]["minAvailable"], &budget["spec"]["maxUnavailable"]) {
                (Value::Null, most) => count(most),
                (least, Value::Null) => fewest.saturating_sub(count(least)),
                both => panic!("{}: {both:?}", case.name),
            };
            assert!(may_go >= 1, "{}: {} keeps all of {fewest} pods", case.name, title(budget));
            seen += 1;
        }
    }
    assert!(seen > 15, "{seen}");
}

#[test]
fn every_pod_is_restricted() {
    let Some(helm) = tools::helm() else { return };
    for case in matrix() {
        for object in upgraded(&helm, &case) {
            let Some(pod) = pod(&object) else { continue };
            let what = format!("{}: {}", case.name, title(&object));
            assert_eq!(pod["automountServiceAccountToken"], false, "{what}");
            assert_eq!(pod["enableServiceLinks"], false, "{what}");
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{what}");
            assert_ne!(pod["securityContext"]["runAsUser"].as_u64(), Some(0), "{what}");
            assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{what}");
            for forbidden in ["hostNetwork", "hostPID", "hostIPC"] {
                assert!(pod.get(forbidden).is_none(), "{what}");
            }
            for container in containers(pod) {
                let context = &container["securityContext"];
                assert_eq!(context["allowPrivilegeEscalation"], false, "{what}");
                assert_eq!(context["readOnlyRootFilesystem"], true, "{what}");
                assert_eq!(context["capabilities"], serde_json::json!({"drop": ["ALL"]}), "{what}");
                let resources = &container["resources"];
                assert!(resources["requests"]["memory"].is_string(), "{what}");
                assert!(resources["limits"]["memory"].is_string(), "{what}");
            }
        }
    }
}

#[test]
fn liveness_and_readiness_ask_different_questions() {
    let Some(helm) = tools::helm() else { return };
    for (case, object) in objects(&helm) {
        let component = &labels(&object, "/metadata/labels").remove("app.kubernetes.io/component");
        if text(&object, "/kind") != "Deployment" || component.as_deref() == Some("redis") {
            continue;
        }
        let container = &object["spec"]["template"]["spec"]["containers"][0];
        let asks = |probe: &str| text(container, &format!("/{probe}/httpGet/path")).to_owned();
        let what = format!("{case}: {}", title(&object));
        assert_eq!(
            (asks("startupProbe"), asks("livenessProbe")),
            ("/livez".into(), "/livez".into()),
            "{what}"
        );
        assert_eq!(asks("readinessProbe"), "/readyz", "{what}");
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            assert_eq!(container[probe]["httpGet"]["port"], "admin", "{what}");
        }
        // A liveness that gives up as soon as readiness restarts what is only busy.
        let patience = |probe: &str| {
            let probe = &container[probe];
            probe["periodSeconds"].as_u64().unwrap() * probe["failureThreshold"].as_u64().unwrap()
        };
        assert!(patience("livenessProbe") > 5 * patience("readinessProbe"), "{what}");
    }
}

#[test]
fn an_autoscaler_has_the_replicas_to_itself() {
    let Some(helm) = tools::helm() else { return };
    let mut seen = 0;
    for case in matrix() {
        let objects = yaml::documents(&manifests(&helm, &case));
        for scaler in objects.iter().filter(|object| text(object, "/kind") == "HorizontalPodAutoscaler") {
            let target = text(scaler, "/spec/scaleTargetRef/name");
            let of_target = |object: &&Value| {
                text(object, "/kind") == "Deployment" && text(object, "/metadata/name") == target
            };
            let deployment = objects.iter().find(of_target).unwrap();
            assert!(deployment["spec"].get("replicas").is_none(), "{}: {target}", case.name);
            seen += 1;
        }
    }
    assert_eq!(seen, 2);
}

#[test]
fn what_selects_pods_finds_them() {
    let Some(helm) = tools::helm() else { return };
    for case in matrix() {
        let objects = upgraded(&helm, &case);
        let pods: Vec<_> = objects.iter().filter(|object| pod(object).is_some()).map(pod_labels).collect();
        for object in &objects {
            let kind = text(object, "/kind");
            let at = match kind {
                "Service" => "/spec/selector",
                "Deployment" | "StatefulSet" | "PodDisruptionBudget" | "PodMonitor" => {
                    "/spec/selector/matchLabels"
                }
                "NetworkPolicy" => "/spec/podSelector/matchLabels",
                _ => continue,
            };
            let selector = labels(object, at);
            let found = pods.iter().filter(|pod| holds(pod, &selector)).count();
            assert_eq!(found, 1, "{}: {}", case.name, title(object));
        }
        for monitor in objects.iter().filter(|object| text(object, "/kind") == "ServiceMonitor") {
            let selector = labels(monitor, "/spec/selector/matchLabels");
            let is_found = |object: &&Value| {
                text(object, "/kind") == "Service" && holds(&labels(object, "/metadata/labels"), &selector)
            };
            assert_eq!(objects.iter().filter(is_found).count(), 1, "{}: {}", case.name, title(monitor));
        }
    }
}

#[test]
fn names_are_given_once() {
    let Some(helm) = tools::helm() else { return };
    for case in matrix() {
        let mut names = BTreeSet::new();
        for object in upgraded(&helm, &case) {
            assert!(names.insert(title(&object)), "{}: {} twice", case.name, title(&object));
            assert_eq!(text(&object, "/metadata/namespace"), "relays", "{}: {}", case.name, title(&object));
        }
    }
}

/// The Secrets that a pod needs.
fn secrets(pod: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for volume in pod["volumes"].as_array().into_iter().flatten() {
        found.extend(volume.pointer("/secret/secretName").and_then(Value::as_str).map(str::to_owned));
        for source in volume.pointer("/projected/sources").and_then(Value::as_array).into_iter().flatten() {
            found.extend(source.pointer("/secret/name").and_then(Value::as_str).map(str::to_owned));
        }
    }
    found
}

#[test]
fn secrets_come_as_files_only() {
    let Some(helm) = tools::helm() else { return };
    let mut generated = 0;
    for case in matrix() {
        let rendered = yaml::documents(&manifests(&helm, &case));
        let mut values = Vec::new();
        for secret in rendered.iter().filter(|object| text(object, "/kind") == "Secret") {
            for (key, value) in secret["data"].as_object().unwrap() {
                let value = data_encoding::BASE64.decode(value.as_str().unwrap().as_bytes()).unwrap();
                assert!(!value.is_empty(), "{}: {key}", case.name);
                values.push((key.clone(), String::from_utf8(value).unwrap(), value_is_public(key)));
            }
            generated += 1;
        }
        for object in rendered.iter().filter(|object| text(object, "/kind") != "Secret") {
            let all = object.to_string();
            for (key, value, public) in &values {
                assert!(*public || !all.contains(value), "{}: {} shows {key}", case.name, title(object));
            }
            let Some(pod) = pod(object) else { continue };
            for container in containers(pod) {
                for variable in container["env"].as_array().into_iter().flatten() {
                    let name = text(variable, "/name");
                    let secret = ["PASSWORD", "TOKEN", "SECRET", "KEYS", "DATABASE_URL"];
                    let is_secret = secret.iter().any(|word| name.contains(word)) && !name.ends_with("_FILE");
                    assert!(!is_secret, "{}: {} has {name} in its environment", case.name, title(object));
                }
            }
        }
    }
    assert!(generated > 4, "{generated}");
}

fn value_is_public(key: &str) -> bool {
    ["ca.crt", "tls.crt"].contains(&key)
}

#[test]
fn what_a_pod_mounts_exists_or_was_named_by_the_operator() {
    let Some(helm) = tools::helm() else { return };
    for case in matrix() {
        let objects = yaml::documents(&manifests(&helm, &case));
        let values = std::fs::read_to_string(&case.path).unwrap();
        let made: BTreeSet<_> = objects
            .iter()
            .flat_map(|object| match text(object, "/kind") {
                "Secret" | "ConfigMap" => vec![text(object, "/metadata/name").to_owned()],
                "Certificate" => vec![text(object, "/spec/secretName").to_owned()],
                _ => vec![],
            })
            .collect();
        for object in &objects {
            let Some(pod) = pod(object) else { continue };
            for name in secrets(pod) {
                assert!(made.contains(&name) || values.contains(&name), "{}: {name}", case.name);
            }
            for volume in pod["volumes"].as_array().into_iter().flatten() {
                let Some(name) = volume.pointer("/configMap/name").and_then(Value::as_str) else { continue };
                assert!(made.contains(name) || values.contains(name), "{}: {name}", case.name);
            }
            let volumes: BTreeSet<&str> =
                pod["volumes"].as_array().into_iter().flatten().map(|volume| text(volume, "/name")).collect();
            let claims = object.pointer("/spec/volumeClaimTemplates").and_then(Value::as_array);
            let claims: BTreeSet<&str> =
                claims.into_iter().flatten().map(|claim| text(claim, "/metadata/name")).collect();
            for mount in containers(pod).flat_map(|container| container["volumeMounts"].as_array().unwrap()) {
                let name = text(mount, "/name");
                assert!(volumes.contains(name) || claims.contains(name), "{}: no volume {name}", case.name);
            }
        }
    }
}

/// A hook runs before anything of the release is there: it may need only what was there before.
#[test]
fn the_migrations_before_an_upgrade_need_nothing_that_comes_with_it() {
    let Some(helm) = tools::helm() else { return };
    let mut seen = 0;
    for case in matrix() {
        let objects = upgraded(&helm, &case);
        let hooks = objects.iter().filter(|object| {
            object.pointer("/metadata/annotations/helm.sh~1hook").and_then(Value::as_str)
                == Some("pre-upgrade")
        });
        for hook in hooks {
            // The other one is the policy that lets it out.
            let Some(pod) = pod(hook) else { continue };
            let made: BTreeSet<&str> = objects
                .iter()
                .filter(|object| ["Secret", "ConfigMap", "ServiceAccount"].contains(&text(object, "/kind")))
                .map(|object| text(object, "/metadata/name"))
                .collect();
            for name in secrets(pod) {
                assert!(!made.contains(name.as_str()), "{}: {name} comes with the release", case.name);
            }
            assert!(!pod["volumes"].to_string().contains("configMap\":{\"name\":\"culvert"), "{}", case.name);
            let account = text(pod, "/serviceAccountName");
            assert!(!made.contains(account), "{}: {account} comes with the release", case.name);
            assert_eq!(text(pod, "/restartPolicy"), "Never", "{}", case.name);
            // The job's deadline takes the log with it: the pod has ended by then, and has it.
            let seconds = |of: &Value, key: &str| of[key].as_u64().unwrap();
            let ends = seconds(pod, "activeDeadlineSeconds") + seconds(pod, "terminationGracePeriodSeconds");
            assert!(ends < seconds(&hook["spec"], "activeDeadlineSeconds"), "{}: after {ends} s", case.name);
            assert_eq!(pod["containers"][0]["args"], serde_json::json!(["migrate"]), "{}", case.name);
            seen += 1;
        }
    }
    assert!(seen >= 6, "{seen}");
}

#[test]
fn new_settings_start_new_pods() {
    let Some(helm) = tools::helm() else { return };
    let case = matrix().into_iter().find(|case| case.name == "production").unwrap();
    let checksum = |more: &[&str]| {
        let (done, out, err) = template(&helm, Some(&case.path), more);
        assert!(done, "{err}");
        let objects = yaml::documents(&out);
        let relay = objects.iter().find(|object| title(object) == "Deployment culvert-relay").unwrap();
        text(relay, "/spec/template/metadata/annotations/checksum~1config").to_owned()
    };
    let before = checksum(&[]);
    assert_eq!(before.len(), 64);
    assert_eq!(checksum(&["--set", "relay.labels.a=b"]), before);
    assert_ne!(checksum(&["--set", "relay.settings.max-topics-per-connection=7"]), before);
}

//! What a trial generated stays through upgrades.
//!
//! Helm is the real one; the cluster that it looks Secrets up in is a listener that knows of nothing else. A whole
//! cluster is in `deploy/check-cluster.sh`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::render::{kubernetes, labels, text, title};
use crate::{tools, yaml};

/// The part of the API of Kubernetes by which Helm looks up what a trial generated, and its database.
struct Api {
    address: std::net::SocketAddr,
    /// By the path under which they are asked for.
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    folder: tempfile::TempDir,
}

impl Api {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (objects, ended) = (Arc::<Mutex<_>>::default(), Arc::<AtomicBool>::default());
        let thread = std::thread::spawn({
            let (objects, ended) = (objects.clone(), ended.clone());
            move || {
                for stream in listener.incoming() {
                    if ended.load(Ordering::Acquire) {
                        break;
                    }
                    answer(&stream.unwrap(), &objects.lock().unwrap());
                }
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": format!("http://{address}")}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "nobody"}}],
            "users": [{"name": "nobody", "user": {}}],
        });
        std::fs::write(folder.path().join("config"), config.to_string()).unwrap();
        Self { address, objects, ended, thread: Some(thread), folder }
    }

    /// What Helm makes of the chart for this cluster.
    fn render(&self, helm: &std::path::Path, more: &[&str]) -> Vec<Value> {
        let mut command = Command::new(helm);
        command.args(["template", "culvert"]).arg(tools::chart()).args(["--namespace", "relays"]);
        command
            .args(["--kube-version", &kubernetes("newest"), "--dry-run=server", "--kubeconfig"])
            .arg(self.folder.path().join("config"));
        // Not the cache of discovery of whoever runs this.
        command.env("HOME", self.folder.path()).env_remove("KUBECONFIG");
        let (done, out, err) = tools::run(command.args(more));
        assert!(done, "{err}");
        yaml::documents(&out)
    }

    /// Takes what is looked up of an installation.
    fn install(&self, objects: &[Value]) {
        for object in objects {
            let folder = match text(object, "/kind") {
                "Secret" => "/api/v1/namespaces/relays/secrets",
                "StatefulSet" => "/apis/apps/v1/namespaces/relays/statefulsets",
                _ => continue,
            };
            let path = format!("{folder}/{}", text(object, "/metadata/name"));
            self.objects.lock().unwrap().insert(path, object.clone());
        }
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        // Wakes the listener up.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One request on one connection.
fn answer(mut stream: &TcpStream, objects: &BTreeMap<String, Value>) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let request = lines.next().unwrap_or_default();
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    let path = request.split(' ').nth(1).and_then(|path| path.split('?').next()).unwrap_or_default();
    let version = json!({"groupVersion": "apps/v1", "version": "v1"});
    let resource =
        |name: &str, kind: &str| json!({"name": name, "namespaced": true, "kind": kind, "verbs": ["get"]});
    let found = match path {
        "/version" => Some(json!({"major": "1", "minor": "37", "gitVersion": "v1.37.0"})),
        "/api" => Some(json!({"kind": "APIVersions", "versions": ["v1"]})),
        "/api/v1" => {
            let resources = [resource("secrets", "Secret")];
            Some(json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": resources}))
        }
        "/apis" => {
            let apps = json!({"name": "apps", "versions": [version], "preferredVersion": version});
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [apps]}))
        }
        "/apis/apps/v1" => {
            let resources = [resource("statefulsets", "StatefulSet")];
            Some(json!({"kind": "APIResourceList", "groupVersion": "apps/v1", "resources": resources}))
        }
        path => objects.get(path).cloned(),
    };
    let (status, body) = match found {
        Some(body) => ("200 OK", body),
        None => (
            "404 Not Found",
            json!({"kind": "Status", "apiVersion": "v1", "reason": "NotFound", "code": 404}),
        ),
    };
    let body = body.to_string();
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n");
    // Helm hears of it when a connection breaks.
    let _ = write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len());
}

/// The data of a Secret among the objects.
fn data<'a>(objects: &'a [Value], name: &str) -> &'a Value {
    let is_it = |object: &&Value| title(object) == format!("Secret {name}");
    &objects.iter().find(is_it).unwrap_or_else(|| panic!("no Secret {name}"))["data"]
}

fn has_hook(objects: &[Value]) -> bool {
    objects.iter().any(|object| title(object) == "Job culvert-migrations")
}

#[test]
fn what_a_trial_generated_is_the_same_after_an_upgrade() {
    let Some(helm) = tools::helm() else { return };
    let api = Api::start();
    let installed = api.render(&helm, &[]);
    assert_ne!(data(&installed, "culvert-evaluation"), data(&api.render(&helm, &[]), "culvert-evaluation"));
    api.install(&installed);
    let upgraded = api.render(&helm, &["--is-upgrade", "--set", "relay.replicas=5"]);
    for name in ["culvert-evaluation", "culvert-evaluation-tls"] {
        assert_eq!(data(&upgraded, name), data(&installed, name), "{name}");
    }
}

#[test]
fn an_older_trial_gets_what_it_lacks_and_keeps_what_it_has() {
    let Some(helm) = tools::helm() else { return };
    let api = Api::start();
    let mut installed = api.render(&helm, &[]);
    for object in &mut installed {
        if title(object) == "Secret culvert-evaluation" {
            object["data"].as_object_mut().unwrap().remove("access-token");
        }
    }
    api.install(&installed);
    let upgraded = api.render(&helm, &["--is-upgrade"]);
    let (before, after) = (data(&installed, "culvert-evaluation"), data(&upgraded, "culvert-evaluation"));
    for (key, value) in before.as_object().unwrap() {
        assert_eq!(&after[key], value, "{key}");
    }
    assert!(after["access-token"].as_str().is_some_and(|token| token.len() > 40), "{after}");
}

#[test]
fn a_new_host_name_makes_a_new_certificate_and_nothing_else() {
    let Some(helm) = tools::helm() else { return };
    let api = Api::start();
    let installed = api.render(&helm, &[]);
    api.install(&installed);
    let upgraded = api.render(&helm, &["--is-upgrade", "--set", "relay.host=relay.example.org"]);
    assert_ne!(data(&upgraded, "culvert-evaluation-tls"), data(&installed, "culvert-evaluation-tls"));
    assert_eq!(data(&upgraded, "culvert-evaluation"), data(&installed, "culvert-evaluation"));
}

/// The job runs before the upgrade brings anything: with a database that is not there yet it would wait for ever.
#[test]
fn a_trial_has_migrations_before_an_upgrade_when_its_database_is_there() {
    let Some(helm) = tools::helm() else { return };
    let api = Api::start();
    // The upgrade that enables the broker brings its database.
    api.install(&api.render(&helm, &["--set", "broker.enabled=false"]));
    assert!(!has_hook(&api.render(&helm, &["--is-upgrade"])));
    api.install(&api.render(&helm, &[]));
    assert!(has_hook(&api.render(&helm, &["--is-upgrade"])));
    assert!(!has_hook(&api.render(&helm, &["--is-upgrade", "--set", "broker.migrations.hook=false"])));
}

/// Whoever a policy lets in at one end is let out at the other.
#[test]
fn parts_of_a_trial_reach_each_other_through_the_network_policies() {
    let Some(helm) = tools::helm() else { return };
    let api = Api::start();
    api.install(&api.render(&helm, &[]));
    let objects = api.render(&helm, &["--is-upgrade"]);
    let policy = |part: &str| {
        let of_part = |object: &&Value| {
            text(object, "/kind") == "NetworkPolicy"
                && labels(object, "/spec/podSelector/matchLabels")["app.kubernetes.io/component"] == part
        };
        objects.iter().find(of_part).unwrap_or_else(|| panic!("{part} has no policy"))
    };
    let allows = |part: &str, way: &str, peer: &str, port: u64| {
        let rules = policy(part)["spec"][way].as_array().cloned().unwrap_or_default();
        rules.iter().any(|rule| {
            let ports = rule["ports"].as_array();
            let at_port = ports.is_none_or(|ports| ports.iter().any(|entry| entry["port"] == port));
            let peers = rule[if way == "egress" { "to" } else { "from" }].as_array();
            let with_peer = peers.is_none_or(|peers| {
                peers.iter().any(|entry| {
                    labels(entry, "/podSelector/matchLabels")
                        .get("app.kubernetes.io/component")
                        .is_some_and(|component| component == peer)
                })
            });
            at_port && with_peer
        })
    };
    for (from, to, port) in [
        ("relay", "redis", 6379),
        ("relay", "broker-api", 8443),
        ("broker-api", "redis", 6379),
        ("broker-api", "postgres", 5432),
        ("migrations", "postgres", 5432),
    ] {
        assert!(allows(from, "egress", to, port), "{from} is not let out to {to}");
        assert!(allows(to, "ingress", from, port), "{to} lets {from} not in");
    }
    for (from, to, port) in [("relay", "postgres", 5432), ("migrations", "redis", 6379)] {
        assert!(!allows(from, "egress", to, port), "{from} is let out to {to}");
        assert!(!allows(to, "ingress", from, port), "{to} lets {from} in");
    }
}

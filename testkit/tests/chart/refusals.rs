//! What the chart refuses, each with a sentence that says what to do.

use serde_json::Value;

use crate::render::template;
use crate::tools;

/// What is wrong, the values that have it (beside those of `ci/production.yaml`), and what is said.
const REFUSED: &[(&str, &str, &str)] = &[
    ("no host name", r#"{"relay.host": ""}"#, "relay.host is missing"),
    ("no host name of the broker", r#"{"broker.host": ""}"#, "broker.host is missing"),
    (
        "two sources of a certificate",
        r#"{"relay.tls.certManager.enabled": true, "relay.tls.certManager.issuerRef.name": "a"}"#,
        "relay.tls has existingSecret and certManager: choose one of them",
    ),
    (
        "a certificate and none",
        r#"{"broker.tls.behindTls": true}"#,
        "broker.tls has existingSecret and behindTls: choose one of them",
    ),
    (
        "no certificate",
        r#"{"relay.tls.existingSecret": ""}"#,
        "relay.tls has no certificate: give tls.existingSecret",
    ),
    (
        "no certificate for the broker",
        r#"{"broker.tls.existingSecret": ""}"#,
        "broker.tls has no certificate",
    ),
    (
        "no issuer",
        r#"{"relay.tls.existingSecret": "", "relay.tls.certManager.enabled": true}"#,
        "relay.tls.certManager needs issuerRef.name",
    ),
    (
        "nothing to certify",
        r#"{"evaluation.enabled": true, "relay.host": "", "relay.tls.existingSecret": "",
            "relay.tls.certManager.enabled": true, "relay.tls.certManager.issuerRef.name": "a"}"#,
        "relay.tls.certManager needs relay.host",
    ),
    ("a route to nowhere", r#"{"relay.tlsRoute.enabled": true}"#, "relay.tlsRoute needs parentRefs"),
    (
        "a route of TLS to clear text",
        r#"{"relay.tlsRoute.enabled": true, "relay.tlsRoute.parentRefs": [{"name": "a"}],
            "relay.tls.existingSecret": "", "relay.tls.plainText": true}"#,
        "relay.tlsRoute leaves TLS to the pods",
    ),
    (
        "an autoscaler and fixed replicas",
        r#"{"relay.autoscaling.enabled": true}"#,
        "relay.replicas is fixed and relay.autoscaling is on: leave replicas at null",
    ),
    (
        "more than the most",
        r#"{"broker.autoscaling.enabled": true, "broker.autoscaling.minReplicas": 9}"#,
        "broker.autoscaling.minReplicas (9) is more than maxReplicas (6)",
    ),
    (
        "an autoscaler that follows nothing",
        r#"{"broker.autoscaling.enabled": true, "broker.autoscaling.cpuPercent": null}"#,
        "broker.autoscaling has nothing to follow",
    ),
    (
        "a share of nothing",
        r#"{"broker.autoscaling.enabled": true, "broker.resources.requests": null}"#,
        "is a share of broker.resources.requests.cpu, which is missing",
    ),
    (
        "two relays without Redis",
        r#"{"redis": {"enabled": false}}"#,
        "relay has up to 5 pods and redis.enabled is false: without Redis there can be one only",
    ),
    (
        "a budget of two kinds",
        r#"{"relay.pdb.maxUnavailable": 1}"#,
        "relay.pdb has minAvailable and maxUnavailable",
    ),
    (
        "a budget that keeps all",
        r#"{"relay.pdb.minAvailable": 5}"#,
        "relay.pdb.minAvailable (5) keeps all of 5 pods, so that no node could ever be drained",
    ),
    (
        "a budget that keeps all by rounding up",
        r#"{"relay.pdb.minAvailable": "81%"}"#,
        "relay.pdb.minAvailable (81%) keeps all of 5 pods",
    ),
    (
        "a budget that keeps the one of an autoscaler",
        r#"{"broker.autoscaling.enabled": true, "broker.autoscaling.minReplicas": 1, "broker.pdb.minAvailable": 1}"#,
        "broker.pdb.minAvailable (1) keeps all of 1 pods",
    ),
    (
        "a budget that lets none go",
        r#"{"relay.pdb.minAvailable": null, "relay.pdb.maxUnavailable": "0%"}"#,
        "relay.pdb.maxUnavailable (0%) lets no pod go",
    ),
    (
        "a rollout that cannot begin",
        r#"{"relay.rollingUpdate.maxSurge": 0}"#,
        "so that no rollout could begin",
    ),
    (
        "a grace shorter than the drain",
        r#"{"relay.terminationGracePeriodSeconds": 34}"#,
        "relay.terminationGracePeriodSeconds (34) is shorter than a drain (35, of relay.drain)",
    ),
    (
        "a grace that a longer drain outgrew",
        r#"{"broker.terminationGracePeriodSeconds": 60, "broker.drain.windowSeconds": 120}"#,
        "broker.terminationGracePeriodSeconds (60) is shorter than a drain (135, of broker.drain)",
    ),
    (
        "nobody is let in",
        r#"{"broker.enabled": false, "relay.admission.accessToken.existingSecret": ""}"#,
        "relay.admission lets nobody in",
    ),
    (
        "everybody is let in",
        r#"{"relay.admission.open": true, "relay.admission.accessToken.existingSecret": ""}"#,
        "relay.admission.open needs accessToken.existingSecret",
    ),
    ("no Redis", r#"{"redis.addresses": []}"#, "redis.addresses is missing"),
    (
        "a trial's Redis Cluster",
        r#"{"evaluation.enabled": true, "redis": {"addresses": [], "mode": "cluster"}}"#,
        "the evaluation's own Redis is standalone",
    ),
    (
        "Sentinels without a master",
        r#"{"redis.mode": "sentinel"}"#,
        "redis.mode is sentinel and redis.sentinelMaster is missing",
    ),
    ("a master without Sentinels", r#"{"redis.sentinelMaster": "a"}"#, "are for redis.mode sentinel"),
    (
        "several servers",
        r#"{"redis.addresses": ["redis://a:1", "redis://b:1"]}"#,
        "redis.addresses has several servers and redis.mode is standalone",
    ),
    (
        "TLS to one of two",
        r#"{"redis.mode": "cluster", "redis.addresses": ["redis://a:1", "rediss://b:1"]}"#,
        "redis.addresses mixes redis:// and rediss://",
    ),
    (
        "an authority for clear text",
        r#"{"redis.ca.existingSecret": "a"}"#,
        "redis.ca is given and redis:// speaks no TLS",
    ),
    (
        "a user without a password",
        r#"{"redis.password.existingSecret": ""}"#,
        "redis.user needs redis.password",
    ),
    (
        "a watcher without a password",
        r#"{"redis.mode": "sentinel", "redis.sentinelMaster": "a", "redis.sentinelUser": "b"}"#,
        "redis.sentinelUser needs redis.sentinelPassword",
    ),
    ("no database", r#"{"postgres.existingSecret": ""}"#, "postgres.existingSecret is missing"),
    (
        "no data keys",
        r#"{"broker.dataKeys.existingSecret": ""}"#,
        "broker.dataKeys.existingSecret is missing: a Secret with a key from openssl rand -base64 32",
    ),
    (
        "an Ingress for no host",
        r#"{"evaluation.enabled": true, "broker.host": "", "broker.ingress.enabled": true}"#,
        "broker.ingress needs broker.host",
    ),
    (
        "everything scraped twice",
        r#"{"monitoring.serviceMonitor.enabled": true}"#,
        "monitoring has podMonitor and serviceMonitor",
    ),
];

/// What the schema refuses: the values, and where it says that they are wrong.
const WRONG: &[(&str, &str, &str)] = &[
    ("a typo", r#"{"relay.replica": 3}"#, "replica"),
    ("a typo at the top", r#"{"relays.host": "a"}"#, "relays"),
    ("a typo in a probe", r#"{"relay.probes.liveness.period": 3}"#, "period"),
    ("a setting that does not exist", r#"{"relay.settings.max-connection": 3}"#, "max-connection"),
    ("a setting that has a value of its own", r#"{"relay.settings.drain-delay": "1s"}"#, "drain-delay"),
    ("a setting of the relay at the broker", r#"{"broker.settings.peer-bytes": "1MiB"}"#, "peer-bytes"),
    ("text for a number", r#"{"relay.replicas": "three"}"#, "/relay/replicas"),
    ("text for a truth", r#"{"relay.autoscaling.enabled": "yes"}"#, "/relay/autoscaling/enabled"),
    ("an address for a list", r#"{"redis.addresses": "redis://a"}"#, "/redis/addresses"),
    ("a password in an address", r#"{"redis.addresses": ["redis://a:b@c:6379"]}"#, "/redis/addresses/0"),
    ("a kind of Redis that is none", r#"{"redis.mode": "replicated"}"#, "/redis/mode"),
    ("a digest that is none", r#"{"relay.image.digest": "latest"}"#, "/relay/image/digest"),
    (
        "a key set in clear text",
        r#"{"relay.admission.keySets": ["http://a/b"]}"#,
        "/relay/admission/keySets/0",
    ),
    ("a URL for a host", r#"{"relay.host": "https://relay.example.org"}"#, "/relay/host"),
    ("a port that is none", r#"{"broker.service.port": 70000}"#, "/broker/service/port"),
];

/// `helm template` of the production values with changes.
fn changed(changes: &str) -> Option<(bool, String)> {
    let helm = tools::helm()?;
    let changes: Value = serde_json::from_str(changes).unwrap();
    let mut more = Vec::new();
    for (key, value) in changes.as_object().unwrap() {
        more.extend(["--set-json".to_owned(), format!("{key}={value}")]);
    }
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    let (done, _, err) = template(&helm, Some(&tools::chart().join("ci/production.yaml")), &more);
    Some((done, err))
}

#[test]
fn values_that_make_no_installation_are_refused_with_a_sentence() {
    let mut said = String::new();
    for (name, changes, sentence) in REFUSED {
        let Some((done, err)) = changed(changes) else { return };
        assert!(!done && err.contains(sentence), "{name}: {err}");
        assert!(err.contains("The values make no installation"), "{name}: {err}");
        said.push_str(&err);
    }
    for sentence in sentences() {
        assert!(said.contains(&sentence), "no case above makes the chart say: {sentence}");
    }
}

/// The sentences that the chart has, of each the longest part without a placeholder.
fn sentences() -> Vec<String> {
    let checks = std::fs::read_to_string(tools::chart().join("templates/_checks.tpl")).unwrap();
    let sentence = |text: &str| {
        let text = text.trim_start_matches("(printf ").strip_prefix('"').unwrap();
        let (text, _) = text.split_once('"').unwrap();
        let parts = ["%s", "%d", "%v"].iter().fold(text.to_owned(), |text, mark| text.replace(mark, "\0"));
        parts.split('\0').max_by_key(|part| part.len()).unwrap().to_owned()
    };
    let found: Vec<String> = checks.split("append $problems ").skip(1).map(sentence).collect();
    assert!(found.len() > 30, "{found:?}");
    found
}

#[test]
fn typos_and_wrong_types_are_refused() {
    for (name, changes, place) in WRONG {
        let Some((done, err)) = changed(changes) else { return };
        assert!(!done && err.contains("values.schema.json") || err.contains("don't meet"), "{name}: {err}");
        let place = place.replace('/', ".");
        let place = place.trim_start_matches('.');
        let dotted = err.replace('/', ".");
        assert!(dotted.contains(place), "{name}: {err}");
    }
}

#[test]
fn all_problems_are_said_at_once() {
    let changes = r#"{"relay.host": "", "redis.addresses": [], "postgres.existingSecret": ""}"#;
    let Some((done, err)) = changed(changes) else { return };
    assert!(!done);
    for sentence in
        ["- relay.host is missing", "- redis.addresses is missing", "- postgres.existingSecret is missing"]
    {
        assert!(err.contains(sentence), "{err}");
    }
}

#[test]
fn production_with_nothing_given_names_everything_that_is_missing() {
    let Some(helm) = tools::helm() else { return };
    let (done, _, err) = template(&helm, None, &["--set", "evaluation.enabled=false"]);
    assert!(!done);
    for missing in [
        "relay.host is missing",
        "broker.host is missing",
        "relay.tls has no certificate",
        "broker.tls has no certificate",
        "redis.addresses is missing",
        "postgres.existingSecret is missing",
        "broker.dataKeys.existingSecret is missing",
    ] {
        assert!(err.contains(missing), "{missing}: {err}");
    }
}

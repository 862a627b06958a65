//! The compose file and the images: agree with the settings, with each other and with the folder.

use std::collections::BTreeSet;
use std::path::Path;

use yaml_rust2::{Yaml, YamlLoader};

use crate::{drain, file, settings, text, variables_exist};

const RELAYS: [&str; 3] = ["relay1", "relay2", "relay3"];
const BROKERS: [&str; 2] = ["broker1", "broker2"];

/// The compose file.
pub(crate) struct Compose {
    root: Yaml,
}

impl Compose {
    pub(crate) fn read() -> Self {
        let mut documents = YamlLoader::load_from_str(&text("deploy/compose.yaml")).unwrap();
        Self { root: documents.remove(0) }
    }

    /// What a service says, what it merges included.
    fn get(&self, service: &str, key: &str) -> Option<Yaml> {
        merged(&self.root["services"][service], key)
    }

    fn services(&self) -> Vec<String> {
        keys(&self.root["services"])
    }

    /// The environment of a service, its values as they are written.
    pub(crate) fn environment(&self, service: &str) -> Vec<(String, String)> {
        let environment = self.get(service, "environment").unwrap();
        let entries = environment.as_hash().unwrap().iter();
        entries.map(|(key, value)| (key.as_str().unwrap().to_owned(), scalar(value))).collect()
    }
}

/// A key of a mapping, or of those that it merges (`<<`).
fn merged(of: &Yaml, key: &str) -> Option<Yaml> {
    match (&of[key], &of["<<"]) {
        (Yaml::BadValue, Yaml::BadValue) => None,
        (Yaml::BadValue, parent) => merged(parent, key),
        (value, _) => Some(value.clone()),
    }
}

fn keys(of: &Yaml) -> Vec<String> {
    of.as_hash().unwrap().keys().map(|key| key.as_str().unwrap().to_owned()).collect()
}

fn scalar(value: &Yaml) -> String {
    value.as_str().map(str::to_owned).or_else(|| value.as_i64().map(|n| n.to_string())).unwrap()
}

fn list(value: Option<Yaml>) -> Vec<String> {
    value.map(|list| list.as_vec().unwrap().iter().map(scalar).collect()).unwrap_or_default()
}

#[test]
fn every_setting_in_the_compose_file_and_in_the_images_exists() {
    for path in ["deploy/compose.yaml", "deploy/Dockerfile"] {
        for (prefix, table) in
            [("CULVERT_RELAY_", "docs/configuration.md"), ("CULVERT_BROKER_", "docs/broker-configuration.md")]
        {
            assert!(variables_exist(&file(path), prefix, table) >= 3, "{path}: {prefix}");
        }
    }
}

#[test]
fn every_service_is_confined() {
    let compose = Compose::read();
    for service in compose.services() {
        let says = |key| compose.get(&service, key);
        assert_eq!(says("read_only").and_then(|value| value.as_bool()), Some(true), "{service}");
        assert_eq!(list(says("cap_drop")), ["ALL"], "{service}");
        assert_eq!(list(says("security_opt")), ["no-new-privileges:true"], "{service}");
        for never in ["privileged", "cap_add", "network_mode", "pid"] {
            assert!(says(never).is_none(), "{service}: {never}");
        }
        // Ours are nobody in particular by their image.
        let is_ours = says("image").is_some_and(|image| scalar(&image).starts_with("culvert/"));
        let user = says("user").map(|user| scalar(&user)).unwrap_or_default();
        assert!(
            is_ours || user.split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id > 0)),
            "{service}: {user}"
        );
    }
}

#[test]
fn every_image_is_pinned_and_ours_are_of_this_version() {
    let compose = Compose::read();
    for service in compose.services() {
        let image = scalar(&compose.get(&service, "image").unwrap());
        // ${NAME:-default}
        let image = image.split_once(":-").map_or(image.clone(), |(before, default)| {
            let default = default.trim_end_matches('}').to_owned();
            if before.starts_with("${") {
                default
            } else {
                before.replace("${CULVERT_VERSION", "") + &default
            }
        });
        let tag = image.rsplit_once(':').map(|(_, tag)| tag).unwrap_or_default();
        let numbers =
            tag.trim_start_matches('v').split(['.', '-']).filter(|part| part.parse::<u32>().is_ok());
        assert!(numbers.count() >= 2, "{service}: {image} may be another one tomorrow");
        if image.starts_with("culvert/") {
            assert_eq!(tag, env!("CARGO_PKG_VERSION"), "{service}");
        }
    }
    assert!(text("deploy/Dockerfile").contains(&format!("ARG VERSION={}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn every_file_that_is_mounted_exists_or_is_made_by_the_script() {
    let (compose, script) = (Compose::read(), text("deploy/secrets.sh"));
    for service in compose.services() {
        for mount in list(compose.get(&service, "volumes")) {
            let source = mount.split(':').next().unwrap();
            match source.strip_prefix("./") {
                Some(path) => assert!(file("deploy").join(path).exists(), "{service}: {source}"),
                None => assert!(
                    keys(&compose.root["volumes"]).contains(&source.to_owned()),
                    "{service}: {source}"
                ),
            }
        }
        let environment = if compose.get(&service, "environment").is_some() {
            compose.environment(&service)
        } else {
            vec![]
        };
        let given = list(compose.get(&service, "secrets"));
        for (name, value) in &environment {
            for secret in value.split(',').filter_map(|value| value.strip_prefix("/run/secrets/")) {
                assert!(
                    given.contains(&secret.to_owned()),
                    "{service}: {name} names {secret}, which it is not given"
                );
            }
        }
        let used = format!("{:?} {environment:?}", compose.get(&service, "command"));
        for secret in &given {
            assert!(
                used.contains(&format!("/run/secrets/{secret}")),
                "{service} is given {secret} and does not use it"
            );
        }
    }
    let used: BTreeSet<String> =
        compose.services().iter().flat_map(|service| list(compose.get(service, "secrets"))).collect();
    let declared: BTreeSet<String> = keys(&compose.root["secrets"]).into_iter().collect();
    assert_eq!(used, declared);
    for secret in declared {
        let source = scalar(&compose.root["secrets"][&*secret]["file"]);
        assert_eq!(source, format!("./secrets/{secret}"));
        assert!(script.contains(&secret), "deploy/secrets.sh does not make {secret}");
    }
}

#[test]
fn services_are_given_the_time_to_drain_and_believe_the_balancer_alone() {
    let compose = Compose::read();
    let haproxy = compose.get("haproxy", "networks").unwrap();
    let address = scalar(&haproxy["front"]["ipv4_address"]);
    for (services, prefix, table) in [
        (&RELAYS[..], "CULVERT_RELAY_", "docs/configuration.md"),
        (&BROKERS[..], "CULVERT_BROKER_", "docs/broker-configuration.md"),
    ] {
        for service in services {
            let grace = scalar(&compose.get(service, "stop_grace_period").unwrap());
            let grace: u64 = grace.strip_suffix('s').unwrap().parse().unwrap();
            assert!(grace > drain(table), "{service}: {grace} s");
            let environment = compose.environment(service);
            let from = environment.iter().find(|(name, _)| *name == format!("{prefix}PROXY_PROTOCOL_FROM"));
            assert_eq!(from.map(|(_, value)| value), Some(&address), "{service}");
        }
    }
}

#[test]
fn the_balancer_and_prometheus_know_every_relay_and_broker() {
    let (haproxy, prometheus) = (text("deploy/haproxy.cfg"), text("deploy/prometheus/prometheus.yml"));
    let servers: Vec<&str> = haproxy.lines().filter_map(|line| line.trim().strip_prefix("server ")).collect();
    assert_eq!(servers.len(), RELAYS.len() + BROKERS.len());
    for service in RELAYS.into_iter().chain(BROKERS) {
        assert!(servers.contains(&&*format!("{service} {service}:8443")), "{service}");
        assert!(prometheus.contains(&format!("{service}:9443")), "{service}");
    }
    let services = Compose::read().services();
    assert!(RELAYS.into_iter().chain(BROKERS).all(|service| services.contains(&service.to_owned())));
}

#[test]
fn the_images_hold_a_program_and_no_user_of_the_system() {
    let dockerfile = text("deploy/Dockerfile");
    let stages: Vec<&str> = dockerfile.split("\nFROM ").collect();
    let stage = |name: &str| {
        stages.iter().find(|stage| stage.lines().next().unwrap().ends_with(&format!(" AS {name}")))
    };
    assert!(
        stage("base").unwrap().starts_with("scratch AS base")
            && stage("base").unwrap().contains("\nUSER 65532:65532\n")
    );
    for (target, program) in [
        ("relay", "culvert-relay"),
        ("broker-api", "culvert-broker-api"),
        ("cli", "culvert"),
        ("loadtest", "culvert-loadtest"),
    ] {
        let stage = stage(target).unwrap_or_else(|| panic!("no target {target}"));
        assert!(stage.starts_with("base AS "), "{target}");
        assert!(stage.contains(&format!("ENTRYPOINT [\"/{program}\"]")), "{target}");
        assert!(!stage.contains("\nRUN ") && !stage.contains("\nUSER "), "{target}");
    }
    // The same ports everywhere.
    for prefix in ["CULVERT_RELAY_", "CULVERT_BROKER_"] {
        assert!(dockerfile.contains(&format!("{prefix}LISTEN=0.0.0.0:8443")));
        assert!(dockerfile.contains(&format!("{prefix}ADMIN_LISTEN=0.0.0.0:9443")));
    }
    assert!(settings("docs/configuration.md").len() > 50, "the tables are read");
    assert!(Path::new(&file("deploy/build-static.sh")).exists());
}

/// Whether a pattern of `.dockerignore`, taken apart at its slashes, names this path or a folder that it is in.
fn ignores(pattern: &[&str], path: &[&str]) -> bool {
    match pattern.split_first() {
        None => true,
        Some((&"**", rest)) => (0..=path.len()).any(|skipped| ignores(rest, &path[skipped..])),
        Some((&first, rest)) => path
            .split_first()
            .is_some_and(|(&name, below)| (first == "*" || first == name) && ignores(rest, below)),
    }
}

/// Every file under a folder, by its path in the repository.
fn files(folder: &str, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(file(folder)).unwrap().map(Result::unwrap) {
        let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn the_build_of_the_images_is_given_every_source() {
    let patterns = text("deploy/Dockerfile.dockerignore");
    let patterns = patterns.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (given, kept): (Vec<&str>, Vec<&str>) = patterns.partition(|pattern| pattern.starts_with('!'));
    assert_eq!(kept.first(), Some(&"*"), "only what is named is given");
    let mut sources = Vec::new();
    let workspace = text("Cargo.toml");
    let members = workspace.split_once("members = [").unwrap().1.split_once(']').unwrap().0;
    for member in members.split(',').map(|member| member.trim().trim_matches('"')) {
        if !member.is_empty() {
            assert!(given.contains(&format!("!{member}").as_str()), "{member} is not given");
            files(&format!("{member}/src"), &mut sources);
        }
    }
    assert!(sources.len() > 300, "the sources are found");
    for source in &sources {
        let path: Vec<&str> = source.split('/').collect();
        for pattern in &kept[1..] {
            let pattern: Vec<&str> = pattern.split('/').collect();
            assert!(!ignores(&pattern, &path), "{source} is kept from the build by {}", pattern.join("/"));
        }
    }
    // What cargo made, by whom ever it was run.
    for made in ["wire/target", "wire/fuzz/target"] {
        let made: Vec<&str> = made.split('/').collect();
        assert!(kept[1..].iter().any(|pattern| ignores(&pattern.split('/').collect::<Vec<_>>(), &made)));
    }
}

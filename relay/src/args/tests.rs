//! What operators type, right and wrong.

use std::path::Path;

use clap::CommandFactory;
use culvert_service_kit::config::{Loaded, load};
use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::bus::redis::settings::{Mode, Settings};

/// Reads these flags; the variables of the environment are not set in tests.
fn config(flags: &[&str]) -> Result<Config, Vec<String>> {
    let command_line = ["culvert-relay"].iter().chain(flags).map(Into::into);
    let Loaded { args, problems, .. } = load::<Args>(command_line).unwrap();
    let sentences = |problems: Problems| {
        problems.iter().map(|problem| format!("{}: {}", problem.key, problem.sentence)).collect()
    };
    args.config(problems).map(|(config, _)| config).map_err(sentences)
}

const LOOPBACK: [&str; 4] = ["--plain-text", "--open", "--listen", "127.0.0.1:0"];

/// A folder with a certificate, its key, a stranger's key, a ticket key and a token.
fn files() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(["relay.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    let ticket_key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    for (name, content) in [
        ("tls.crt", certificate.pem()),
        ("tls.key", key.serialize_pem()),
        ("other.key", KeyPair::generate().unwrap().serialize_pem()),
        ("ticket.pub", ticket_key.public_key_pem()),
        ("token", "hunter2\n".to_owned()),
    ] {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

fn path(folder: &tempfile::TempDir, name: &str) -> String {
    Path::join(folder.path(), name).display().to_string()
}

#[test]
fn a_relay_without_settings_refuses_to_start_and_names_the_options() {
    let problems = config(&[]).unwrap_err();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].starts_with("tls-certificate: and tls-key are required"), "{problems:?}");
    assert!(problems[0].contains("plain-text"), "{problems:?}");
    assert!(problems[1].starts_with("admission: is not configured, so nobody could connect"), "{problems:?}");
    for option in ["ticket-keys", "access-token-file", "open"] {
        assert!(problems[1].contains(option), "{problems:?}");
    }
}

#[test]
fn the_defaults_are_those_of_the_node() {
    let config = config(&LOOPBACK).unwrap();
    let embedded = Config::embedded(config.listen);
    assert_eq!(format!("{:?}", config.limits), format!("{:?}", embedded.limits));
    assert_eq!(format!("{:?}", config.timing), format!("{:?}", embedded.timing));
    assert_eq!(format!("{:?}", config.drain), format!("{:?}", embedded.drain));
    assert_eq!(config.admin_listen, Some("127.0.0.1:9443".parse().unwrap()));
}

#[test]
fn a_relay_open_to_the_world_needs_an_access_token() {
    let folder = files();
    let open = ["--listen", "0.0.0.0:8443", "--plain-text", "--names", "relay.example", "--open"];
    let problems = config(&open).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with("open: on an address that others can reach"), "{problems:?}");
    let token = path(&folder, "token");
    let config = config(&[&open[..], &["--access-token-file", &token]].concat()).unwrap();
    assert_eq!(config.admission.access_token.unwrap().expose(), "hunter2");
}

#[test]
fn a_relay_behind_a_terminating_balancer_has_to_know_its_names() {
    let folder = files();
    let token = path(&folder, "token");
    let flags = ["--listen", "10.0.0.7:8080", "--plain-text", "--access-token-file", &token];
    let problems = config(&flags).unwrap_err();
    assert!(problems.len() == 1 && problems[0].starts_with("names: must list"), "{problems:?}");
    let named = config(&[&flags[..], &["--names", "relay.example, *.relay.example"]].concat()).unwrap();
    assert_eq!(named.names, ["relay.example", "*.relay.example"]);
    assert!(matches!(named.tls, Tls::PlainText));
}

#[test]
fn a_certificate_that_cannot_be_used_is_a_problem_that_names_the_file() {
    let folder = files();
    let (certificate, key) = (path(&folder, "tls.crt"), path(&folder, "tls.key"));
    let (other, missing) = (path(&folder, "other.key"), path(&folder, "missing.key"));
    let tls = |flags: &[&str]| config(&[&["--ticket-keys", &path(&folder, "ticket.pub")], flags].concat());

    let config = tls(&["--tls-certificate", &certificate, "--tls-key", &key]).unwrap();
    assert!(matches!(config.tls, Tls::Files(files) if files.key == Path::new(&key)));
    for (flags, expected) in [
        (vec!["--tls-certificate", &certificate, "--tls-key", &other], "does not fit"),
        (vec!["--tls-certificate", &certificate, "--tls-key", &missing], "missing.key: No such file"),
        (vec!["--tls-certificate", &key, "--tls-key", &key], "tls.key has no CERTIFICATE section"),
        (vec!["--tls-certificate", &certificate], "tls-key: is missing beside tls-certificate"),
        (vec!["--tls-key", &key], "tls-certificate: is missing beside tls-key"),
        (vec!["--tls-key", &key, "--plain-text"], "plain-text: excludes tls-certificate and tls-key"),
    ] {
        let problems = tls(&flags).unwrap_err();
        assert!(problems.len() == 1 && problems[0].contains(expected), "{expected}: {problems:?}");
    }
}

#[test]
fn ticket_keys_are_read_while_settings_are_checked() {
    let folder = files();
    let (good, wrong) = (path(&folder, "ticket.pub"), path(&folder, "tls.crt"));
    let closed = ["--listen", "127.0.0.1:0", "--plain-text"];
    let tickets = |keys: &str| config(&[&closed[..], &["--ticket-keys", keys]].concat());
    let config = tickets(&format!("{good},{good}")).unwrap();
    let policy = config.admission.tickets.unwrap();
    assert_eq!((policy.keys.len(), policy.longest_life), (2, Duration::from_secs(24 * 3600)));
    let problems = tickets(&format!("{good},{wrong}")).unwrap_err();
    assert!(problems.len() == 1 && problems[0].starts_with("ticket-keys: "), "{problems:?}");
    assert!(problems[0].contains("tls.crt"), "{problems:?}");
}

#[test]
fn a_bad_value_is_one_problem_with_its_accepted_form() {
    for (flag, value, expected) in [
        ("--listen", "relay.example:443", "is not an address with a port"),
        ("--admin-listen", "9443", "is not an address with a port such as 127.0.0.1:9443, or none"),
        ("--proxy-protocol-from", "balancer", "is not a list of networks or addresses"),
        ("--names", "a,,b", "is not a list separated by commas"),
        ("--log", "culvert_relay=loud", "is not a log filter"),
        ("--log-format", "xml", "is not text or json"),
        ("--keepalive", "0s", "must be more than 0s"),
        ("--keepalive", "45s", "must be less than idle-timeout, which is 45s"),
        ("--handshake-timeout", "10", "is not a duration such as 30s or 500ms"),
        ("--drain-grace", "0s", "must be more than 0s"),
        ("--ticket-longest-life", "0s", "must be more than 0s"),
        ("--max-connections", "0", "must be at least 1"),
        ("--max-connections-per-peer", "many", "is not a whole number"),
        ("--connection-frames", "0", "is not a number a second such as 1000"),
        ("--source-bytes", "10MiB/s", "is not a size a second such as 10MiB"),
        ("--queue-bytes", "16KiB", "must be from 64.0 KiB"),
        ("--read-buffer", "1GB1", "is not a size such as 64KiB"),
        ("--members-listed", "257", "must be from 1 to 256"),
        ("--members-per-topic", "0", "must be at least 1"),
        ("--tenant-limits", "everywhere", "is not node or cluster"),
    ] {
        // Each setting is given once, so the bad address takes the place of the good one.
        let good = if flag == "--listen" { &LOOPBACK[..2] } else { &LOOPBACK };
        let problems = config(&[good, &[flag, value]].concat()).unwrap_err();
        let key = flag.trim_start_matches('-');
        assert!(problems.len() == 1 && problems[0].starts_with(key), "{flag} {value}: {problems:?}");
        assert!(problems[0].contains(expected), "{flag} {value}: {problems:?}");
    }
}

#[test]
fn a_relay_is_alone_unless_it_is_told_of_a_redis() {
    assert!(config(&LOOPBACK).unwrap().redis.is_none());
    let folder = files();
    let (ca, token) = (path(&folder, "tls.crt"), path(&folder, "token"));
    let flags = ["--redis", "rediss://a, rediss://b:7000", "--redis-mode", "sentinel"];
    let more = ["--redis-sentinel-master", "main", "--redis-ca", &ca, "--redis-password-file", &token];
    let settings = config(&[&LOOPBACK[..], &flags, &more].concat()).unwrap().redis.unwrap();
    assert_eq!(settings.servers.len(), 2);
    assert_eq!(settings.mode, Mode::Sentinel { master: "main".into() });
    assert_eq!(settings.password.unwrap().expose(), "hunter2");
    assert_eq!(settings.ca.unwrap(), std::fs::read(&ca).unwrap());
}

#[test]
fn the_defaults_of_redis_are_those_of_the_bus() {
    let settings = config(&[&LOOPBACK[..], &["--redis", "redis://localhost"]].concat()).unwrap().redis;
    let servers = Settings::parse_servers("redis://localhost").unwrap();
    let expected = Settings::new(servers, Mode::Standalone);
    assert_eq!(format!("{:?}", settings.unwrap()), format!("{expected:?}"));
}

#[test]
fn a_redis_that_cannot_work_is_a_problem_that_names_the_setting() {
    let folder = files();
    let (key, token) = (path(&folder, "tls.key"), path(&folder, "token"));
    let here = ["--redis", "redis://localhost"];
    for (flags, setting, expected) in [
        (vec!["--redis", "http://localhost"], "redis", "must be an address such as redis://"),
        (vec!["--redis", "redis://a,redis://b"], "redis", "name one server, or choose sentinel"),
        (vec!["--redis-user", "relay"], "redis", "is missing beside redis-user"),
        ([&here[..], &["--redis-mode", "ring"]].concat(), "redis-mode", "is not standalone, sentinel or"),
        ([&here[..], &["--redis-mode", "sentinel"]].concat(), "redis-mode", "say in redis-sentinel-master"),
        ([&here[..], &["--redis-sentinel-master", "m"]].concat(), "redis-sentinel-master", "is for redis-m"),
        ([&here[..], &["--redis-user", "relay"]].concat(), "redis-user", "without redis-password"),
        ([&here[..], &["--redis-ca", &key]].concat(), "redis-ca", "has no CERTIFICATE section"),
        ([&here[..], &["--redis-ca", "/nowhere.pem"]].concat(), "redis-ca", "No such file"),
        ([&here[..], &["--redis-prefix", "a b"]].concat(), "redis-prefix", "must be 1 to 64 of"),
        ([&here[..], &["--redis-lease", "500ms"]].concat(), "redis-lease", "must be 2s to 60s"),
        ([&here[..], &["--redis-timeout", "3s"]].concat(), "redis-timeout", "at most a third of redis-lease"),
        ([&here[..], &["--redis-shards", "0"]].concat(), "redis-shards", "must be 1 to"),
        ([&here[..], &["--redis-shards", "300"]].concat(), "redis-shards", "must be 1 to"),
        ([&here[..], &["--redis-queue-bytes", "1KiB"]].concat(), "redis-queue-bytes", "at least 1MiB"),
        ([&here[..], &["--redis-registrations", "0"]].concat(), "redis-registrations", "at least 1"),
        ([&here[..], &["--redis-newest-bus-version", "9"]].concat(), "redis-newest-bus-version", "must be"),
        ([&here[..], &["--redis-password", "x"]].concat(), "redis-password", "is a secret"),
    ] {
        let problems = config(&[&LOOPBACK[..], &flags].concat()).unwrap_err();
        let first = problems.first().unwrap();
        let key = first.split([':', ' ']).next().unwrap();
        assert!(key == setting && first.contains(expected), "{flags:?}: {problems:?}");
    }
    let secret = [&LOOPBACK[..], &here, &["--redis-password-file", &token]].concat();
    let shown = format!("{:?}", config(&secret).unwrap());
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn problems_of_file_and_flags_come_together() {
    let folder = files();
    let file = path(&folder, "relay.toml");
    std::fs::write(&file, "open = true\nplain-text = true\nlisten = '127.0.0.1:0'\nidle-timout = '1m'\n")
        .unwrap();
    let problems = config(&["--config", &file, "--write-timeout", "never"]).unwrap_err();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].contains("idle-timout: is not a setting"), "{problems:?}");
    assert!(problems[0].contains("did you mean idle-timeout?"), "{problems:?}");
    assert!(problems[1].starts_with("write-timeout (--write-timeout)"), "{problems:?}");
}

#[test]
fn every_setting_has_the_same_name_everywhere_and_none_that_kubernetes_sets() {
    let command = Args::command();
    command.clone().debug_assert();
    for arg in command.get_arguments() {
        let Some(flag) = arg.get_long().filter(|flag| !matches!(*flag, "help" | "version")) else { continue };
        let variable = arg.get_env().unwrap().to_str().unwrap();
        assert_eq!(variable, format!("CULVERT_RELAY_{}", flag.to_uppercase().replace('-', "_")));
        // A service called culvert-relay makes Kubernetes set these in every pod of its namespace.
        for taken in ["CULVERT_RELAY_PORT", "CULVERT_RELAY_SERVICE"] {
            assert!(!variable.starts_with(taken), "{variable}");
        }
        assert!(arg.get_help().is_some(), "{flag} has no help");
    }
}

//! What is accepted, and the sentence for everything that is not.

use super::*;

fn server(host: &str, port: u16, tls: bool) -> Server {
    Server { host: host.to_owned(), port, tls }
}

fn good() -> Settings {
    Settings::new(vec![server("localhost", 6379, false)], Mode::Standalone)
}

/// The only problem of settings that were good before.
fn problem(change: impl FnOnce(&mut Settings)) -> String {
    let mut settings = good();
    change(&mut settings);
    let problems = settings.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems[0].clone()
}

#[test]
fn addresses_are_read_with_their_defaults() {
    let servers = Settings::parse_servers("redis://10.0.0.1:7000, rediss://redis.internal,redis://[::1]/");
    let expected =
        [server("10.0.0.1", 7000, false), server("redis.internal", 6379, true), server("::1", 6379, false)];
    assert_eq!(servers.unwrap(), expected);
    assert_eq!(
        expected.map(|server| server.to_string()),
        ["10.0.0.1:7000", "redis.internal:6379", "[::1]:6379"]
    );
}

#[test]
fn every_address_that_is_refused_says_why_and_shows_no_password() {
    for (url, why) in [
        ("redis://anna:hunter2@localhost", "by file or environment"),
        ("redis://:hunter2@localhost", "by file or environment"),
        ("redis://localhost/3", "redis-prefix"),
        ("redis://localhost/?protocol=resp3", "end after the port"),
        ("rediss://localhost/#insecure", "end after the port"),
        ("localhost:6379", "such as redis://"),
        ("http://localhost", "such as redis://"),
        ("anna:hunter2@localhost", "such as redis://"),
        ("unix:///run/redis.sock", "database"),
        ("", "such as redis://"),
    ] {
        let problems = Settings::parse_servers(url).unwrap_err();
        assert_eq!(problems.len(), 1, "{url}");
        assert!(problems[0].starts_with("address 1 of redis: must"), "{url}: {}", problems[0]);
        assert!(problems[0].contains(why), "{url}: {}", problems[0]);
        assert!(!problems[0].contains("hunter2"), "{}", problems[0]);
    }
}

#[test]
fn all_addresses_are_checked_at_once() {
    let problems = Settings::parse_servers("redis://a,nonsense,redis://b/1").unwrap_err();
    assert_eq!(problems.len(), 2);
    assert!(problems[0].starts_with("address 2") && problems[1].starts_with("address 3"), "{problems:?}");
}

#[test]
fn the_defaults_have_no_problem() {
    assert_eq!(good().problems(), Vec::<String>::new());
}

#[test]
fn every_setting_that_does_not_fit_is_named() {
    let name = |problem: String, names: &str| assert!(problem.contains(names), "{problem}");
    name(problem(|s| s.servers.clear()), "at least one address");
    name(problem(|s| s.servers.push(server("other", 1, false))), "redis-mode is standalone");
    name(
        problem(|s| {
            s.mode = Mode::Cluster;
            s.servers.push(server("other", 1, true));
        }),
        "mixes",
    );
    name(problem(|s| s.ca = Some(Vec::new())), "redis-ca");
    name(problem(|s| s.mode = Mode::Sentinel { master: String::new() }), "redis-sentinel-master");
    name(problem(|s| s.user = Some("relay".to_owned())), "redis-password");
    name(problem(|s| s.sentinel_user = Some("relay".to_owned())), "redis-sentinel-password");
    name(problem(|s| s.prefix = "a{b}".to_owned()), "redis-prefix");
    name(problem(|s| s.prefix = String::new()), "redis-prefix");
    name(problem(|s| s.shards = 0), "redis-shards");
    name(problem(|s| s.lease = Duration::from_secs(61)), "redis-lease");
    name(problem(|s| s.timeout = Duration::from_secs(3)), "redis-timeout");
    name(problem(|s| s.timeout = Duration::ZERO), "redis-timeout");
    name(problem(|s| s.queue_bytes = 1000), "redis-queue-bytes");
    name(problem(|s| s.registrations = 0), "redis-registrations");
    name(problem(|s| s.newest_bus_version = 0), "redis-newest-bus-version");
}

#[test]
fn debug_output_shows_no_password() {
    let mut settings = good();
    settings.password = Some(Secret::new("hunter2".to_owned()));
    assert!(!format!("{settings:?}").contains("hunter2"));
}

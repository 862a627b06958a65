//! Command lines, good and bad ones.

use super::*;

fn read(line: &str) -> Result<Action, Refused> {
    parse(std::iter::once("culvert-loadtest").chain(line.split(' ')).map(OsString::from).collect())
}

fn settings(line: &str) -> Settings {
    match read(line) {
        Ok(Action::Run(settings)) => *settings,
        other => panic!("{line}: {other:?}"),
    }
}

fn refused(line: &str) -> String {
    read(line).map(drop).expect_err(line).to_string()
}

#[test]
fn no_setting_of_a_scenario_collides_with_those_that_all_have() {
    command().debug_assert();
}

#[test]
fn a_scenario_has_its_settings_and_the_common_ones() {
    let settings =
        settings("steady --spawn 2 --tls --pairs 7 --duration 1m --workers 3 --relay-arg --open=x");
    assert_eq!(settings.scenario.name(), "steady");
    assert_eq!(settings.scenario.connections(), 14);
    assert_eq!((settings.duration, settings.crew.size()), (Duration::from_secs(60), 3));
    let Relays::Spawned { relays: 2, tls: true, settings: given, .. } = settings.relays else {
        panic!("{:?}", settings.relays)
    };
    assert_eq!(given, ["open=x".parse::<RelaySetting>().unwrap()]);
    let html = settings.output.html.unwrap();
    assert!(html.to_str().unwrap().starts_with("culvert-loadtest-steady-2"), "{html:?}");
}

#[test]
fn what_makes_no_sense_is_a_sentence() {
    for (line, expected) in [
        ("steady", "--spawn"),
        ("steady --spawn 0", "--spawn must be at least 1"),
        ("steady --spawn 1 --url ws://a", "cannot be used with"),
        ("steady --spawn 1 --duration 0s", "--duration must be longer than 0s"),
        ("steady --spawn 1 --duration soon", "invalid value 'soon'"),
        ("steady --spawn 1 --pairs 0", "--pairs must be at least 1"),
        ("steady --spawn 1 --workers 0", "--workers must be at least 1"),
        ("steady --url https://a", "write wss:// for https://"),
        ("steady --url ftp://a", "ftp:// is not spoken by relays"),
        ("steady --url ws://ann:x@a", "--access-token-file"),
        ("steady --url ws://a --metrics https://b:1", "http://10.0.0.7:9443"),
        ("steady --url ws://a --ca /nonexistent", "--ca /nonexistent"),
        ("steady --url ws://a --access-token-file /nonexistent", "/nonexistent cannot be read"),
        ("steady --url ws://a --worker b:1", "--worker-secret-file"),
        ("steady --spawn 1 --fail-if p99", "p99"),
        ("unsteady --spawn 1", "unsteady"),
        ("compare one.json", "<AFTER>"),
    ] {
        let sentence = refused(line);
        assert!(sentence.contains(expected), "{line}: {sentence}");
    }
}

#[test]
fn workers_elsewhere_take_the_place_of_the_one_here() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "shared").unwrap();
    let line =
        format!("steady --url ws://a --worker b:1 --worker c:1 --worker-secret-file {}", secret.display());
    assert_eq!((settings(&line).crew.local, settings(&line).crew.size()), (0, 2));
    assert_eq!(settings(&(line + " --workers 2")).crew.size(), 4);
}

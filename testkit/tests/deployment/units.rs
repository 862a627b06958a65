//! The units of systemd.

use culvert_testkit::binaries;
use culvert_testkit::process::Plan;

use crate::{drain, file, installed, run, text, variables_exist};

/// Exposure in tenths: 2.0.
const EXPOSURE: &str = "--threshold=20";
const UNITS: [(&str, &str, &str); 2] = [
    ("culvert-relay", "CULVERT_RELAY_", "docs/configuration.md"),
    ("culvert-broker-api", "CULVERT_BROKER_", "docs/broker-configuration.md"),
];

fn path(unit: &str) -> String {
    format!("deploy/systemd/{unit}.service")
}

/// The value of a directive that is there once.
fn value(unit: &str, directive: &str) -> String {
    let lines = text(&path(unit));
    let mut values = lines.lines().filter_map(|line| line.strip_prefix(directive)?.strip_prefix('='));
    let value = values.next().unwrap_or_else(|| panic!("{unit} has no {directive}")).to_owned();
    assert!(values.next().is_none(), "{unit} has {directive} twice");
    value
}

#[tokio::test]
async fn systemd_accepts_the_units() {
    let analyze = installed("/usr/bin/systemd-analyze", "systemd");
    let folder = tempfile::tempdir().unwrap();
    for (unit, ..) in UNITS {
        // It looks whether the program is there, which an operator has installed.
        let program =
            if unit == "culvert-relay" { binaries::relay().await } else { binaries::broker().await };
        let installed = format!("/usr/local/bin/{unit} ");
        assert!(text(&path(unit)).contains(&installed));
        let changed = text(&path(unit)).replace(&installed, &format!("{} ", program.unwrap().display()));
        let copy = folder.path().join(format!("{unit}.service"));
        std::fs::write(&copy, changed).unwrap();
        let printed =
            run(Plan::new("systemd-analyze", &analyze).args(["--man=no", "verify"]).arg(&copy)).await;
        assert!(!printed.contains(unit), "{printed}");
    }
}

#[tokio::test]
async fn systemd_holds_the_units_to_be_tight_with_and_without_the_port_443() {
    let analyze = installed("/usr/bin/systemd-analyze", "systemd");
    let folder = tempfile::tempdir().unwrap();
    for (unit, ..) in UNITS {
        let low_port = folder.path().join(format!("{unit}.service"));
        std::fs::write(&low_port, text(&path(unit)) + &text("deploy/systemd/port-443.conf")).unwrap();
        for unit in [file(&path(unit)), low_port] {
            let plan = Plan::new("systemd-analyze", &analyze).args(["security", "--offline=true", EXPOSURE]);
            run(plan.arg(unit)).await;
        }
    }
}

#[test]
fn the_units_wait_for_the_drain_and_name_settings_that_exist() {
    for (unit, prefix, table) in UNITS {
        let stop: u64 = value(unit, "TimeoutStopSec").parse().unwrap();
        assert!(stop > drain(table), "{unit}: {stop} s, and a drain takes up to {} s", drain(table));
        assert!(variables_exist(&file(&path(unit)), prefix, table) > 0);
        // Each secret that is handed over is read, and from there.
        let lines = text(&path(unit));
        let credentials = lines.lines().filter_map(|line| line.strip_prefix("LoadCredential="));
        for credential in credentials.filter_map(|given| given.split(':').next()) {
            assert!(lines.contains(&format!("_FILE=%d/{credential}\n")), "{unit}: {credential}");
        }
    }
}

#[test]
fn a_relay_without_redis_loses_nothing_but_its_password() {
    // Empty directives take back everything that the unit hands over.
    let drop_in = text("deploy/systemd/without-redis.conf");
    assert!(drop_in.ends_with("[Service]\nLoadCredential=\nEnvironment=\n"));
    for directive in ["LoadCredential", "Environment"] {
        assert!(value("culvert-relay", directive).contains("redis-password"), "{directive}");
    }
}

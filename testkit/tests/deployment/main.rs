//! What `deploy/` gives to operators, checked with the programs that read it, and run on loopback.
//!
//! - [`balancers`]: haproxy and nginx accept their configurations;
//! - [`compose`]: the compose file and the images agree with the settings, with each other and with the folder;
//! - [`units`]: systemd accepts the units, and holds them to be tight;
//! - [`stack`]: the services of the compose file, with its settings, as processes behind `deploy/haproxy.cfg`.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod balancers;
mod compose;
mod stack;
mod units;

use std::path::{Path, PathBuf};
use std::time::Duration;

use culvert_testkit::binaries::workspace;
use culvert_testkit::process::{Plan, Process};

/// More than any single step should take, on a machine that is busy with other tests.
const LONG: Duration = Duration::from_secs(120);

/// A file of the repository.
fn file(path: &str) -> PathBuf {
    workspace().join(path)
}

/// Its text.
fn text(path: &str) -> String {
    std::fs::read_to_string(file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A program of others, which `test.sh` has installed.
fn installed(path: &str, package: &str) -> PathBuf {
    let path = PathBuf::from(path);
    assert!(
        path.is_file(),
        "{} is missing: run ./test.sh once, or apt-get install {package}",
        path.display()
    );
    path
}

/// Runs something to its end, which must be a success; gives what it printed.
async fn run(plan: Plan) -> String {
    let mut process: Process = plan.start().unwrap();
    process.succeeds(LONG).await.unwrap();
    process.output().tail()
}

/// Every setting that a generated table lists, by its environment variable, and its default.
fn settings(table: &str) -> Vec<(String, String)> {
    let rows = text(table);
    let cell = |row: &str, n: usize| Some(row.split('|').nth(n)?.trim().trim_matches('`').to_owned());
    let named = rows.lines().filter_map(|row| Some((cell(row, 4)?, cell(row, 3)?)));
    named.filter(|(variable, _)| variable.starts_with("CULVERT_")).collect()
}

/// The seconds for which a program may drain with its defaults, by the table of its settings.
fn drain(table: &str) -> u64 {
    let seconds = |name: &str| -> u64 {
        let settings = settings(table);
        let found = settings.iter().find(|(variable, _)| variable.ends_with(name)).unwrap();
        found.1.strip_suffix('s').unwrap().parse().unwrap()
    };
    seconds("_DRAIN_DELAY") + seconds("_DRAIN_WINDOW") + 2 * seconds("_DRAIN_GRACE")
}

/// The words of a text that begin so and consist of what names of variables consist of.
fn variables<'a>(text: &'a str, prefix: &str) -> Vec<&'a str> {
    let is_other = |c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    text.split(is_other).filter(|word| word.starts_with(prefix) && word.len() > prefix.len()).collect()
}

/// Every variable that is named exists.
fn variables_exist(path: &Path, prefix: &str, table: &str) -> usize {
    let (known, text) = (settings(table), std::fs::read_to_string(path).unwrap());
    let used = variables(&text, prefix);
    for variable in &used {
        let is_known = known.iter().any(|(known, _)| known == variable);
        assert!(is_known, "{} names {variable}, which is not in {table}", path.display());
    }
    used.len()
}

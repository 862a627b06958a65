//! What operators look at: the rules and dashboards of `deploy/`, checked by Prometheus' own tools, against
//! the generated lists of series and the manual, and on a running cluster that a real Prometheus scrapes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod alerts;
mod boards;
mod docs;
mod prometheus;
mod promql;
mod running;

use std::path::{Path, PathBuf};

use culvert_testkit::binaries::workspace;

/// A file or folder of `deploy/`.
fn deploy(path: &str) -> PathBuf {
    workspace().join("deploy").join(path)
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

//! Where helm and kubeconform are.

use std::path::{Path, PathBuf};
use std::process::Command;

use culvert_testkit::binaries::workspace;

/// By which what is generated is written anew.
pub(crate) const UPDATE: &str = "CULVERT_UPDATE";

/// The folder of the chart.
pub(crate) fn chart() -> PathBuf {
    workspace().join("helm/culvert")
}

/// Helm; or nothing where it cannot be had, which is then said, and which fails in CI.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
pub(crate) fn helm() -> Option<PathBuf> {
    tool("CULVERT_HELM", "helm").inspect_err(|why| eprintln!("skipped: {why}")).ok()
}

/// kubeconform, in the same way.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
pub(crate) fn kubeconform() -> Option<PathBuf> {
    tool("CULVERT_KUBECONFORM", "kubeconform").inspect_err(|why| eprintln!("skipped: {why}")).ok()
}

fn tool(variable: &str, name: &str) -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os(variable) {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "{variable} names {}, which does not exist", path.display());
        return Ok(path);
    }
    // Where test.sh puts it.
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    let installed = target.join("test-tools/go/bin").join(name);
    if installed.is_file() {
        return Ok(installed);
    }
    let why =
        format!("{name} is missing: with Go installed, run ./test.sh once, or say in {variable} where it is");
    assert!(std::env::var_os("CI").is_none(), "{why}");
    Err(why)
}

/// Whether what is generated is to be written.
pub(crate) fn updating() -> bool {
    std::env::var_os(UPDATE).is_some()
}

/// Compares a generated file with what it has to be, or writes it.
pub(crate) fn assert_fresh(path: &Path, text: &str) {
    if updating() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        if std::fs::read_to_string(path).ok().as_deref() != Some(text) {
            std::fs::write(path, text).unwrap();
        }
        return;
    }
    let found = std::fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("{}: {error}; write it with {UPDATE}=1", path.display()));
    if found == text {
        return;
    }
    let line = found.lines().zip(text.lines()).position(|(a, b)| a != b);
    let line = line.unwrap_or_else(|| found.lines().count().min(text.lines().count()));
    panic!(
        "{} is not what it would be now, from line {} on:\n  there: {}\n  now:   {}\nlook at the change, and write it with \
         {UPDATE}=1",
        path.display(),
        line + 1,
        found.lines().nth(line).unwrap_or("(end)"),
        text.lines().nth(line).unwrap_or("(end)"),
    );
}

/// Runs a program to its end: whether it succeeded, and all it said.
pub(crate) fn run(command: &mut Command) -> (bool, String, String) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

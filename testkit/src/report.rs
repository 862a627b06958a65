//! What tests measured, collected for whoever runs them.
//!
//! A test that holds a figure against a bound also states the figure: `test.sh` prints all of them at the
//! end, with the machine they are from.

use std::fs::OpenOptions;
use std::io::Write;

/// The variable that names the file to which figures are added.
pub const REPORT: &str = "CULVERT_TEST_REPORT";
/// The variable by which `test.sh --full` asks for tests in full size.
pub const FULL: &str = "CULVERT_TEST_FULL";

/// States a figure: on the test's output, and in the report where there is one.
///
/// # Panics
/// The report cannot be written.
#[expect(clippy::print_stdout, reason = "the test harness shows it where it is wanted")]
pub fn measured(sentence: &str) {
    println!("{sentence}");
    if let Some(path) = std::env::var_os(REPORT) {
        let file = OpenOptions::new().append(true).create(true).open(path);
        // One write of one line: tests of several processes share the file.
        file.and_then(|mut file| file.write_all(format!("{sentence}\n").as_bytes()))
            .expect("the report that CULVERT_TEST_REPORT names can be written");
    }
}

/// Whether tests are to run in full size.
pub fn full() -> bool {
    std::env::var_os(FULL).is_some()
}

/// Bytes as people read them.
pub fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0))
}

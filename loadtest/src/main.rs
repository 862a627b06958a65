//! The `culvert-loadtest` program: settings in, exit code out.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use culvert_loadtest::args::{self, Action, Refused, Tool};
use culvert_loadtest::coordinator::{self, Abort};
use culvert_loadtest::launch;
use culvert_loadtest::report::{Report, compare};
use tokio::runtime::Runtime;

/// The run failed, or what it found is not as it should be.
const FAILED: u8 = 1;
/// The command line is wrong (sysexits.h, `EX_USAGE`).
const WRONG_USE: u8 = 64;
/// Something is missing (`EX_UNAVAILABLE`).
const MISSING: u8 = 69;
/// For work on blocking threads (a look-up of a name) when everything else has ended.
const RUNTIME_END: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    match words.get(1).and_then(|word| word.to_str()) {
        // A relay of this program is the same as `culvert-relay`.
        Some("relay") => culvert_relay::command::main(words.into_iter().skip(1)),
        Some(launch::COMMAND) => match launch::main(words.into_iter().skip(2)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&format!("{error:#}"), FAILED),
        },
        _ => command(words),
    }
}

fn command(words: Vec<OsString>) -> ExitCode {
    let action = match args::parse(words) {
        Ok(action) => action,
        Err(Refused::Words(error)) => {
            // Nothing is left to do if the terminal is gone.
            let _printed = error.print();
            return if error.use_stderr() { WRONG_USE.into() } else { ExitCode::SUCCESS };
        }
        Err(error @ Refused::Settings(_)) => return failed(&error.to_string(), WRONG_USE),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("the async runtime does not start: {error}"), FAILED),
    };
    let code = carry_out(action, &runtime);
    runtime.shutdown_timeout(RUNTIME_END);
    code
}

fn carry_out(action: Action, runtime: &Runtime) -> ExitCode {
    let result = match action {
        Action::Run(settings) => match runtime.block_on(coordinator::conduct(*settings)) {
            Ok(true) => Ok(()),
            Ok(false) => return FAILED.into(),
            Err(abort @ Abort::Missing(_)) => return failed(&abort.to_string(), MISSING),
            Err(Abort::Failed(error)) => Err(error),
        },
        Action::Tool(Tool::Worker(worker)) => runtime.block_on(worker.work()),
        Action::Tool(Tool::Compare { before, after }) => {
            Report::read(&before).and_then(|before| print(&compare(&before, &Report::read(&after)?)))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&format!("{error:#}"), FAILED),
    }
}

fn print(text: &str) -> Result<()> {
    writeln!(io::stdout(), "{text}").context("nobody reads the comparison")
}

fn failed(sentence: &str, code: u8) -> ExitCode {
    // Nothing is left to do if the terminal is gone.
    let _printed = writeln!(io::stderr(), "culvert-loadtest: {sentence}");
    code.into()
}

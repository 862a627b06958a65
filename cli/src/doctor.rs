//! `culvert doctor`: shows what the client's probe finds, and whether a file passes.

mod transfer;

use std::io::{self, Write};
use std::time::Duration;

use anyhow::Result;
use culvert_client::RelayOptions;
use culvert_client::probe::{Check, Outcome, Report, Stage, probe};
use serde::Serialize;

use crate::cli::DoctorArgs;
use crate::failure::Code;
use crate::id;
use crate::interrupt::Interrupt;
use transfer::{Passed, pass};

/// What `--json` prints: the probe's report, and beside it what passed.
#[derive(Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    report: &'a Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    transfer: Option<Transfer<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Transfer<'a> {
    Passed(&'a Passed),
    Failed { error: String },
}

pub(crate) async fn run(args: DoctorArgs, interrupt: Interrupt) -> Result<()> {
    let cancelled = interrupt.token();
    tokio::select! {
        ended = examine(args) => ended,
        () = cancelled.cancelled() => Err(Code::Interrupted.because("interrupted")),
    }
}

async fn examine(args: DoctorArgs) -> Result<()> {
    let admission = args.network.admission()?;
    let identity = args.network.ticket.is_some().then(id::identity).transpose()?;
    let options = RelayOptions { identity, admission, ..args.network.options()? };
    let report = probe(&args.relay, &options, Duration::from_secs(args.timeout.max(1)), |check| {
        if !args.json {
            show(check);
        }
    })
    .await;
    if !args.json && report.usable {
        writeln!(io::stdout(), "\nThis network lets you use {}.", report.relay)?;
    }
    let transfer = if args.transfer && report.usable { Some(pass(&args).await) } else { None };
    if args.json {
        let transfer = transfer.as_ref().map(|transfer| match transfer {
            Ok(passed) => Transfer::Passed(passed),
            Err(error) => Transfer::Failed { error: format!("{error:#}") },
        });
        let answer = Answer { report: &report, transfer };
        writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&answer)?)?;
    }
    match transfer {
        Some(Ok(passed)) if !args.json => writeln!(io::stdout(), "{passed}")?,
        Some(Ok(_)) => {}
        Some(Err(error)) => return Err(error.context("no file passes, although the relay can be reached")),
        None if report.usable => {}
        None => return Err(unusable(&report)),
    }
    Ok(())
}

fn unusable(report: &Report) -> anyhow::Error {
    let refused = report.checks.iter().any(|c| c.stage == Stage::Hello && c.outcome == Outcome::Failed);
    let code = if refused { Code::Refused } else { Code::Failed };
    code.because(format!("{} cannot be used from here", report.relay))
}

fn show(check: &Check) {
    let mark = match check.outcome {
        Outcome::Ok => "ok  ",
        Outcome::Note => "note",
        Outcome::Failed => "FAIL",
        Outcome::Skipped => "-   ",
    };
    let time = match check.outcome {
        Outcome::Skipped => String::new(),
        _ => format!(", {} ms", check.millis),
    };
    let mut out = io::stdout();
    let _ = writeln!(out, "{mark}  {} [{}{time}]", check.sentence, check.code);
    if let Some(advice) = &check.advice {
        let _ = writeln!(out, "      {advice}");
    }
}

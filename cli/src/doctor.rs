//! `culvert doctor`: shows what the client's probe finds.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::Result;
use culvert_client::RelayOptions;
use culvert_client::probe::{Check, Outcome, probe};

use crate::cli::DoctorArgs;
use crate::failure::Code;
use crate::id;

pub(crate) async fn run(args: DoctorArgs) -> Result<()> {
    let admission = args.network.admission()?;
    let identity = args.network.ticket.is_some().then(id::identity).transpose()?;
    let options = RelayOptions { identity, admission, ..args.network.options()? };
    let json = args.json;
    let report = probe(&args.relay, &options, Duration::from_secs(args.timeout.max(1)), |check| {
        if !json {
            show(check);
        }
    })
    .await;
    if json {
        writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&report)?)?;
    }
    if report.usable {
        if !json {
            writeln!(io::stdout(), "\nThis network lets you use {}.", report.relay)?;
        }
        return Ok(());
    }
    let refused = report
        .checks
        .iter()
        .any(|c| c.stage == culvert_client::probe::Stage::Hello && c.outcome == Outcome::Failed);
    let code = if refused { Code::Refused } else { Code::Failed };
    Err(code.because(format!("{} cannot be used from here", report.relay)))
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

//! `culvert receive`: takes what a link names, however often the way there breaks.

use std::io::{self, Read};
use std::time::Duration;

use anyhow::{Context, Result};
use culvert_client::link::{Entry, Link};
use culvert_client::transfer::{ReceiveError, ReceiveOptions, Received, StopReason, receive};
use culvert_client::{AdmissionSource, Connection, Identity, PeerPolicy, RelayOptions};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::cli::ReceiveArgs;
use crate::failure::Code;
use crate::id;
use crate::interrupt::Interrupt;
use crate::network::{FileLane, Meeting};
use crate::report::{Report, files};

/// Bytes of standard input that are looked at for a link.
const MAX_LINK: u64 = 64 * 1024;

pub(crate) async fn run(args: ReceiveArgs, interrupt: Interrupt) -> Result<()> {
    let link = link(&args.link)?;
    let report = Report::new(args.json);
    let (identity, admission) = entry(&args, &link)?;
    let options = RelayOptions { admission, ..args.network.options()? };
    let cancelled = interrupt.token();
    let only = PeerPolicy::Only(vec![link.sender]);
    let mut meeting = tokio::select! {
        meeting = Meeting::join(&link.relay, link.topic_secret(), identity, only, options) => meeting?,
        () = cancelled.cancelled() => return Err(interrupted()),
    };
    let ended = take(&args, &link, &mut meeting, &report, &cancelled).await;
    let summary = report.end();
    meeting.leave().await;
    let received = ended?;
    for path in &received.paths {
        let text = path.display().to_string();
        report.result(&text, &json!({ "event": "received", "path": text }));
    }
    report.note(format!("Received {}: {summary}", files(received.kept)));
    if received.left > 0 {
        return Err(Code::Failed.because(incomplete(&received)));
    }
    Ok(())
}

/// The link that was given, or that standard input holds.
fn link(given: &str) -> Result<Link> {
    let mut text = Zeroizing::new(given.to_owned());
    if given == "-" {
        text.clear();
        io::stdin().take(MAX_LINK).read_to_string(&mut text).context("cannot read the link")?;
    }
    text.parse().map_err(|error| Code::Usage.with(anyhow::Error::new(error)))
}

/// Who this receiver is and why the relay lets it in.
fn entry(args: &ReceiveArgs, link: &Link) -> Result<(Option<Identity>, AdmissionSource)> {
    match link.entry {
        Entry::Open => {
            let admission = args.network.admission()?;
            // A ticket is bound to this user's key; without one nobody needs to know who this is.
            let is_known = matches!(admission, AdmissionSource::Ticket(_));
            Ok((is_known.then(id::identity).transpose()?, admission))
        }
        Entry::AccessToken(_) | Entry::Invitation(_) => Ok((link.identity(), link.admission())),
    }
}

async fn take(
    args: &ReceiveArgs,
    link: &Link,
    meeting: &mut Meeting,
    report: &Report,
    cancelled: &CancellationToken,
) -> Result<Received> {
    let options = ReceiveOptions { out: args.out.clone(), overwrite: args.overwrite };
    report.note(format!("Waiting for the sender at {}; Ctrl-C stops.", link.relay));
    loop {
        let mut lane = wait(args, meeting, cancelled).await?;
        if lane.peer_id() != link.sender.to_string() {
            continue;
        }
        let received = receive(&mut lane, &options, &report.progress(), cancelled).await;
        if received.is_ok()
            && let Err(error) = lane.close().await
        {
            tracing::debug!(%error, "the conversation did not end in order");
        }
        match received {
            Ok(received) => return Ok(received),
            Err(ReceiveError::Cancelled) => return Err(interrupted()),
            Err(error) if error.may_resume() => {
                report.note(format!("{error}. Waiting for it to come back; Ctrl-C stops."));
            }
            Err(error @ ReceiveError::Stopped(StopReason::Cancelled)) => {
                return Err(Code::Interrupted.with(
                    anyhow::Error::new(error).context("what arrived is kept: ask the sender for a new link"),
                ));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn wait(args: &ReceiveArgs, meeting: &mut Meeting, cancelled: &CancellationToken) -> Result<FileLane> {
    let patience = async {
        match args.wait {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        lane = meeting.next() => lane,
        () = cancelled.cancelled() => Err(interrupted()),
        () = patience => Err(Code::Interrupted.because(
            "the sender did not come: is `culvert send` still running there? What arrived is kept",
        )),
    }
}

fn interrupted() -> anyhow::Error {
    Code::Interrupted.because("interrupted; what arrived is kept: run the same command again to go on")
}

pub(crate) fn incomplete(received: &Received) -> String {
    let mut text = format!("{} of {} were not received:", received.left, received.left + received.kept);
    for problem in &received.problems {
        text.push_str(&format!("\n  {}: {}", problem.path, problem.reason));
    }
    let more = received.left.saturating_sub(received.problems.len() as u64);
    if more > 0 {
        text.push_str(&format!("\n  and {more} more"));
    }
    if received.problems.iter().any(|p| p.reason.contains("overwritten")) {
        text.push_str("\nUse --overwrite to replace files, or --out for another folder");
    }
    text
}

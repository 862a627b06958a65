//! `culvert send`: prints a link and serves until somebody has everything.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use culvert_client::transfer::{Offer, OfferOptions, SendError, Served, StopReason};
use culvert_client::{Connection, PeerPolicy, RelayOptions};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cli::SendArgs;
use crate::failure::Code;
use crate::id;
use crate::interrupt::Interrupt;
use crate::invitation;
use crate::network::{FileLane, Meeting};
use crate::report::Report;

/// Receivers that are served at once; more wait.
const MAX_RECEIVERS: usize = 16;
/// How long other receivers have to hear that the command ends.
const LAST_WORDS: Duration = Duration::from_secs(2);

pub(crate) async fn run(args: SendArgs, interrupt: Interrupt) -> Result<()> {
    let report = Report::new(args.json);
    let offer = Arc::new(offer(&args, &report)?);
    let identity = id::identity()?;
    let (link, notice) = invitation::link(args.relay.clone(), &identity, &args.network)?;
    let options = RelayOptions { admission: args.network.admission()?, ..args.network.options()? };
    let cancelled = interrupt.token();
    let join = Meeting::join(&args.relay, link.topic_secret(), Some(identity), PeerPolicy::Anyone, options);
    let meeting = tokio::select! {
        meeting = join => meeting?,
        () = cancelled.cancelled() => return Err(Code::Interrupted.because("interrupted before anything was sent")),
    };
    let text = link.reveal()?;
    report.result(&text, &json!({ "event": "link", "link": *text }));
    report.note("Give this link to the receiver: culvert receive LINK. Keep this running; Ctrl-C ends it.");
    if let Some(notice) = notice {
        report.note(notice);
    }
    let ended = serve(&args, &offer, meeting, &report, &cancelled).await;
    let summary = report.end();
    if let Ok(true) = ended {
        report.note(format!("Done: {summary}"));
    }
    ended.map(drop)
}

fn offer(args: &SendArgs, report: &Report) -> Result<Offer> {
    let usage = |sentence: &'static str| Err(Code::Usage.because(sentence));
    let is_stdin = |path: &std::path::PathBuf| path == Path::new("-");
    if !args.paths.iter().any(is_stdin) {
        return Ok(Offer::paths(&args.paths, report.progress())?);
    }
    match &args.paths[..] {
        [_] if args.keep => usage("standard input can be sent only once: leave out --keep, or send a file"),
        [_] => {
            let options = OfferOptions { name: args.name.clone(), ..OfferOptions::default() };
            Ok(Offer::stream(std::io::stdin(), options, report.progress())?)
        }
        _ => usage("`-` cannot be sent together with files: send it alone"),
    }
}

/// Serves whoever comes; true once somebody has everything and that was all.
async fn serve(
    args: &SendArgs,
    offer: &Arc<Offer>,
    mut meeting: Meeting,
    report: &Report,
    cancelled: &CancellationToken,
) -> Result<bool> {
    // The conversations have their own, so that the end of one command does not look like Ctrl-C.
    let stop = cancelled.child_token();
    let mut receivers: JoinSet<Result<Served, SendError>> = JoinSet::new();
    // A stream can be given once. Its receiver may have been killed and come back before its end was
    // noticed, so the newest one gets it.
    let mut newest = stop.child_token();
    let ended = loop {
        tokio::select! {
            () = cancelled.cancelled() => break Ok(false),
            lane = meeting.next(), if receivers.len() < MAX_RECEIVERS => match lane {
                Ok(lane) => {
                    if offer.is_stream() {
                        newest.cancel();
                        newest = stop.child_token();
                    }
                    receivers.spawn(serve_one(Arc::clone(offer), lane, report.clone(), newest.clone()));
                }
                Err(error) => break Err(error),
            },
            Some(served) = receivers.join_next() => match served? {
                Ok(served) if served.is_complete() && !args.keep => break Ok(true),
                Ok(Served { gone: gone @ 1.., .. }) if !args.keep => break Err(Code::Failed.because(
                    format!("{gone} of the files could not be read or changed while they were being sent; the rest has arrived: send those again when nothing writes to them"),
                )),
                Err(error @ SendError::Unreadable(_)) => break Err(error.into()),
                Ok(_) | Err(_) => {}
            },
        }
    };
    stop.cancel();
    // Those who are there hear it at once; somebody who was killed never will.
    let others = async { while receivers.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(LAST_WORDS, others).await;
    receivers.shutdown().await;
    meeting.leave().await;
    match ended {
        Ok(false) if !args.keep => {
            Err(Code::Interrupted.because("interrupted before a receiver had everything; send again, the receiver goes on where it was with the new link"))
        }
        ended => ended,
    }
}

async fn serve_one(
    offer: Arc<Offer>,
    mut lane: FileLane,
    report: Report,
    stop: CancellationToken,
) -> Result<Served, SendError> {
    let peer: String = lane.peer_id().chars().take(10).collect();
    report.note(format!("Receiver {peer} is here."));
    let served = offer.serve(&mut lane, &report.progress(), &stop).await;
    match &served {
        Ok(served) if served.is_complete() => report.note(format!("Receiver {peer} has everything.")),
        Ok(served) => report.note(format!(
            "Receiver {peer} is done without {} of {} files; it knows why.",
            served.left,
            served.left + served.kept
        )),
        Err(SendError::Cancelled) => {}
        Err(SendError::Stopped(StopReason::Cancelled)) => {
            report.note(format!("Receiver {peer} stopped; it can go on with the same link."));
        }
        Err(error) => report.note(format!("Receiver {peer}: {error}.")),
    }
    if served.is_ok()
        && let Err(error) = lane.close().await
    {
        tracing::debug!(%error, "the conversation did not end in order");
    }
    served
}

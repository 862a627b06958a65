//! Requesters who come through the relay: their session has proved their key.

use std::sync::Arc;

use anyhow::Result;
use culvert_client::Connection as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::desk::Desk;
use crate::network::Meeting;
use crate::report::Report;

/// Conversations at a time; more wait at the relay.
const MAX_CONVERSATIONS: usize = 64;

pub(super) async fn serve(
    mut meeting: Meeting,
    desk: Arc<Desk>,
    report: Report,
    stop: CancellationToken,
) -> Result<()> {
    let mut conversations = JoinSet::new();
    let ended = loop {
        tokio::select! {
            () = stop.cancelled() => break Ok(()),
            lane = meeting.next(), if conversations.len() < MAX_CONVERSATIONS => match lane {
                Ok(mut lane) => {
                    let (desk, report, stop) = (Arc::clone(&desk), report.clone(), stop.clone());
                    conversations.spawn(async move {
                        let Ok(peer) = lane.peer_id().parse() else { return };
                        desk.converse(&mut lane, &peer, &stop, |text| report.note(text)).await;
                    });
                }
                Err(error) => break Err(error),
            },
            Some(_) = conversations.join_next() => {}
        }
    };
    while conversations.join_next().await.is_some() {}
    meeting.leave().await;
    ended
}

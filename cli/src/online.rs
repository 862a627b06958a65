//! `culvert online`: says that you are there, and shows what happens.

use std::time::Duration;

use anyhow::Result;
use culvert_client::broker::{BrokerEvent, ShareChange};
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use crate::broker_args::OnlineArgs;
use crate::failure::Code;
use crate::interrupt::Interrupt;
use crate::report::Report;

pub(crate) async fn run(args: OnlineArgs, interrupt: Interrupt) -> Result<()> {
    let report = Report::new(args.json);
    let client = args.broker.connect().await?;
    let mut events = client.subscribe();
    if let Some(broker) = client.broker() {
        let text = format!("Online at {} as {}.", broker.institution, broker.user_id);
        let value =
            json!({ "event": "online", "institution": broker.institution, "user_id": broker.user_id });
        report.result(&text, &value);
    }
    let over = async {
        match args.seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    let mut over = std::pin::pin!(over);
    let cancelled = interrupt.token();
    let ended = loop {
        tokio::select! {
            event = events.recv() => match event {
                Ok(BrokerEvent::Ended(error)) => break Err(Code::Refused.with(error)),
                Ok(event) => {
                    if let Some((text, value)) = describe(&event) {
                        report.result(&text, &value);
                    }
                }
                Err(RecvError::Lagged(missed)) => report.note(format!("{missed} events came too fast to show.")),
                Err(RecvError::Closed) => break Ok(()),
            },
            () = cancelled.cancelled() => break Ok(()),
            () = &mut over => break Ok(()),
        }
    };
    client.disconnect().await;
    ended
}

/// An event for people and for programs.
fn describe(event: &BrokerEvent) -> Option<(String, Value)> {
    Some(match event {
        BrokerEvent::Online(broker) => {
            (format!("Online again at {}.", broker.institution), json!({ "event": "online" }))
        }
        BrokerEvent::Offline(error) => {
            (format!("Offline: {error}."), json!({ "event": "offline", "reason": error.to_string() }))
        }
        BrokerEvent::Presence(presence) => {
            let state = if presence.online { "online" } else { "offline" };
            let value =
                json!({ "event": "presence", "user_id": presence.user_id, "online": presence.online });
            (format!("{} is {state}.", presence.user_id), value)
        }
        BrokerEvent::Share(change) => {
            let what = match change.event {
                ShareChange::Published => "shared",
                ShareChange::Updated => "changed",
                ShareChange::Revoked => "no longer shares",
            };
            let metadata = &change.share.metadata;
            let value = json!({ "event": "share", "change": change.event, "share": change.share });
            (format!("{} {what} {:?}.", metadata.owner_user_id, metadata.title), value)
        }
        BrokerEvent::ChangeRefused { link, error } => (
            format!("The broker refused {}: {error}.", link.culvert()),
            json!({ "event": "refused", "link": link.culvert(), "reason": error.to_string() }),
        ),
        BrokerEvent::Published(link) => (
            format!("Published {}.", link.culvert()),
            json!({ "event": "published", "link": link.culvert() }),
        ),
        BrokerEvent::Revoked(link) => {
            (format!("Revoked {}.", link.culvert()), json!({ "event": "revoked", "link": link.culvert() }))
        }
        BrokerEvent::Ended(_) => return None,
    })
}

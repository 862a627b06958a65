//! `culvert serve`: the owner's side. Says that the user is online, waits at the relay, and gives out what
//! was shared from a folder to whom the broker's grant allows it.
//!
//! Requesters come through the relay (`relay`) or, with an address to listen on, by HTTP (`http`). Before
//! both stands the same check (`desk`): the broker's signature, the time, the owner, the requester's key,
//! and that the share is still served.

mod config;
mod desk;
mod http;
mod relay;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use culvert_client::broker::{BrokerEvent, RelayAddress, SyncClient, SyncError};
use culvert_wire::TopicId;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::broker_args::ServeArgs;
use crate::broker_session::failed;
use crate::failure::Code;
use crate::interrupt::Interrupt;
use crate::network::Meeting;
use crate::report::Report;
use crate::{id, share::registry::Registry};

use config::Settings;
use desk::Desk;

/// How long transfers have to say goodbye when the command ends.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long the broker has to take where this owner waits.
const ANNOUNCED: Duration = Duration::from_secs(30);

pub(crate) async fn run(args: ServeArgs, interrupt: Interrupt) -> Result<()> {
    let settings = Settings::settle(&args)?;
    let report = Report::new(args.json);
    let cancelled = interrupt.token();
    tokio::select! {
        served = serve(&args, &settings, &report, &cancelled) => served,
        // Transfers and the broker have heard it too; what is still under way after this is dropped.
        () = async { cancelled.cancelled().await; tokio::time::sleep(LAST_WORDS * 2).await } => Ok(()),
    }
}

async fn serve(
    args: &ServeArgs,
    settings: &Settings,
    report: &Report,
    cancelled: &CancellationToken,
) -> Result<()> {
    let login = settings.broker.login().await?;
    let broker = login.broker()?;
    let listener = match settings.listen {
        Some(address) => {
            Some(TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?)
        }
        None => None,
    };
    let endpoint = match (&settings.endpoint, &listener) {
        (Some(endpoint), _) => endpoint.clone(),
        // An address that only this machine has is of no use to others, but to others on this machine.
        (None, Some(listener)) if listener.local_addr()?.ip().is_loopback() => {
            format!("http://{}", listener.local_addr()?)
        }
        (None, _) => String::new(),
    };
    let client = settings.broker.builder(&login)?.endpoint(endpoint.clone()).connect().await;
    let client = Arc::new(client.map_err(|error| failed(error, &broker))?);
    let mut events = client.subscribe();
    let desk =
        Arc::new(Desk::new(settings.folder.clone(), login.clone(), Registry::of_this_user()?, &client));
    desk.learn_keys().await.map_err(|error| failed(error, &broker))?;
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    let stop = cancelled.child_token();
    if let Some(relay_url) = settings.relay(&client)? {
        let (identity, topic) = (id::identity()?, TopicId(random_topic()));
        let options = culvert_client::RelayOptions {
            admission: settings.broker.network.admission()?,
            ..settings.broker.network.options()?
        };
        let peer_id = identity.peer_id();
        let joined = Meeting::join_for_share(
            &relay_url,
            topic,
            identity,
            culvert_client::PeerPolicy::Anyone,
            options,
            settings.broker.tickets(&login, peer_id, topic)?,
        );
        let meeting = tokio::select! {
            meeting = joined => meeting?,
            () = cancelled.cancelled() => return leave(&client).await,
        };
        let address = RelayAddress { url: relay_url.to_string(), topic, peer_id };
        tasks.spawn(relay::serve(meeting, Arc::clone(&desk), report.clone(), stop.clone()));
        announce(&client, &endpoint, &address).await.map_err(|error| failed(error, &broker))?;
        report.note(format!("Waiting at the relay {relay_url}; no port has to be open here."));
    } else if listener.is_none() {
        return Err(Code::Usage.because(
            "there is no way to reach you: the broker names no relay; give one (--relay) or listen (--listen)",
        ));
    }
    if let Some(listener) = listener {
        report.note(format!("Answering HTTP at {}.", listener.local_addr()?));
        tasks.spawn(http::serve(listener, Arc::clone(&desk), report.clone(), stop.clone()));
    }
    let text = format!("Serving {} as {}.", settings.folder.display(), login.user_id);
    report.result(&text, &json!({ "event": "serving", "folder": settings.folder, "user_id": login.user_id }));
    if !args.json {
        report.note("Ctrl-C ends it.");
    }
    let ended = loop {
        tokio::select! {
            () = cancelled.cancelled() => break Ok(()),
            ended = tasks.join_next() => match ended {
                Some(ended) => break ended?,
                None => break Ok(()),
            },
            event = events.recv() => match event {
                Ok(BrokerEvent::Share(event)) => desk.heard(&event),
                Ok(BrokerEvent::Offline(error)) => report.note(format!("The broker is gone ({error}); grants that were given are still good.")),
                Ok(BrokerEvent::Ended(error)) => break Err(failed(error, &broker)),
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => break Ok(()),
            },
        }
    };
    stop.cancel();
    let others = async { while tasks.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(LAST_WORDS, others).await;
    tasks.shutdown().await;
    leave(&client).await?;
    ended
}

/// Returns once the broker tells requesters where this owner waits.
async fn announce(client: &SyncClient, endpoint: &str, address: &RelayAddress) -> Result<(), SyncError> {
    let taken = async {
        loop {
            match client.announce(endpoint.to_owned(), Some(address.clone())).await {
                Err(SyncError::TimedOut(_)) => {}
                told => return told,
            }
        }
    };
    tokio::time::timeout(ANNOUNCED, taken).await.unwrap_or(Err(SyncError::TimedOut(ANNOUNCED)))
}

async fn leave(client: &SyncClient) -> Result<()> {
    client.disconnect().await;
    Ok(())
}

/// Known to nobody but whom the broker tells.
fn random_topic() -> [u8; 32] {
    let mut topic = [0; 32];
    rand::fill(&mut topic);
    topic
}

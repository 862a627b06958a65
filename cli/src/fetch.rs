//! `culvert fetch`: takes what a share names from its owner.
//!
//! The broker says where the owner is and signs a grant; the owner's own server is tried for a moment, then
//! the relay. Whatever breaks, the share is asked for again: the owner may be back somewhere else.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use culvert_client::broker::handover::{self, HandoverError};
use culvert_client::broker::{BrokerEvent, Login, RelayAddress, SharedResultInfo, SyncClient};
use culvert_client::transfer::{Progress, ReceiveError, ReceiveOptions, Received, receive};
use culvert_client::{Connection, Identity, PeerPolicy, RelayOptions};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker_args::FetchArgs;
use crate::broker_session::failed;
use crate::failure::Code;
use crate::id;
use crate::interrupt::Interrupt;
use crate::network::{FileLane, Meeting};
use crate::receive::incomplete;
use crate::report::{Report, files};

/// How long the owner's own server may take to answer: where it can be reached at all, it is near.
const DIRECT: Duration = Duration::from_secs(3);
/// How long the owner may take to come to the relay where it says it waits.
const AT_RELAY: Duration = Duration::from_secs(30);
/// How long a transfer may take to end in order.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Silence after which an owner who turned offline or online meanwhile is looked for again.
const SILENT: Duration = Duration::from_secs(5);
/// Silence after which the broker is asked whether the owner is still where it was.
const VERY_SILENT: Duration = Duration::from_secs(20);
/// Time between two questions whether the owner is back.
const ASK_AGAIN: Duration = Duration::from_secs(2);

pub(crate) async fn run(args: FetchArgs, interrupt: Interrupt) -> Result<()> {
    let report = Report::new(args.json);
    let cancelled = interrupt.token();
    let connected = async {
        let login = args.broker.login().await?;
        Ok::<_, anyhow::Error>((args.broker.connect_as(&login).await?, login))
    };
    let (client, login) = tokio::select! {
        connected = connected => connected?,
        () = cancelled.cancelled() => return Err(interrupted()),
    };
    let fetch = Fetch {
        args: &args,
        login: &login,
        client: &client,
        identity: id::identity()?,
        report: &report,
        cancelled: &cancelled,
        moving: Arc::new(Mutex::new(Instant::now())),
    };
    let fetched = fetch.run().await;
    let summary = report.end();
    client.disconnect().await;
    let received = fetched?;
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

struct Fetch<'a> {
    args: &'a FetchArgs,
    login: &'a Login,
    client: &'a SyncClient,
    identity: Identity,
    report: &'a Report,
    cancelled: &'a CancellationToken,
    /// When something came last.
    moving: Arc<Mutex<Instant>>,
}

/// What came of one attempt.
enum Attempt {
    Done(Received),
    /// It may go on after a while.
    Again(String),
}

impl Fetch<'_> {
    async fn run(&self) -> Result<Received> {
        let patience = self.args.wait.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let mut said = String::new();
        loop {
            let attempt = {
                let mut attempt = std::pin::pin!(self.attempt());
                tokio::select! {
                    attempt = &mut attempt => attempt?,
                    () = self.cancelled.cancelled() => {
                        // A transfer that is under way hears it too, and tells the owner.
                        return match tokio::time::timeout(LAST_WORDS, attempt).await {
                            Ok(Ok(Attempt::Done(received))) => Ok(received),
                            _ => Err(interrupted()),
                        };
                    }
                }
            };
            let why = match attempt {
                Attempt::Done(received) => return Ok(received),
                Attempt::Again(why) => why,
            };
            if patience.is_some_and(|end| Instant::now() >= end) {
                return Err(
                    Code::Interrupted.because(format!("{why}; what arrived is kept: fetch again later"))
                );
            }
            if why != said {
                self.report.note(format!("{why}. Waiting; Ctrl-C stops."));
                said = why;
            }
            tokio::select! {
                () = tokio::time::sleep(ASK_AGAIN) => {}
                () = self.cancelled.cancelled() => return Err(interrupted()),
            }
        }
    }

    async fn attempt(&self) -> Result<Attempt> {
        let share = match self.client.access_share(self.args.link.0.as_str()).await {
            Ok(share) if share.is_stale => {
                return Ok(Attempt::Again("The broker cannot be asked now".to_owned()));
            }
            Ok(share) => share,
            Err(error) if error.code().is_some() => {
                return Err(failed(error, &self.args.broker.login().await?.broker()?));
            }
            Err(error) => return Ok(Attempt::Again(format!("The broker cannot be asked now ({error})"))),
        };
        let owner = &share.metadata.owner_user_id;
        let Some(grant) = share.grant.clone() else {
            bail!(Code::Refused.because("this share may be seen and not be downloaded"));
        };
        if !share.owner_online {
            return Ok(Attempt::Again(format!("{owner} is offline")));
        }
        if !self.args.relay_only
            && !share.download_url.is_empty()
            && let Some(attempt) = self.directly(&share, &grant).await?
        {
            return Ok(attempt);
        }
        for address in &share.relays {
            if let Some(attempt) = self.through(&share, address, &grant).await? {
                return Ok(attempt);
            }
        }
        Ok(Attempt::Again(format!(
            "{owner} is online and cannot be reached: `culvert serve` has to run there"
        )))
    }

    /// From the owner's own server; `None` if that is no way.
    async fn directly(&self, share: &SharedResultInfo, grant: &str) -> Result<Option<Attempt>> {
        let options = self.args.broker.network.options()?;
        let plain = self.args.broker.allow_plain_text;
        let url = &share.download_url;
        match handover::open_direct(url, grant, &self.identity, &options, plain, DIRECT).await {
            Ok(mut connection) => {
                self.report.note("Fetching from the owner's own server.");
                self.receive(&mut connection, std::future::pending()).await.map(Some)
            }
            Err(error) => {
                tracing::debug!(%error, "the owner's own server is no way");
                Ok(None)
            }
        }
    }

    /// Through the relay where one of the owner's devices waits; `None` if it is not there.
    async fn through(
        &self,
        share: &SharedResultInfo,
        address: &RelayAddress,
        grant: &str,
    ) -> Result<Option<Attempt>> {
        let Ok(relay) = address.url.parse() else { return Ok(None) };
        let options = RelayOptions {
            admission: self.args.broker.network.admission()?,
            ..self.args.broker.network.options()?
        };
        let only = PeerPolicy::Only(vec![address.peer_id]);
        let identity = self.identity.clone();
        let tickets = self.args.broker.tickets(self.login, identity.peer_id(), address.topic)?;
        let joined = Meeting::join_for_share(&relay, address.topic, identity, only, options, tickets).await;
        let mut meeting = match joined {
            Ok(meeting) => meeting,
            Err(error) => return Ok(Some(Attempt::Again(format!("The relay cannot be used ({error:#})")))),
        };
        let attempt = match tokio::time::timeout(AT_RELAY, meeting.next()).await {
            Ok(lane) => {
                self.report.note(format!("Fetching through the relay {relay}."));
                self.converse(lane?, share, address, grant).await.map(Some)
            }
            Err(_) => Ok(None),
        };
        meeting.leave().await;
        attempt
    }

    async fn converse(
        &self,
        mut lane: FileLane,
        share: &SharedResultInfo,
        address: &RelayAddress,
        grant: &str,
    ) -> Result<Attempt> {
        match handover::present(&mut lane, grant).await {
            Ok(()) => self.receive(&mut lane, self.owner_moved(share, address)).await,
            Err(HandoverError::Refused { code, message }) => match code.as_str() {
                "GRANT_EXPIRED" | "UNAVAILABLE" => Ok(Attempt::Again(format!("The owner says: {message}"))),
                _ => bail!(Code::Refused.because(format!("the owner refused: {message} ({code})"))),
            },
            Err(error) => Ok(Attempt::Again(format!("The owner went away ({error})"))),
        }
    }

    /// Receives until everything is here, or the owner is somewhere else.
    async fn receive(
        &self,
        connection: &mut dyn Connection,
        moved: impl Future<Output = ()>,
    ) -> Result<Attempt> {
        let options = ReceiveOptions { out: self.args.out.clone(), overwrite: self.args.overwrite };
        let (shown, moving) = (self.report.progress(), Arc::clone(&self.moving));
        *lock(&moving) = Instant::now();
        let progress: Progress = Arc::new(move |event| {
            *lock(&moving) = Instant::now();
            shown(event);
        });
        let stop = self.cancelled.child_token();
        let received = {
            let mut receiving = std::pin::pin!(receive(connection, &options, &progress, &stop));
            tokio::select! {
                received = &mut receiving => received,
                () = moved => {
                    stop.cancel();
                    receiving.await
                }
            }
        };
        match received {
            Ok(received) => {
                if let Err(error) = connection.close().await {
                    tracing::debug!(%error, "the conversation did not end in order");
                }
                Ok(Attempt::Done(received))
            }
            Err(ReceiveError::Cancelled) if self.cancelled.is_cancelled() => Err(interrupted()),
            Err(ReceiveError::Cancelled) => Ok(Attempt::Again("The owner went away".to_owned())),
            Err(error) if error.may_resume() => Ok(Attempt::Again(error.to_string())),
            Err(error @ ReceiveError::Stopped(_)) => Ok(Attempt::Again(error.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    /// Completes when nothing comes any more and the broker says that the owner was gone, or is elsewhere.
    ///
    /// The conversation itself outlives lost connections, so it waits for an owner who was killed.
    async fn owner_moved(&self, share: &SharedResultInfo, address: &RelayAddress) {
        let mut events = self.client.subscribe();
        let (mut has_turned, mut asked) = (false, Instant::now());
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        loop {
            ticks.tick().await;
            while let Ok(event) = events.try_recv() {
                let of_owner = |user: &str| user == share.metadata.owner_user_id;
                has_turned |= matches!(event, BrokerEvent::Presence(presence) if of_owner(&presence.user_id));
            }
            let silence = lock(&self.moving).elapsed();
            if silence >= SILENT && has_turned {
                return;
            }
            // Asking counts as a download where those are counted.
            let may_ask = share.metadata.access_policy.max_downloads.is_none();
            if silence >= VERY_SILENT && asked.elapsed() >= VERY_SILENT && may_ask {
                asked = Instant::now();
                if let Ok(now) = self.client.access_share(self.args.link.0.as_str()).await
                    && !now.is_stale
                    && !now.relays.contains(address)
                {
                    return;
                }
            }
        }
    }
}

/// When something came last; only ever held for a moment.
fn lock(moment: &Mutex<Instant>) -> MutexGuard<'_, Instant> {
    moment.lock().unwrap_or_else(PoisonError::into_inner)
}

fn interrupted() -> anyhow::Error {
    Code::Interrupted.because("interrupted; what arrived is kept: run the same command again to go on")
}

//! Two peers in conversation.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use culvert_client::{
    AccessToken, AdmissionSource, Identity, ProxyChoice, RelayConnection, RelayOptions, RelayTransport,
    SystemRng, TopicSecret, Transport, TransportConfig, TransportMode,
};
use tempfile::NamedTempFile;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::frames::{nanos, ticket};
use crate::measure::{Count, Recorder, Series};
use crate::plan::{Admission, Reach};

/// Longest wait until two peers that are both in the topic are in conversation.
const MEETING: Duration = Duration::from_secs(60);
/// Longest wait for a peer to leave.
const LEAVING: Duration = Duration::from_secs(40);

/// Makes transports to the relays of a plan.
pub struct Door {
    urls: Vec<String>,
    admission: Admission,
    authority: Option<NamedTempFile>,
}

/// Two peers on a topic of their own.
#[derive(Debug)]
pub struct Pair {
    number: usize,
    transports: [RelayTransport; 2],
    /// Dropping them would leave the topic.
    _arrivals: [mpsc::Receiver<RelayConnection>; 2],
}

impl Door {
    /// For these relays; peers are spread over them evenly.
    ///
    /// # Errors
    /// The authority cannot be handed to the client.
    pub fn new(reach: &Reach) -> Result<Self> {
        let authority = reach.authority.as_deref().map(|pem| -> Result<_> {
            let mut file = NamedTempFile::new().context("no temporary file for the authority")?;
            file.write_all(pem.as_bytes()).context("no temporary file for the authority")?;
            Ok(file)
        });
        Ok(Self {
            urls: reach.urls.iter().map(ToString::to_string).collect(),
            admission: reach.admission.clone(),
            authority: authority.transpose()?,
        })
    }

    /// A transport to the relay of this number, for a member of the topic.
    ///
    /// # Errors
    /// The URL or the ticket key is none.
    pub fn transport(&self, number: usize, secret: &TopicSecret) -> Result<RelayTransport> {
        let identity = Identity::generate(&mut SystemRng);
        let admission = match &self.admission {
            Admission::Open => AdmissionSource::None,
            Admission::AccessToken(token) => AdmissionSource::AccessToken(AccessToken::new(token)),
            Admission::Tickets { key, key_id, tenant } => {
                AdmissionSource::Ticket(ticket(key, key_id.as_deref(), tenant, identity.peer_id())?)
            }
        };
        let config = TransportConfig {
            mode: TransportMode::Relay,
            relay_url: self.urls.get(number % self.urls.len().max(1)).cloned(),
            ..TransportConfig::default()
        };
        let options = RelayOptions {
            identity: Some(identity),
            topic_secret: Some(secret.clone()),
            admission,
            proxy: ProxyChoice::Direct,
            ca_file: self.authority.as_ref().map(|file| file.path().to_owned()),
            ..RelayOptions::default()
        };
        Ok(RelayTransport::new(config, options)?)
    }
}

impl Pair {
    /// Connects two peers and waits until they are in conversation, which is given as each of them holds it.
    ///
    /// # Errors
    /// A sentence about the step that failed.
    pub async fn connect(
        door: &Door,
        number: usize,
        recorder: &Recorder,
    ) -> Result<(Self, [RelayConnection; 2])> {
        let secret = TopicSecret::generate();
        let enter = async |place: usize| -> Result<_> {
            let mut transport = door.transport(2 * number + place, &secret)?;
            let began = Instant::now();
            let arrivals = transport.connect_relay(secret.topic()).await;
            if arrivals.is_err() {
                recorder.add(Count::ConnectFailures, 1);
            }
            let arrivals =
                arrivals.with_context(|| format!("no session through {}", transport.relay_url()))?;
            recorder.add(Count::Connected, 1);
            recorder.record(Series::Connect, nanos(began.elapsed()));
            Ok((transport, arrivals))
        };
        let ((first, mut to_first), (second, mut to_second)) = tokio::try_join!(enter(0), enter(1))?;
        let met = async { tokio::join!(to_first.recv(), to_second.recv()) };
        let met = timeout(MEETING, met).await;
        let (Some(with_second), Some(with_first)) =
            met.with_context(|| format!("two peers of a topic have not met after {MEETING:?}"))?
        else {
            bail!("the relay ended the connection of a peer that waited for another");
        };
        let pair = Self { number, transports: [first, second], _arrivals: [to_first, to_second] };
        Ok((pair, [with_second, with_first]))
    }

    /// Its number in this worker.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Who they are, for messages about them.
    pub fn name(&self) -> String {
        let [first, second] = [&self.transports[0], &self.transports[1]].map(|peer| peer.peer_id().short());
        format!("pair {} (from {first} to {second})", self.number)
    }

    /// Lets both leave in good order.
    pub async fn leave(&mut self) {
        let [first, second] = &mut self.transports;
        let left = async { tokio::join!(first.disconnect(), second.disconnect()) };
        // What they had to deliver is in the ledger by now, whatever they say.
        drop(timeout(LEAVING, left).await);
    }
}

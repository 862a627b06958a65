//! Getting in and staying in: tickets, invitations, and what is said when there is none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use culvert_client::options::TicketSource;
use culvert_client::{
    AdmissionSource, Identity, RelayConnection, RelayOptions, RelayTransport, TopicSecret, TransportConfig,
    TransportMode,
};
use culvert_relay::config::{AdmissionPolicy, TicketPolicy};
use culvert_testkit::relay::Embedded;
use culvert_testkit::tickets;
use culvert_wire::TopicId;
use culvert_wire::ticket::Topics;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

struct Door {
    relay: Embedded,
    issuer: culvert_testkit::Identity,
    secret: TopicSecret,
    _keys: tempfile::TempDir,
}

async fn door(expiry_notice: Duration) -> Result<Door> {
    let issuer = culvert_testkit::Identity::random()?;
    let keys = tempfile::tempdir()?;
    let file = keys.path().join("issuer.pem");
    std::fs::write(&file, issuer.public_pem())?;
    let mut config = Embedded::config();
    let policy = TicketPolicy::files([file], Duration::from_secs(7200));
    config.admission = AdmissionPolicy { tickets: Some(policy), ..AdmissionPolicy::default() };
    config.timing.expiry_notice = expiry_notice;
    let relay = Embedded::start(config).await?;
    Ok(Door { relay, issuer, secret: TopicSecret::generate(), _keys: keys })
}

impl Door {
    fn transport(&self, identity: &Identity, admission: AdmissionSource) -> RelayTransport {
        let config = TransportConfig {
            mode: TransportMode::Relay,
            relay_url: Some(self.relay.url()),
            ..Default::default()
        };
        let options = RelayOptions {
            identity: Some(identity.clone()),
            topic_secret: Some(self.secret.clone()),
            admission,
            ..Default::default()
        };
        RelayTransport::new(config, options).unwrap()
    }

    fn ticket(&self, identity: &Identity, topics: Topics, life: u64) -> String {
        let mut claims = tickets::claims(identity.peer_id(), topics);
        claims.exp = claims.iat + life;
        claims.invites = 1;
        tickets::ticket(&self.issuer, None, &claims).unwrap()
    }
}

fn identity(seed: u8) -> Identity {
    Identity::from_seed(&[seed; 32])
}

async fn next(connections: &mut Receiver<RelayConnection>) -> Result<RelayConnection> {
    timeout(SOON, connections.recv()).await.context("nobody came")?.context("the transport ended")
}

#[tokio::test]
async fn who_is_not_admitted_is_told_at_once_and_does_not_come_back() -> Result<()> {
    let door = door(Duration::from_secs(60)).await?;
    let (one, two) = (identity(1), identity(2));
    let topic = door.secret.topic();
    let elsewhere = Topics::Only(vec![TopicId([1; 32])]);
    let cases = [
        (AdmissionSource::None, "not_admitted"),
        (AdmissionSource::Ticket("rubbish".to_owned()), "ticket_invalid"),
        (AdmissionSource::Ticket(door.ticket(&two, Topics::All, 60)), "ticket_foreign"),
        (AdmissionSource::Ticket(door.ticket(&one, elsewhere, 60)), "does not open this topic"),
    ];
    for (admission, reason) in cases {
        let start = Instant::now();
        let error = door.transport(&one, admission).connect_relay(topic).await.unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    }
    Ok(())
}

#[tokio::test]
async fn a_guest_comes_in_on_an_invitation() -> Result<()> {
    let door = door(Duration::from_secs(60)).await?;
    let (host, guest) = (identity(1), identity(2));
    let topic = door.secret.topic();
    let ticket = door.ticket(&host, Topics::All, 600);
    let holder = culvert_testkit::Identity::from_seed(*host.seed())?;
    let invitation = tickets::invitation(&holder, guest.peer_id(), TopicId(topic))?;
    let mut hosts = door.transport(&host, AdmissionSource::Ticket(ticket.clone()));
    let mut guests = door.transport(&guest, AdmissionSource::Invitation { ticket, invitation });
    let (mut to_host, mut to_guest) = (hosts.connect_relay(topic).await?, guests.connect_relay(topic).await?);
    let (mut to_guests, mut to_hosts) = (next(&mut to_host).await?, next(&mut to_guest).await?);
    to_guests.send_bytes(Bytes::from_static(b"welcome")).await?;
    assert_eq!(timeout(SOON, to_hosts.receive_bytes()).await??.as_deref(), Some(&b"welcome"[..]));
    Ok(())
}

#[tokio::test]
async fn a_ticket_source_is_asked_again_before_the_ticket_ends() -> Result<()> {
    let door = Arc::new(door(Duration::from_secs(600)).await?);
    let one = identity(1);
    let asked = Arc::new(AtomicU64::new(0));
    let asked_again = Arc::new(tokio::sync::Notify::new());
    let source: TicketSource = {
        let (door, one, asked, again) = (door.clone(), one.clone(), asked.clone(), asked_again.clone());
        Arc::new(move || {
            // The first is announced as ending at once; the next lasts.
            let count = asked.fetch_add(1, Ordering::Relaxed);
            let ticket = door.ticket(&one, Topics::All, if count == 0 { 3 } else { 3600 });
            if count > 0 {
                again.notify_one();
            }
            Box::pin(async move { Ok(ticket) })
        })
    };
    let mut transport = door.transport(&one, AdmissionSource::TicketSource(source));
    let topic = door.secret.topic();
    let mut connections = transport.connect_relay(topic).await?;
    timeout(SOON, asked_again.notified()).await.context("it was not asked again")?;
    // Past the first ticket's end nothing has ended, and the peer is reachable.
    assert!(timeout(Duration::from_secs(4), connections.recv()).await.is_err());
    assert_eq!(asked.load(Ordering::Relaxed), 2, "the connection was kept, not opened again");
    let two = identity(2);
    let mut other = door.transport(&two, AdmissionSource::Ticket(door.ticket(&two, Topics::All, 600)));
    let _connections = other.connect_relay(topic).await?;
    assert_eq!(next(&mut connections).await?.peer(), two.peer_id());
    Ok(())
}

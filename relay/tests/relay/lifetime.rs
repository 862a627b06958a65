//! How connections begin and end: deadlines, silence, slowness, tickets that run out, drains.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use culvert_relay::bus::memory::MemoryBus;
use culvert_relay::bus::{Arrival, AttachError, Bus, Inbox, Letter, Undelivered};
use culvert_relay::config::{AdmissionPolicy, TicketPolicy};
use culvert_service_kit::Clock;
use culvert_service_kit::lifecycle::Drained;
use culvert_service_kit::metric_set::Registry;
use culvert_testkit::relay::Embedded;
use culvert_testkit::{HelloOptions, Identity, RawError, RawOptions, RawPeer, tickets};
use culvert_wire::ticket::{TicketClaims, Topics};
use culvert_wire::{
    Class, Close, ConnId, Frame, JoinRefusal, Member, Members, NodeId, Notice, TopicId, Verdict,
};

use crate::common::{self, TOPIC, node, pair, peer, peer_with, relay};

const NOW: u64 = 2_000_000_000;

#[tokio::test]
async fn a_silent_peer_is_closed_as_idle_and_one_that_pings_is_not() {
    let relay = relay(|config| {
        config.timing.idle = Duration::from_secs(1);
        config.timing.keepalive = Duration::from_millis(100);
    })
    .await;
    let (mut silent, mut alive) = (peer(&relay).await, peer(&relay).await);
    let closed = async { silent.peer.closed().await.unwrap() };
    let pings = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        for token in 0..20 {
            ticks.tick().await;
            alive.peer.sync(token).await.unwrap();
        }
    };
    let (close, ()) = tokio::join!(closed, pings);
    assert_eq!(close, Close::Idle);
    relay.kill().await.unwrap();
}

#[tokio::test]
async fn a_peer_that_stops_reading_is_closed_as_slow_and_the_others_go_on() {
    let relay = relay(|config| config.timing.write = Duration::from_millis(300)).await;
    let (mut a, stuck) = pair(&relay).await;
    let mut c = peer(&relay).await;
    c.join(TOPIC).await;
    let payload = Bytes::from(vec![0; 16 << 10]);
    let mut departed = false;
    // More than the kernel's buffers take: 16 KiB a frame, some MiB in all.
    while !departed {
        let frame =
            Frame::Send { class: Class::Bulk, handle: a.handle, to: stuck.conn, payload: payload.clone() };
        a.peer.send(&frame).await.unwrap();
        a.peer.send(&Frame::Ping { token: 1, padding: Bytes::new() }).await.unwrap();
        loop {
            match a.peer.recv().await.unwrap() {
                Frame::Pong { .. } => break,
                Frame::PeerLeft { conn, .. } if conn == stuck.conn => departed = true,
                _ => {}
            }
        }
    }
    let frame = Frame::Send { class: Class::Bulk, handle: a.handle, to: c.conn, payload };
    a.peer.send(&frame).await.unwrap();
    c.until(|frame| matches!(frame, Frame::Deliver { .. })).await;
    assert_eq!(relay.metrics().sum("culvert_relay_closed_total", &[("close", "slow")]), 1.0);
    relay.kill().await.unwrap();
}

#[tokio::test]
async fn the_whole_handshake_has_one_deadline_wherever_it_stops() {
    let relay = relay(|config| config.timing.handshake = Duration::from_millis(300)).await;
    let options = RawOptions::plain("localhost");
    // Nothing at all; half a request; an upgrade and then silence.
    let mut quiet = tokio::net::TcpStream::connect(relay.addr()).await.unwrap();
    let mut half = tokio::net::TcpStream::connect(relay.addr()).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut half, b"GET /v1/relay HTTP/1.1\r\nHost: ").await.unwrap();
    let mut upgraded = RawPeer::connect(relay.addr(), &options).await.unwrap();
    let mut rest = Vec::new();
    for stream in [&mut quiet, &mut half] {
        let end = tokio::time::timeout(
            Duration::from_secs(5),
            tokio::io::AsyncReadExt::read_to_end(stream, &mut rest),
        );
        let _ = end.await.expect("the connection is cut");
    }
    assert_eq!(upgraded.closed().await.unwrap(), Close::HandshakeTimeout);
    assert_eq!(relay.metrics().sum("culvert_relay_closed_total", &[("close", "handshake_timeout")]), 1.0);
    relay.kill().await.unwrap();
}

struct Ticketed {
    relay: Embedded,
    issuer: Identity,
    clock: Clock,
    _keys: tempfile::TempDir,
}

/// A relay that asks for tickets, on a date of the test's own.
async fn ticketed() -> Ticketed {
    let issuer = Identity::random().unwrap();
    let clock = Clock::manual(NOW);
    let keys = tempfile::tempdir().unwrap();
    let file = keys.path().join("issuer.pem");
    std::fs::write(&file, issuer.public_pem()).unwrap();
    let relay = node(MemoryBus::alone(), clock.clone(), |config| {
        let tickets = TicketPolicy::files([file], Duration::from_secs(86_400));
        config.admission = AdmissionPolicy { tickets: Some(tickets), ..AdmissionPolicy::default() };
        config.timing.expiry_notice = Duration::from_secs(1);
    })
    .await;
    Ticketed { relay, issuer, clock, _keys: keys }
}

impl Ticketed {
    fn ticket(&self, identity: &Identity, change: impl FnOnce(&mut TicketClaims)) -> String {
        let mut claims = tickets::claims(identity.peer(), Topics::All);
        claims.iat = NOW;
        claims.exp = NOW + 3600;
        change(&mut claims);
        tickets::ticket(&self.issuer, None, &claims).unwrap()
    }
}

#[tokio::test]
async fn a_ticket_that_runs_out_is_announced_and_then_closes_the_connection() {
    let door = ticketed().await;
    let identity = Identity::random().unwrap();
    let ticket = door.ticket(&identity, |claims| claims.exp = NOW + 2);
    let hello = HelloOptions::new(&identity).ticket(ticket);
    let mut peer = peer_with(&door.relay, &identity, &hello).await;
    let notice = peer.peer.recv().await.unwrap();
    assert_eq!(notice, Frame::Notice(Notice::Expiring { expires_at: NOW + 2 }));
    door.clock.advance(Duration::from_secs(2));
    assert_eq!(peer.peer.closed().await.unwrap(), Close::TicketExpired);
    door.relay.kill().await.unwrap();
}

#[tokio::test]
async fn a_renewed_ticket_moves_the_end_and_what_it_no_longer_opens_is_left() {
    let door = ticketed().await;
    let identity = Identity::random().unwrap();
    let hello = HelloOptions::new(&identity).ticket(door.ticket(&identity, |_| {}));
    let mut peer = peer_with(&door.relay, &identity, &hello).await;
    peer.join(TOPIC).await;
    let stranger = Identity::random().unwrap();
    peer.peer.send(&Frame::Renew { ticket: door.ticket(&stranger, |_| {}) }).await.unwrap();
    let refused = Notice::RenewRefused { code: Close::TicketForeign.code() };
    assert_eq!(peer.peer.recv().await.unwrap(), Frame::Notice(refused));
    let narrower = door.ticket(&identity, |claims| {
        claims.topics = Topics::Only(vec![TopicId([1; 32])]);
        claims.exp = NOW + 7200;
        claims.limits.highest_class = Some(Class::Bulk);
    });
    peer.peer.send(&Frame::Renew { ticket: narrower }).await.unwrap();
    let left = Frame::JoinRefused { topic: TOPIC, refusal: JoinRefusal::NotAllowed };
    assert_eq!(peer.peer.recv().await.unwrap(), left);
    assert_eq!(peer.peer.recv().await.unwrap(), Frame::Notice(Notice::Renewed { expires_at: NOW + 7200 }));
    peer.join(TopicId([1; 32])).await;
    let urgent =
        Frame::Send { class: Class::Normal, handle: peer.handle, to: ConnId(1), payload: Bytes::new() };
    peer.peer.send(&urgent).await.unwrap();
    let verdict = peer.peer.recv().await.unwrap();
    assert!(matches!(verdict, Frame::Undeliverable { verdict: Verdict::NotAllowed, .. }), "{verdict:?}");
    door.relay.kill().await.unwrap();
}

#[tokio::test]
async fn guests_come_in_on_an_invitation_up_to_the_number_in_the_ticket() {
    let door = ticketed().await;
    let (host, topic) = (Identity::random().unwrap(), TopicId([5; 32]));
    let ticket = door.ticket(&host, |claims| claims.invites = 1);
    let invite = |guest: &Identity, exp| {
        let claims = culvert_wire::ticket::InvitationClaims {
            aud: culvert_wire::ticket::AUDIENCE.into(),
            iss: host.peer(),
            sub: guest.peer(),
            topic,
            limits: Default::default(),
            iat: NOW,
            exp,
        };
        HelloOptions::new(guest).invitation(ticket.clone(), tickets::invitation_with(&host, &claims).unwrap())
    };
    let guest = Identity::random().unwrap();
    let mut inside = peer_with(&door.relay, &guest, &invite(&guest, NOW + 60)).await;
    inside.join(topic).await;
    inside.peer.send(&Frame::Join { topic: TOPIC }).await.unwrap();
    assert!(matches!(inside.peer.recv().await.unwrap(), Frame::JoinRefused { .. }), "one topic only");
    let options = RawOptions::plain("localhost");
    let second = Identity::random().unwrap();
    for (hello, close) in
        [(invite(&second, NOW + 60), Close::Overloaded), (invite(&second, NOW), Close::InvitationInvalid)]
    {
        let mut raw = RawPeer::connect(door.relay.addr(), &options).await.unwrap();
        let error = raw.hello(&hello).await.unwrap_err();
        assert_eq!(error.close(), Some(close), "{error:?}");
    }
    drop(inside);
    // The seat is given back as soon as the relay sees the guest leave.
    let mut raw = RawPeer::connect(door.relay.addr(), &options).await.unwrap();
    while let Err(error) = raw.hello(&invite(&second, NOW + 60)).await {
        assert_eq!(error.close(), Some(Close::Overloaded));
        raw = RawPeer::connect(door.relay.addr(), &options).await.unwrap();
    }
    door.relay.kill().await.unwrap();
}

#[tokio::test]
async fn a_drain_tells_when_to_go_turns_newcomers_away_and_then_closes() {
    let relay = relay(|config| {
        config.drain.delay = Duration::ZERO;
        config.drain.window = Duration::from_secs(1);
        config.drain.grace = Duration::from_secs(1);
    })
    .await;
    let (mut a, mut b) = pair(&relay).await;
    let addr = relay.addr();
    relay.shutdown().request_drain();
    let drained = relay.ended(Duration::from_secs(10));
    let peers = async {
        let Frame::Drain { reconnect_in_ms, close_in_ms } = a.peer.recv().await.unwrap() else { panic!() };
        assert!(reconnect_in_ms <= 1000 && close_in_ms == 2000);
        let refused = RawPeer::connect(addr, &RawOptions::plain("localhost")).await.err().unwrap();
        assert!(matches!(refused, RawError::Status(503)), "{refused:?}");
        // Until it goes, everything works.
        let payload = Bytes::from_static(b"last");
        let last = Frame::Send { class: Class::Normal, handle: a.handle, to: b.conn, payload };
        a.peer.send(&last).await.unwrap();
        b.until(|frame| matches!(frame, Frame::Deliver { .. })).await;
        assert_eq!(a.peer.closed().await.unwrap(), Close::Drained);
        assert_eq!(b.peer.closed().await.unwrap(), Close::Drained);
    };
    let (drained, ()) = tokio::join!(drained, peers);
    assert_eq!(drained.unwrap(), Drained::CutOff);
}

#[tokio::test]
async fn a_drain_whose_peers_all_left_is_over_at_once() {
    let relay = relay(|config| config.drain.delay = Duration::ZERO).await;
    let (mut a, b) = pair(&relay).await;
    relay.shutdown().request_drain();
    let leave = async {
        assert!(matches!(a.peer.recv().await.unwrap(), Frame::Drain { .. }));
        drop((a, b));
    };
    let (drained, ()) = tokio::join!(relay.ended(Duration::from_secs(10)), leave);
    assert_eq!(drained.unwrap(), Drained::Complete);
}

/// A bus with a defect.
struct Defective;

#[async_trait::async_trait]
impl Bus for Defective {
    async fn attach(&self, inbox: Arc<dyn Inbox>, _: &Registry) -> Result<(), AttachError> {
        inbox.placed(Some(NodeId(0)));
        Ok(())
    }
    async fn detach(&self) {}
    async fn join(&self, _: TopicId, _: Arrival, _: usize) -> Members {
        panic!("a defect")
    }
    fn leave(&self, _: TopicId, _: Member) {}
    async fn lookup(&self, _: TopicId, _: usize) -> Members {
        Members::default()
    }
    fn forward(&self, _: &Letter<'_>) -> Result<(), Verdict> {
        Ok(())
    }
    fn broadcast(&self, _: &Letter<'_>) -> Result<(), (u32, Verdict)> {
        Ok(())
    }
    fn report(&self, _: Undelivered) {}
}

#[tokio::test]
async fn a_defect_ends_one_connection_and_not_the_node() {
    let relay = common::node_on(Arc::new(Defective), Clock::system(), |_| {}).await;
    let (mut victim, mut other) = (peer(&relay).await, peer(&relay).await);
    victim.peer.send(&Frame::Join { topic: TOPIC }).await.unwrap();
    let (_, end) = victim.peer.recv_to_end().await;
    assert!(end.is_end(), "{end:?}");
    other.peer.sync(1).await.unwrap();
    assert_eq!(relay.metrics().sum("culvert_relay_closed_total", &[("close", "internal")]), 1.0);
    assert_eq!(relay.metrics().sum("culvert_relay_connections", &[]), 1.0);
    relay.kill().await.unwrap();
}

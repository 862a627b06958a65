//! What is revoked does not come in, and what is in ends at once.

use std::sync::Arc;
use std::time::Duration;

use culvert_relay::admission::{Revocations, Revoked};
use culvert_relay::bus::memory::Hub;
use culvert_relay::config::{AdmissionPolicy, TicketPolicy};
use culvert_service_kit::Clock;
use culvert_testkit::relay::Embedded;
use culvert_testkit::{HelloOptions, Identity, RawPeer, tickets};
use culvert_wire::ticket::{AUDIENCE, InvitationClaims, TicketLimits, Topics};
use culvert_wire::{Close, Frame, Notice, PeerId};
use tempfile::TempDir;

use crate::common::{self, Peer, TOPIC, node, peer, peer_with};

const NOW: u64 = 2_000_000_000;

/// Two nodes that ask for tickets or a token, on a date of the test's own.
struct Doors {
    hub: Arc<Hub>,
    left: Embedded,
    right: Embedded,
    issuer: Identity,
    clock: Clock,
    _keys: TempDir,
}

impl Doors {
    async fn open() -> Self {
        let (hub, clock) = (Hub::new(), Clock::manual(NOW));
        let issuer = Identity::random().unwrap();
        let keys = tempfile::tempdir().unwrap();
        let file = keys.path().join("issuer.pem");
        std::fs::write(&file, issuer.public_pem()).unwrap();
        let start = async || {
            let tickets = TicketPolicy::files([file.clone()], Duration::from_secs(86_400));
            node(hub.bus(), clock.clone(), |config| {
                config.admission =
                    AdmissionPolicy { open: true, tickets: Some(tickets), ..AdmissionPolicy::default() };
            })
            .await
        };
        let (left, right) = (start().await, start().await);
        Self { left, right, hub, issuer, clock, _keys: keys }
    }

    fn ticket(&self, holder: &Identity, id: &str) -> String {
        let mut claims = tickets::claims(holder.peer(), Topics::All);
        (claims.iat, claims.exp, claims.jti, claims.invites) = (NOW, NOW + 3600, id.to_owned(), 5);
        tickets::ticket(&self.issuer, None, &claims).unwrap()
    }

    fn invited(&self, guest: &Identity, host: &Identity, ticket: &str) -> HelloOptions {
        let claims = InvitationClaims {
            aud: AUDIENCE.into(),
            iss: host.peer(),
            sub: guest.peer(),
            topic: TOPIC,
            limits: TicketLimits::default(),
            iat: NOW,
            exp: NOW + 3600,
        };
        let invitation = tickets::invitation_with(host, &claims).unwrap();
        HelloOptions::new(guest).invitation(ticket, invitation)
    }

    async fn enters(&self, node: &Embedded, hello: &HelloOptions) -> Result<RawPeer, Close> {
        let mut peer = RawPeer::connect(node.addr(), &node.raw()).await.unwrap();
        peer.hello(hello).await.map_err(|error| error.close().expect("a reason"))?;
        Ok(peer)
    }

    fn revoke(&self, revoked: Revoked, until: u64) {
        let mut list = Revocations::default();
        list.add(revoked, until);
        self.hub.revoke(list);
    }

    async fn close(self) {
        self.left.kill().await.unwrap();
        self.right.kill().await.unwrap();
    }
}

async fn still_in(peer: &mut Peer) {
    peer.peer.sync(7).await.unwrap();
}

#[tokio::test]
async fn a_revoked_ticket_ends_its_connections_on_every_node_and_admits_nobody_until_it_ends() {
    let doors = Doors::open().await;
    let (holder, guest, other) =
        (Identity::random().unwrap(), Identity::random().unwrap(), Identity::random().unwrap());
    let ticket = doors.ticket(&holder, "one");
    let hello = HelloOptions::new(&holder).ticket(ticket.clone());
    let invited = doors.invited(&guest, &holder, &ticket);
    let second = HelloOptions::new(&holder).ticket(doors.ticket(&holder, "two"));
    let mut here = peer_with(&doors.left, &holder, &hello).await;
    let mut there = peer_with(&doors.right, &holder, &hello).await;
    let mut visitor = peer_with(&doors.right, &guest, &invited).await;
    let mut spared = peer_with(&doors.left, &holder, &second).await;
    let foreign = HelloOptions::new(&other).ticket(doors.ticket(&other, "three"));
    let mut bystander = peer_with(&doors.left, &other, &foreign).await;

    doors.revoke(Revoked::Ticket("one".into()), NOW + 3600);
    for peer in [&mut here, &mut there, &mut visitor] {
        assert_eq!(peer.peer.closed().await.unwrap(), Close::Revoked);
    }
    still_in(&mut spared).await;
    still_in(&mut bystander).await;
    for hello in [&hello, &invited] {
        assert_eq!(doors.enters(&doors.right, hello).await.err(), Some(Close::Revoked));
    }
    assert!(!Close::Revoked.may_reconnect());
    let closed = doors.right.metrics().sum("culvert_relay_closed_total", &[("close", "revoked")]);
    assert_eq!(closed, 4.0, "two live ones and two that asked");

    doors.revoke(Revoked::Ticket("one".into()), NOW);
    doors.enters(&doors.right, &hello).await.unwrap();
    doors.close().await;
}

#[tokio::test]
async fn a_revoked_peer_is_out_however_it_came_in_and_so_are_its_guests() {
    let doors = Doors::open().await;
    let (holder, guest) = (Identity::random().unwrap(), Identity::random().unwrap());
    let ticket = doors.ticket(&holder, "one");
    let (bare, with) = (HelloOptions::new(&holder), HelloOptions::new(&holder).ticket(ticket.clone()));
    let invited = doors.invited(&guest, &holder, &ticket);
    let mut ended = vec![
        peer_with(&doors.left, &holder, &bare).await,
        peer_with(&doors.right, &holder, &with).await,
        peer_with(&doors.left, &guest, &invited).await,
    ];
    let mut alone = peer_with(&doors.right, &guest, &HelloOptions::new(&guest)).await;
    doors.revoke(Revoked::Peer(holder.peer()), NOW + 60);
    for peer in &mut ended {
        assert_eq!(peer.peer.closed().await.unwrap(), Close::Revoked);
    }
    still_in(&mut alone).await;
    for hello in [&bare, &with, &invited] {
        assert_eq!(doors.enters(&doors.left, hello).await.err(), Some(Close::Revoked));
    }
    doors.clock.advance(Duration::from_secs(60));
    doors.enters(&doors.left, &bare).await.expect("the revocation has ended");
    doors.close().await;
}

#[tokio::test]
async fn a_renewal_with_a_revoked_ticket_is_refused_and_a_renewed_one_is_what_counts() {
    let doors = Doors::open().await;
    let holder = Identity::random().unwrap();
    let hello = HelloOptions::new(&holder).ticket(doors.ticket(&holder, "old"));
    let mut renewed = peer_with(&doors.left, &holder, &hello).await;
    let mut kept = peer_with(&doors.left, &holder, &hello).await;
    let renew = Frame::Renew { ticket: doors.ticket(&holder, "new") };
    renewed.peer.send(&renew).await.unwrap();
    let expected = Frame::Notice(Notice::Renewed { expires_at: NOW + 3600 });
    assert_eq!(renewed.peer.recv().await.unwrap(), expected);

    doors.revoke(Revoked::Ticket("new".into()), NOW + 60);
    assert_eq!(renewed.peer.closed().await.unwrap(), Close::Revoked);
    kept.peer.send(&renew).await.unwrap();
    let refused = Notice::RenewRefused { code: Close::Revoked.code() };
    assert_eq!(kept.peer.recv().await.unwrap(), Frame::Notice(refused));
    still_in(&mut kept).await;
    doors.close().await;
}

#[tokio::test]
async fn a_node_that_comes_later_knows_what_is_revoked() {
    let hub = Hub::new();
    let revoked = Identity::random().unwrap();
    let mut list = Revocations::default();
    list.add(Revoked::Peer(revoked.peer()), u64::MAX);
    hub.revoke(list);
    let node = common::node_of(&hub).await;
    let mut raw = RawPeer::connect(node.addr(), &node.raw()).await.unwrap();
    let error = raw.hello(&HelloOptions::new(&revoked)).await.unwrap_err();
    assert_eq!(error.close(), Some(Close::Revoked));
    assert_ne!(peer(&node).await.id, PeerId(revoked.peer().0));
    node.kill().await.unwrap();
}

/// Connections that come in while the list changes: each is refused or closed, whichever comes first.
#[tokio::test]
async fn a_revocation_at_the_moment_of_a_hello_is_never_missed() {
    let hub = Hub::new();
    let node = common::node_of(&hub).await;
    for _ in 0..100 {
        let identity = Identity::random().unwrap();
        let mut raw = RawPeer::connect(node.addr(), &node.raw()).await.unwrap();
        let hello = async {
            match raw.hello(&HelloOptions::new(&identity)).await {
                Ok(_) => raw.closed().await.unwrap(),
                Err(error) => error.close().unwrap(),
            }
        };
        let mut list = Revocations::default();
        list.add(Revoked::Peer(identity.peer()), u64::MAX);
        let revoke = async { hub.revoke(list) };
        let (close, ()) = tokio::join!(hello, revoke);
        assert_eq!(close, Close::Revoked);
    }
    node.kill().await.unwrap();
}

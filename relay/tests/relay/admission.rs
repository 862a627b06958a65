//! The door of a fail-closed relay: who shows a good ticket, invitation or token gets in, and every bad
//! one is refused with its own code.

use std::time::Duration;

use anyhow::Result;
use culvert_relay::config::{AdmissionPolicy, TicketPolicy};
use culvert_service_kit::Secret;
use culvert_testkit::relay::Embedded;
use culvert_testkit::tickets::{self, claims, header, invitation, invitation_with, ticket, token};
use culvert_testkit::{HelloOptions, Identity, RawError, RawPeer};
use culvert_wire::ticket::{InvitationClaims, TICKET_TYPE, TicketClaims, TicketLimits, Topics};
use culvert_wire::{Class, Close, Frame, JoinRefusal, Notice, TopicId, Verdict, Welcome};
use serde_json::json;
use tempfile::TempDir;

const OPENED: TopicId = TopicId([1; 32]);
const CLOSED: TopicId = TopicId([2; 32]);

/// A relay that believes one issuer, that issuer, and a peer.
struct Door {
    relay: Embedded,
    issuer: Identity,
    peer: Identity,
    _keys: TempDir,
}

impl Door {
    async fn start() -> Result<Self> {
        let (issuer, peer) = (Identity::random()?, Identity::random()?);
        let keys = tempfile::tempdir()?;
        let file = keys.path().join("issuer.pem");
        std::fs::write(&file, issuer.public_pem())?;
        let mut config = Embedded::config();
        let policy = TicketPolicy::files([file], Duration::from_secs(7200));
        config.admission = AdmissionPolicy { tickets: Some(policy), ..AdmissionPolicy::default() };
        Ok(Self { relay: Embedded::start(config).await?, issuer, peer, _keys: keys })
    }

    fn claims(&self) -> TicketClaims {
        claims(self.peer.peer(), Topics::Only(vec![OPENED]))
    }

    fn ticket(&self, change: impl FnOnce(&mut TicketClaims)) -> String {
        let mut claims = self.claims();
        change(&mut claims);
        ticket(&self.issuer, None, &claims).unwrap()
    }

    async fn enter(&self, hello: &HelloOptions) -> Result<(RawPeer, Welcome), RawError> {
        let mut peer = RawPeer::connect(self.relay.addr(), &self.relay.raw()).await?;
        let welcome = peer.hello(hello).await?;
        Ok((peer, welcome))
    }

    async fn admits(&self, ticket: String) -> (RawPeer, Welcome) {
        self.enter(&HelloOptions::new(&self.peer).ticket(ticket)).await.unwrap()
    }

    async fn refuses(&self, hello: HelloOptions) -> Close {
        let error = self.enter(&hello).await.err().expect("the relay let it in");
        error.close().unwrap_or_else(|| panic!("{error}"))
    }

    async fn refuses_ticket(&self, ticket: String) -> Close {
        self.refuses(HelloOptions::new(&self.peer).ticket(ticket)).await
    }
}

#[tokio::test]
async fn a_good_ticket_opens_its_topics_and_no_others() {
    let door = Door::start().await.unwrap();
    let expires = tickets::now() + 1800;
    let (mut peer, welcome) = door.admits(door.ticket(|claims| claims.exp = expires)).await;
    assert_eq!(welcome.expires_at, expires);
    peer.join(OPENED).await.unwrap();
    let refused = peer.join(CLOSED).await.unwrap_err();
    assert!(matches!(refused, RawError::Refused(JoinRefusal::NotAllowed)), "{refused}");
    peer.send(&Frame::Lookup { topic: CLOSED }).await.unwrap();
    let looked = peer.recv().await.unwrap();
    assert_eq!(looked, Frame::JoinRefused { topic: CLOSED, refusal: JoinRefusal::NotAllowed });
}

#[tokio::test]
async fn nobody_comes_in_without_a_ticket_where_tickets_are_asked_for() {
    let door = Door::start().await.unwrap();
    assert_eq!(door.refuses(HelloOptions::new(&door.peer)).await, Close::NotAdmitted);
    assert_eq!(door.refuses(HelloOptions::new(&door.peer).access_token("")).await, Close::NotAdmitted);
}

#[tokio::test]
async fn a_forged_ticket_is_invalid_however_it_was_forged() {
    let door = Door::start().await.unwrap();
    let stranger = Identity::random().unwrap();
    let claims = serde_json::to_value(door.claims()).unwrap();
    let good = door.ticket(|_| ());
    let signature = good.rsplit_once('.').unwrap().1;
    let forged = [
        ("signed by a stranger", ticket(&stranger, None, &door.claims()).unwrap()),
        ("signed by its own holder", ticket(&door.peer, None, &door.claims()).unwrap()),
        ("changed after it was signed", tickets::tampered(&good)),
        ("not signed at all", tickets::unsigned_token(TICKET_TYPE, &claims)),
        ("without its signature", good.trim_end_matches(signature).to_owned()),
        ("of another type", token(&door.issuer, &header("culvert-invitation+jwt", None), &claims)),
        ("of no type", token(&door.issuer, &json!({ "alg": "EdDSA" }), &claims)),
        (
            "of another algorithm",
            token(&door.issuer, &json!({ "alg": "HS256", "typ": TICKET_TYPE }), &claims),
        ),
        ("for another audience", door.ticket(|claims| claims.aud = "elsewhere".into())),
        ("with too long a life", door.ticket(|claims| claims.exp += 100_000)),
        ("no token", "ticket".into()),
        ("empty", String::new()),
    ];
    for (how, ticket) in forged {
        assert_eq!(door.refuses_ticket(ticket).await, Close::TicketInvalid, "{how}");
    }
    let mut unknown_limit = claims.clone();
    unknown_limit["limits"] = json!({ "frames_per_fortnight": 1 });
    let ticket = token(&door.issuer, &header(TICKET_TYPE, None), &unknown_limit);
    assert_eq!(door.refuses_ticket(ticket).await, Close::TicketInvalid, "a limit nobody understands");
}

#[tokio::test]
async fn an_expired_ticket_is_expired_and_a_foreign_one_foreign() {
    let door = Door::start().await.unwrap();
    let expired = door.ticket(|claims| claims.exp = tickets::now() - 1);
    assert_eq!(door.refuses_ticket(expired).await, Close::TicketExpired);
    let stolen = door.ticket(|_| ());
    let thief = Identity::random().unwrap();
    assert_eq!(door.refuses(HelloOptions::new(&thief).ticket(stolen)).await, Close::TicketForeign);
}

#[tokio::test]
async fn a_renewal_with_a_bad_ticket_is_refused_and_the_old_one_still_holds() {
    let door = Door::start().await.unwrap();
    let (mut peer, _) = door.admits(door.ticket(|_| ())).await;
    let foreign =
        ticket(&door.issuer, None, &claims(Identity::random().unwrap().peer(), Topics::All)).unwrap();
    peer.send(&Frame::Renew { ticket: foreign }).await.unwrap();
    let code = Close::TicketForeign.code();
    assert_eq!(peer.recv().await.unwrap(), Frame::Notice(Notice::RenewRefused { code }));
    peer.join(OPENED).await.unwrap();
}

#[tokio::test]
async fn a_tickets_limits_narrow_the_relays() {
    let door = Door::start().await.unwrap();
    let limits = TicketLimits {
        frames_per_second: Some(50),
        topics: Some(1),
        connections: Some(1),
        highest_class: Some(Class::Bulk),
        ..TicketLimits::default()
    };
    let limited = door.ticket(|claims| (claims.limits, claims.topics) = (limits, Topics::All));
    let (mut peer, welcome) = door.admits(limited.clone()).await;
    assert_eq!((welcome.frames_per_second, welcome.max_topics), (50, 1));
    let (handle, _) = peer.join(OPENED).await.unwrap();
    let refused = peer.join(CLOSED).await.unwrap_err();
    assert!(matches!(refused, RawError::Refused(JoinRefusal::TooManyTopics)), "{refused}");
    peer.send_to(handle, welcome.conn, "in class normal".into()).await.unwrap();
    let verdict = peer.recv_until(|frame| matches!(frame, Frame::Undeliverable { .. })).await.unwrap();
    assert!(matches!(verdict, Frame::Undeliverable { verdict: Verdict::NotAllowed, .. }), "{verdict:?}");
    assert_eq!(door.refuses_ticket(limited).await, Close::Overloaded, "a second connection");
}

#[tokio::test]
async fn an_invitation_lets_its_guest_into_its_topic_and_no_other() {
    let door = Door::start().await.unwrap();
    let guest = Identity::random().unwrap();
    let inviting = door.ticket(|claims| claims.invites = 1);
    let link = invitation(&door.peer, guest.peer(), OPENED).unwrap();
    let hello = HelloOptions::new(&guest).invitation(&inviting, &link);
    let (mut inside, _) = door.enter(&hello).await.unwrap();
    inside.join(OPENED).await.unwrap();
    let refused = inside.join(CLOSED).await.unwrap_err();
    assert!(matches!(refused, RawError::Refused(JoinRefusal::NotAllowed)), "{refused}");
}

#[tokio::test]
async fn an_invitation_that_does_not_hold_is_invalid() {
    let door = Door::start().await.unwrap();
    let (guest, thief) = (Identity::random().unwrap(), Identity::random().unwrap());
    let inviting = door.ticket(|claims| claims.invites = 5);
    let barren = door.ticket(|claims| claims.invites = 0);
    let good = invitation(&door.peer, guest.peer(), OPENED).unwrap();
    let expired = InvitationClaims {
        aud: culvert_wire::ticket::AUDIENCE.into(),
        iss: door.peer.peer(),
        sub: guest.peer(),
        topic: OPENED,
        limits: TicketLimits::default(),
        iat: 0,
        exp: tickets::now() - 1,
    };
    let cases = [
        ("used by another key", HelloOptions::new(&thief).invitation(&inviting, &good)),
        ("under a ticket without invitations", HelloOptions::new(&guest).invitation(&barren, &good)),
        (
            "signed by somebody else than the ticket's holder",
            HelloOptions::new(&guest)
                .invitation(&inviting, invitation(&thief, guest.peer(), OPENED).unwrap()),
        ),
        (
            "to a topic that the ticket does not open",
            HelloOptions::new(&guest)
                .invitation(&inviting, invitation(&door.peer, guest.peer(), CLOSED).unwrap()),
        ),
        (
            "expired",
            HelloOptions::new(&guest).invitation(&inviting, invitation_with(&door.peer, &expired).unwrap()),
        ),
        ("changed", HelloOptions::new(&guest).invitation(&inviting, tickets::tampered(&good))),
    ];
    for (how, hello) in cases {
        assert_eq!(door.refuses(hello).await, Close::InvitationInvalid, "{how}");
    }
    let forged = ticket(&thief, None, &TicketClaims { invites: 5, ..door.claims() }).unwrap();
    let hello = HelloOptions::new(&guest).invitation(forged, &good);
    assert_eq!(door.refuses(hello).await, Close::TicketInvalid, "under a forged ticket");
}

#[tokio::test]
async fn an_access_token_is_proven_without_being_sent() {
    let mut config = Embedded::config();
    let token = Secret::new("open sesame".to_owned());
    config.admission = AdmissionPolicy { access_token: Some(token), ..AdmissionPolicy::default() };
    let relay = Embedded::start(config).await.unwrap();
    let identity = Identity::random().unwrap();
    let enter = async |hello: HelloOptions| {
        let mut peer = RawPeer::connect(relay.addr(), &relay.raw()).await.unwrap();
        peer.hello(&hello).await.map_err(|error| error.close())
    };
    enter(HelloOptions::new(&identity).access_token("open sesame")).await.unwrap();
    for wrong in ["open sesam", "open sesame ", ""] {
        let refused = enter(HelloOptions::new(&identity).access_token(wrong)).await.unwrap_err();
        assert_eq!(refused, Some(Close::NotAdmitted), "{wrong:?}");
    }
    assert_eq!(enter(HelloOptions::new(&identity)).await.unwrap_err(), Some(Close::NotAdmitted));
}

//! One frame of every kind and of every variant inside it, with the name of its golden file.

use bytes::Bytes;
use culvert_wire::{
    Admission, Challenge, Class, ConnId, Frame, Generation, Handle, Hello, JoinRefusal, Member, Members,
    NodeId, Notice, PeerId, TopicId, Verdict, Welcome,
};

const A: ConnId = ConnId(0x0007_a1a2_a3a4_a5a6);
const B: ConnId = ConnId(0x0009_b1b2_b3b4_b5b6);
const TOPIC: TopicId = TopicId([0x66; 32]);
const TOKEN: u64 = 0x0102_0304_0506_0708;
const EXPIRES_AT: u64 = 1_800_000_000;
const MEMBER: Member = Member { conn: B, peer: PeerId([0x77; 32]), generation: Generation(9) };

/// Every sample; `golden.rs` holds that none is missing.
pub(crate) fn samples() -> Vec<(String, Frame)> {
    let mut all = handshake();
    all.extend(payloads());
    all.extend(topics());
    all.extend(events());
    all.into_iter().map(|(name, frame)| (name.to_owned(), frame)).chain(numbered()).collect()
}

fn handshake() -> Vec<(&'static str, Frame)> {
    let ticket = || "a.b.c".to_owned();
    vec![
        (
            "challenge",
            Frame::Challenge(Challenge { nonce: [0x11; 32], node: NodeId(7), versions: vec![2, 1] }),
        ),
        ("hello-none", hello(Admission::None)),
        ("hello-access_token", hello(Admission::AccessToken([0x55; 32]))),
        ("hello-ticket", hello(Admission::Ticket(ticket()))),
        (
            "hello-invitation",
            hello(Admission::Invitation { ticket: ticket(), invitation: "d.e.fg".to_owned() }),
        ),
        (
            "welcome",
            Frame::Welcome(Welcome {
                conn: A,
                version: 1,
                max_payload: 16_384,
                queue_bytes: 1 << 20,
                max_topics: 64,
                frames_per_second: 2000,
                bytes_per_second: 1 << 33,
                keepalive_ms: 15_000,
                idle_timeout_ms: 45_000,
                expires_at: EXPIRES_AT,
            }),
        ),
        ("renew", Frame::Renew { ticket: ticket() }),
    ]
}

fn hello(admission: Admission) -> Frame {
    Frame::Hello(Box::new(Hello {
        peer: PeerId([0x22; 32]),
        nonce: [0x33; 32],
        version: 1,
        generation: Generation(TOKEN),
        replaces: A,
        host: "relay.example".to_owned(),
        admission,
        signature: [0x44; 64],
    }))
}

fn payloads() -> Vec<(&'static str, Frame)> {
    let payload = || Bytes::from_static(b"hello");
    vec![
        ("send-empty", Frame::Send { class: Class::Normal, handle: Handle(3), to: B, payload: Bytes::new() }),
        (
            "deliver-broadcast",
            Frame::Deliver {
                class: Class::Normal,
                broadcast: true,
                handle: Handle(5),
                from: A,
                payload: payload(),
            },
        ),
        ("ping", Frame::Ping { token: TOKEN, padding: Bytes::new() }),
        ("ping-padded", Frame::Ping { token: TOKEN, padding: vec![0; 8].into() }),
        ("pong", Frame::Pong { token: TOKEN, padding: Bytes::new() }),
        ("pong-padded", Frame::Pong { token: TOKEN, padding: vec![0; 8].into() }),
        ("unknown", Frame::Unknown { kind: 0xee }),
    ]
}

fn topics() -> Vec<(&'static str, Frame)> {
    let second = Member { conn: A, peer: PeerId([0x88; 32]), generation: Generation(10) };
    let one = |degraded| Members { total: 1, degraded, list: vec![MEMBER] };
    vec![
        ("join", Frame::Join { topic: TOPIC }),
        ("leave", Frame::Leave { handle: Handle(3) }),
        ("lookup", Frame::Lookup { topic: TOPIC }),
        (
            "joined",
            Frame::Joined {
                handle: Handle(3),
                topic: TOPIC,
                members: Members { total: 300, degraded: false, list: vec![MEMBER, second] },
            },
        ),
        (
            "joined-degraded",
            Frame::Joined {
                handle: Handle(3),
                topic: TOPIC,
                members: Members { degraded: true, ..Members::default() },
            },
        ),
        ("peers", Frame::Peers { topic: TOPIC, members: one(false) }),
        ("peers-degraded", Frame::Peers { topic: TOPIC, members: one(true) }),
        ("peer_joined", Frame::PeerJoined { handle: Handle(3), member: MEMBER }),
        ("peer_left", Frame::PeerLeft { handle: Handle(3), conn: MEMBER.conn, peer: MEMBER.peer }),
    ]
}

fn events() -> Vec<(&'static str, Frame)> {
    vec![
        (
            "undeliverable-broadcast",
            Frame::Undeliverable {
                broadcast: true,
                handle: Handle(3),
                to: ConnId::NONE,
                verdict: Verdict::Full,
                count: 7,
            },
        ),
        ("gap-from", Frame::Gap { from: Some(B), count: 2 }),
        ("gap", Frame::Gap { from: None, count: 2 }),
        ("notice-throttled", Frame::Notice(Notice::Throttled)),
        ("notice-duplicate", Frame::Notice(Notice::Duplicate { newest: B })),
        ("notice-degraded", Frame::Notice(Notice::Degraded)),
        ("notice-restored", Frame::Notice(Notice::Restored)),
        ("notice-renewed", Frame::Notice(Notice::Renewed { expires_at: EXPIRES_AT })),
        ("notice-renew_refused", Frame::Notice(Notice::RenewRefused { code: 4507 })),
        ("notice-expiring", Frame::Notice(Notice::Expiring { expires_at: EXPIRES_AT })),
        ("notice-other", Frame::Notice(Notice::Other(0xee))),
        ("drain", Frame::Drain { reconnect_in_ms: 1500, close_in_ms: 20_000 }),
    ]
}

/// The variants that the crate itself can list: a new one appears here by itself.
fn numbered() -> impl Iterator<Item = (String, Frame)> {
    let payload = || Bytes::from_static(b"hello");
    let by_class = Class::ALL.iter().flat_map(move |&class| {
        let deliver =
            Frame::Deliver { class, broadcast: false, handle: Handle(5), from: A, payload: payload() };
        [
            (
                format!("send-{}", class.name()),
                Frame::Send { class, handle: Handle(3), to: B, payload: payload() },
            ),
            (
                format!("broadcast-{}", class.name()),
                Frame::Broadcast { class, handle: Handle(3), payload: payload() },
            ),
            (format!("deliver-{}", class.name()), deliver),
        ]
    });
    let by_verdict = Verdict::ALL.iter().map(|&verdict| {
        let count = u32::from(verdict.number());
        let frame = Frame::Undeliverable { broadcast: false, handle: Handle(3), to: B, verdict, count };
        (format!("undeliverable-{}", verdict.name()), frame)
    });
    let by_refusal = JoinRefusal::ALL.iter().map(|&refusal| {
        (format!("join_refused-{}", refusal.name()), Frame::JoinRefused { topic: TOPIC, refusal })
    });
    by_class.chain(by_verdict).chain(by_refusal)
}

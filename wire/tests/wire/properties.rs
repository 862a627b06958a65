//! What holds for every frame and for every sequence of bytes.

use bytes::Bytes;
use culvert_wire::limits::{
    MAX_FRAME, MAX_HOST, MAX_INVITATION, MAX_MEMBERS, MAX_PAYLOAD, MAX_TICKET, MAX_VERSIONS,
};
use culvert_wire::{
    Admission, Challenge, Class, ConnId, Frame, Generation, Handle, Header, Hello, JoinRefusal, Kind, Member,
    Members, NodeId, Notice, PeerId, TopicId, Verdict, Welcome,
};
use proptest::array::{uniform, uniform32};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

fn conn() -> impl Strategy<Value = ConnId> {
    any::<u64>().prop_map(ConnId)
}

fn handle() -> impl Strategy<Value = Handle> {
    any::<u16>().prop_map(Handle)
}

fn topic() -> impl Strategy<Value = TopicId> {
    uniform32(any::<u8>()).prop_map(TopicId)
}

fn class() -> impl Strategy<Value = Class> {
    select(Class::ALL)
}

/// Mostly small, sometimes up to the limit.
fn payload() -> impl Strategy<Value = Bytes> {
    prop_oneof![3 => vec(any::<u8>(), 0..100), 1 => vec(any::<u8>(), 0..=MAX_PAYLOAD)].prop_map(Bytes::from)
}

/// UTF-8 of at most `limit` bytes, not characters.
fn text(limit: usize) -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..limit / 2).prop_map(move |chars| {
        let mut text: String = chars.into_iter().collect();
        while text.len() > limit {
            text.pop();
        }
        text
    })
}

fn member() -> impl Strategy<Value = Member> {
    (conn(), uniform32(any::<u8>()), any::<u64>()).prop_map(|(conn, peer, generation)| Member {
        conn,
        peer: PeerId(peer),
        generation: Generation(generation),
    })
}

fn members() -> impl Strategy<Value = Members> {
    (any::<u32>(), any::<bool>(), vec(member(), 0..=MAX_MEMBERS))
        .prop_map(|(total, degraded, list)| Members { total, degraded, list })
}

fn admission() -> impl Strategy<Value = Admission> {
    prop_oneof![
        Just(Admission::None),
        uniform32(any::<u8>()).prop_map(Admission::AccessToken),
        text(MAX_TICKET).prop_map(Admission::Ticket),
        (text(MAX_TICKET), text(MAX_INVITATION))
            .prop_map(|(ticket, invitation)| Admission::Invitation { ticket, invitation }),
    ]
}

fn notice() -> impl Strategy<Value = Notice> {
    prop_oneof![
        Just(Notice::Throttled),
        conn().prop_map(|newest| Notice::Duplicate { newest }),
        Just(Notice::Degraded),
        Just(Notice::Restored),
        any::<u64>().prop_map(|expires_at| Notice::Renewed { expires_at }),
        any::<u16>().prop_map(|code| Notice::RenewRefused { code }),
        any::<u64>().prop_map(|expires_at| Notice::Expiring { expires_at }),
        (8..=u8::MAX).prop_map(Notice::Other),
    ]
}

fn handshake() -> impl Strategy<Value = Frame> {
    let challenge = (uniform32(any::<u8>()), any::<u16>(), vec(any::<u16>(), 0..=MAX_VERSIONS)).prop_map(
        |(nonce, node, versions)| Frame::Challenge(Challenge { nonce, node: NodeId(node), versions }),
    );
    let hello = (
        uniform32(any::<u8>()),
        uniform32(any::<u8>()),
        any::<u16>(),
        any::<u64>(),
        conn(),
        text(MAX_HOST),
        admission(),
        uniform::<_, 64>(any::<u8>()),
    )
        .prop_map(|(peer, nonce, version, generation, replaces, host, admission, signature)| {
            Frame::Hello(Box::new(Hello {
                peer: PeerId(peer),
                nonce,
                version,
                generation: Generation(generation),
                replaces,
                host,
                admission,
                signature,
            }))
        });
    let welcome = (conn(), any::<[u16; 2]>(), any::<[u32; 5]>(), any::<[u64; 2]>()).prop_map(
        |(conn, [version, max_topics], [payload, queue, frames, keepalive, idle], [bytes, expires_at])| {
            Frame::Welcome(Welcome {
                conn,
                version,
                max_payload: payload,
                queue_bytes: queue,
                max_topics,
                frames_per_second: frames,
                bytes_per_second: bytes,
                keepalive_ms: keepalive,
                idle_timeout_ms: idle,
                expires_at,
            })
        },
    );
    prop_oneof![challenge, hello, welcome]
}

fn from_client() -> impl Strategy<Value = Frame> {
    prop_oneof![
        topic().prop_map(|topic| Frame::Join { topic }),
        handle().prop_map(|handle| Frame::Leave { handle }),
        topic().prop_map(|topic| Frame::Lookup { topic }),
        (class(), handle(), conn(), payload()).prop_map(|(class, handle, to, payload)| Frame::Send {
            class,
            handle,
            to,
            payload
        }),
        (class(), handle(), payload()).prop_map(|(class, handle, payload)| Frame::Broadcast {
            class,
            handle,
            payload
        }),
        text(MAX_TICKET).prop_map(|ticket| Frame::Renew { ticket }),
        (any::<u64>(), payload()).prop_map(|(token, padding)| Frame::Ping { token, padding }),
    ]
}

fn from_relay() -> impl Strategy<Value = Frame> {
    prop_oneof![
        (handle(), topic(), members()).prop_map(|(handle, topic, members)| Frame::Joined {
            handle,
            topic,
            members
        }),
        (topic(), members()).prop_map(|(topic, members)| Frame::Peers { topic, members }),
        (handle(), member()).prop_map(|(handle, member)| Frame::PeerJoined { handle, member }),
        (handle(), member()).prop_map(|(handle, gone)| Frame::PeerLeft {
            handle,
            conn: gone.conn,
            peer: gone.peer
        }),
        (class(), any::<bool>(), handle(), conn(), payload()).prop_map(
            |(class, broadcast, handle, from, payload)| Frame::Deliver {
                class,
                broadcast,
                handle,
                from,
                payload
            }
        ),
        (any::<bool>(), handle(), conn(), select(Verdict::ALL), any::<u32>()).prop_map(
            |(broadcast, handle, to, verdict, count)| Frame::Undeliverable {
                broadcast,
                handle,
                to,
                verdict,
                count
            }
        ),
        (conn(), any::<u32>())
            .prop_map(|(from, count)| Frame::Gap { from: (from != ConnId::NONE).then_some(from), count }),
        notice().prop_map(Frame::Notice),
        any::<[u32; 2]>()
            .prop_map(|[reconnect_in_ms, close_in_ms]| Frame::Drain { reconnect_in_ms, close_in_ms }),
        (any::<u64>(), payload()).prop_map(|(token, padding)| Frame::Pong { token, padding }),
        (topic(), select(JoinRefusal::ALL))
            .prop_map(|(topic, refusal)| Frame::JoinRefused { topic, refusal }),
        any::<u8>()
            .prop_filter("a known kind", |kind| Kind::from_number(*kind).is_none())
            .prop_map(|kind| Frame::Unknown { kind }),
    ]
}

fn frame() -> impl Strategy<Value = Frame> {
    prop_oneof![handshake(), from_client(), from_relay()]
}

/// Bytes of which about half begin like a frame of a known kind.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let body = || prop_oneof![4 => vec(any::<u8>(), 0..400), 1 => vec(any::<u8>(), 0..MAX_FRAME + 64)];
    let framed = (select(Kind::ALL), 0..8u8, body()).prop_map(|(kind, flags, mut body)| {
        body.splice(0..0, [kind.number(), flags]);
        body
    });
    prop_oneof![body(), framed]
}

proptest! {
    #[test]
    fn every_frame_reads_back(frame in frame()) {
        let bytes = frame.encode().unwrap();
        prop_assert!(bytes.len() <= MAX_FRAME);
        prop_assert_eq!(bytes[0], frame.kind());
        prop_assert_eq!(Frame::decode(bytes).unwrap(), frame);
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_read_the_same_again(bytes in bytes()) {
        if let Ok(frame) = Frame::decode(bytes.into()) {
            let written = frame.encode().unwrap();
            prop_assert_eq!(Frame::decode(written).unwrap(), frame);
        }
    }

    #[test]
    fn every_header_reads_back(
        kind in any::<u8>(),
        class in class(),
        broadcast in any::<bool>(),
        handle in handle(),
        conn in conn(),
        body in vec(any::<u8>(), 0..32),
    ) {
        let header = Header { kind, class, broadcast, handle, conn };
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend_from_slice(&body);
        prop_assert_eq!(Header::split(&bytes), Ok((header, &body[..])));
    }

    #[test]
    fn a_payload_is_a_slice_of_its_message(payload in payload()) {
        let frame = Frame::Send { class: Class::Bulk, handle: Handle(1), to: ConnId(2), payload };
        let bytes = frame.encode().unwrap();
        let Frame::Send { payload, .. } = Frame::decode(bytes.clone()).unwrap() else { unreachable!() };
        prop_assert_eq!(payload.as_ptr(), bytes[12..].as_ptr());
    }
}

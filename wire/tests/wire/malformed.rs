//! Frames that are cut, stretched, too large, or from a later version.

use bytes::Bytes;
use culvert_wire::limits::{
    HEADER_LEN, MAX_FRAME, MAX_HOST, MAX_INVITATION, MAX_MEMBERS, MAX_PAYLOAD, MAX_TICKET, MAX_VERSIONS,
};
use culvert_wire::{
    Admission, Challenge, Class, ConnId, DecodeError, Frame, Generation, Handle, Header, Hello, Kind, Member,
    Members, NodeId, Notice, PeerId, TopicId,
};

use crate::samples::samples;

/// Where a frame of this kind may end: behind the header, because the rest is payload, or nowhere early.
fn ends_anywhere(kind: u8) -> bool {
    let Some(kind) = Kind::from_number(kind) else { return true };
    matches!(
        kind,
        Kind::Leave | Kind::Send | Kind::Broadcast | Kind::Renew | Kind::Deliver | Kind::Ping | Kind::Pong
    )
}

fn with_body(kind: Kind, body: &[u8]) -> Bytes {
    [&Header::plain(kind).to_bytes(), body].concat().into()
}

fn sample(name: &str) -> Vec<u8> {
    let (_, frame) = samples().into_iter().find(|(sample, _)| sample == name).unwrap();
    frame.encode().unwrap().to_vec()
}

#[test]
fn a_frame_cut_at_any_length_is_short() {
    for (name, frame) in samples() {
        let bytes = frame.encode().unwrap();
        for len in 0..bytes.len() {
            let read = Frame::decode(bytes.slice(..len));
            if len >= HEADER_LEN && ends_anywhere(frame.kind()) {
                assert!(read.is_ok(), "{name} cut at {len}: {read:?}");
            } else {
                let kind = if len == 0 { 0 } else { frame.kind() };
                assert_eq!(read, Err(DecodeError::Short { kind }), "{name} cut at {len}");
            }
        }
    }
}

#[test]
fn bytes_behind_a_fixed_body_are_ignored() {
    for (name, frame) in samples() {
        let mut bytes = frame.encode().unwrap().to_vec();
        bytes.extend_from_slice(&[0; 9]);
        let read = Frame::decode(bytes.into()).unwrap();
        if ends_anywhere(frame.kind()) && !matches!(frame, Frame::Leave { .. } | Frame::Unknown { .. }) {
            assert_ne!(read, frame, "{name}: the appended bytes belong to the payload");
        } else {
            assert_eq!(read, frame, "{name}");
        }
    }
}

#[test]
fn flags_of_a_later_version_are_ignored() {
    for (name, frame) in samples() {
        let mut bytes = frame.encode().unwrap().to_vec();
        bytes[1] |= 0b1111_1000;
        assert_eq!(Frame::decode(bytes.into()).unwrap(), frame, "{name}");
    }
}

#[test]
fn unknown_kinds_are_skipped_whatever_is_in_them() {
    for number in 0..=u8::MAX {
        if Kind::from_number(number).is_some() {
            continue;
        }
        let mut bytes = vec![0xab; 300];
        (bytes[0], bytes[1]) = (number, 0);
        assert_eq!(Frame::decode(bytes.into()), Ok(Frame::Unknown { kind: number }));
    }
}

#[test]
fn unknown_notices_are_skipped_whatever_is_in_them() {
    for number in (0..=u8::MAX).filter(|number| !(1..=7).contains(number)) {
        let read = Frame::decode(with_body(Kind::Notice, &[number, 1, 2, 3]));
        assert_eq!(read, Ok(Frame::Notice(Notice::Other(number))));
    }
}

#[test]
fn the_class_number_3_is_refused_in_every_kind() {
    for (name, frame) in samples() {
        let mut bytes = frame.encode().unwrap().to_vec();
        bytes[1] |= 0b11;
        assert_eq!(Frame::decode(bytes.into()), Err(DecodeError::Class), "{name}");
    }
}

#[test]
fn numbers_that_v1_does_not_define_are_refused() {
    let value = |field| Err(DecodeError::Value { field });
    let mut admission = sample("hello-none");
    let at = admission.len() - 65;
    admission[at] = 4;
    assert_eq!(Frame::decode(admission.into()), value("admission"));
    for number in [0, 7, 255] {
        let body = [number, 0, 0, 0, 1];
        assert_eq!(Frame::decode(with_body(Kind::Undeliverable, &body)), value("verdict"));
    }
    for number in [0, 4, 255] {
        let body = [&[0; 32][..], &[number]].concat();
        assert_eq!(Frame::decode(with_body(Kind::JoinRefused, &body)), value("refusal"));
    }
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    let value = |field| Err(DecodeError::Value { field });
    assert_eq!(Frame::decode(with_body(Kind::Renew, &[0xff])), value("ticket"));
    for (name, text, field) in [
        ("hello-none", &b"relay"[..], "host"),
        ("hello-ticket", b"a.b.c", "ticket"),
        ("hello-invitation", b"d.e.fg", "invitation"),
    ] {
        let mut bytes = sample(name);
        let at = bytes.windows(text.len()).position(|window| window == text).unwrap();
        bytes[at] = 0xff;
        assert_eq!(Frame::decode(bytes.into()), value(field), "{name}");
    }
}

#[test]
fn counts_and_lengths_over_their_limit_are_refused_before_anything_is_read() {
    let too_long = |field, limit| Err(DecodeError::TooLong { field, limit });

    let body = [&[0; 34][..], &[17]].concat();
    assert_eq!(Frame::decode(with_body(Kind::Challenge, &body)), too_long("versions", MAX_VERSIONS));

    for kind in [Kind::Joined, Kind::Peers] {
        let body = [&[0; 37][..], &257u16.to_be_bytes()].concat();
        assert_eq!(Frame::decode(with_body(kind, &body)), too_long("members", MAX_MEMBERS));
    }

    let fixed = [0; 82];
    let hello = |rest: &[u8]| Frame::decode(with_body(Kind::Hello, &[&fixed[..], rest].concat()));
    assert_eq!(hello(&256u16.to_be_bytes()), too_long("host", MAX_HOST));
    assert_eq!(hello(&[0, 0, 2, 0x10, 0x01]), too_long("ticket", MAX_TICKET));
    assert_eq!(hello(&[0, 0, 3, 0x10, 0x01]), too_long("ticket", MAX_TICKET));
    assert_eq!(hello(&[0, 0, 3, 0, 0, 0x04, 0x01]), too_long("invitation", MAX_INVITATION));
}

#[test]
fn a_message_larger_than_a_frame_is_refused_whatever_its_kind() {
    for kind in 0..=u8::MAX {
        let mut bytes = vec![0; MAX_FRAME + 1];
        bytes[0] = kind;
        let refused = Err(DecodeError::TooLong { field: "frame", limit: MAX_FRAME });
        assert_eq!(Frame::decode(bytes.into()), refused);
    }
}

/// A field's name and limit, and a frame in which it is as long as one wants.
type Limited = (&'static str, usize, fn(usize) -> Frame);

fn limited() -> Vec<Limited> {
    fn text(len: usize) -> String {
        "x".repeat(len)
    }
    fn hello(host: usize, admission: Admission) -> Frame {
        Frame::Hello(Box::new(Hello {
            peer: PeerId([1; 32]),
            nonce: [2; 32],
            version: 1,
            generation: Generation(3),
            replaces: ConnId::NONE,
            host: text(host),
            admission,
            signature: [4; 64],
        }))
    }
    fn members(len: usize) -> Members {
        let member = Member { conn: ConnId(1), peer: PeerId([1; 32]), generation: Generation(1) };
        Members { total: 9, degraded: false, list: vec![member; len] }
    }
    const TOPIC: TopicId = TopicId([1; 32]);
    vec![
        ("versions", MAX_VERSIONS, |len| {
            Frame::Challenge(Challenge { nonce: [0; 32], node: NodeId(1), versions: vec![1; len] })
        }),
        ("host", MAX_HOST, |len| hello(len, Admission::None)),
        ("ticket", MAX_TICKET, |len| hello(0, Admission::Ticket(text(len)))),
        ("ticket", MAX_TICKET, |len| {
            hello(MAX_HOST, Admission::Invitation { ticket: text(len), invitation: text(MAX_INVITATION) })
        }),
        ("invitation", MAX_INVITATION, |len| {
            hello(MAX_HOST, Admission::Invitation { ticket: text(MAX_TICKET), invitation: text(len) })
        }),
        ("ticket", MAX_TICKET, |len| Frame::Renew { ticket: text(len) }),
        ("members", MAX_MEMBERS, |len| Frame::Joined {
            handle: Handle(1),
            topic: TOPIC,
            members: members(len),
        }),
        ("members", MAX_MEMBERS, |len| Frame::Peers { topic: TOPIC, members: members(len) }),
        ("payload", MAX_PAYLOAD, |len| Frame::Send {
            class: Class::Bulk,
            handle: Handle(1),
            to: ConnId(1),
            payload: vec![0; len].into(),
        }),
        ("payload", MAX_PAYLOAD, |len| Frame::Broadcast {
            class: Class::Bulk,
            handle: Handle(1),
            payload: vec![0; len].into(),
        }),
        ("payload", MAX_PAYLOAD, |len| Frame::Deliver {
            class: Class::Bulk,
            broadcast: true,
            handle: Handle(1),
            from: ConnId(1),
            payload: vec![0; len].into(),
        }),
        ("payload", MAX_PAYLOAD, |len| Frame::Ping { token: 1, padding: vec![0; len].into() }),
        ("payload", MAX_PAYLOAD, |len| Frame::Pong { token: 1, padding: vec![0; len].into() }),
    ]
}

#[test]
fn a_field_at_its_limit_passes_and_one_more_is_not_written() {
    for (field, limit, make) in limited() {
        let frame = make(limit);
        let bytes = frame.encode().unwrap();
        assert!(bytes.len() <= MAX_FRAME, "{field}");
        assert_eq!(Frame::decode(bytes).unwrap(), frame, "{field}");
        let error = make(limit + 1).encode().unwrap_err();
        assert_eq!((error.field, error.limit), (field, limit));
        assert_eq!(error.to_string(), format!("{field} is longer than {limit}"));
    }
}

#[test]
fn the_errors_say_what_is_wrong() {
    for (error, text) in [
        (DecodeError::Short { kind: 0x13 }, "frame of kind 0x13 is shorter than its fields"),
        (DecodeError::Class, "class 3 does not exist"),
        (DecodeError::TooLong { field: "frame", limit: MAX_FRAME }, "frame is longer than 16396"),
        (DecodeError::Value { field: "verdict" }, "verdict has no defined value"),
    ] {
        assert_eq!(error.to_string(), text);
    }
}

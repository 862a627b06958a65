use proptest::prelude::*;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame as Peer, FrameHeader};

use super::*;

/// What a client sends, by another implementation of RFC 6455.
fn sent(opcode: OpCode, last: bool, content: &[u8]) -> Vec<u8> {
    let mask = Some([0x6d, 0xb6, 0xb2, 0x80]);
    let header = FrameHeader { is_final: last, opcode, mask, ..FrameHeader::default() };
    let mut bytes = Vec::new();
    Peer::from_payload(header, content.to_vec().into()).format(&mut bytes).unwrap();
    bytes
}

fn binary(content: &[u8]) -> Vec<u8> {
    sent(OpCode::Data(Data::Binary), true, content)
}

/// Everything that one decoder makes of `pieces`, in a form that can be compared.
fn decoded<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<(char, Vec<u8>)>, Option<Violation>) {
    let (mut decoder, mut events) = (Decoder::default(), Vec::new());
    for mut piece in pieces {
        loop {
            match decoder.next(&mut piece) {
                Ok(None) => break,
                Ok(Some(Event::Message(message))) => events.push(('m', message.frame().to_vec())),
                Ok(Some(Event::Part)) => events.push(('.', Vec::new())),
                Ok(Some(Event::Ping(content))) => events.push(('?', content)),
                Ok(Some(Event::Pong)) => events.push(('!', Vec::new())),
                Ok(Some(Event::Close)) => events.push(('c', Vec::new())),
                Err(violation) => return (events, Some(violation)),
            }
        }
        assert!(piece.is_empty(), "what makes no event is kept by the decoder");
    }
    (events, None)
}

fn violation(bytes: &[u8]) -> Option<Violation> {
    let whole = decoded([bytes]).1;
    assert_eq!(decoded(bytes.chunks(1)).1, whole, "the same byte by byte");
    whole
}

/// A message in fragments, with control frames between them, and what comes out of it.
fn traffic() -> impl Strategy<Value = (Vec<u8>, Vec<(char, Vec<u8>)>)> {
    let content = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..130),
        (0_usize..=MAX_FRAME).prop_map(|len| vec![0x5a; len]),
        Just(vec![0x17; MAX_FRAME]),
    ];
    let control = prop::collection::vec(any::<u8>(), 0..=125);
    let item = (content, 1_usize..5, control, 0_u8..3);
    prop::collection::vec(item, 0..8).prop_map(|items| {
        let (mut bytes, mut events) = (Vec::new(), Vec::new());
        for (content, parts, control, between) in items {
            let cut = (content.len() / parts).max(1);
            let mut fragments: Vec<&[u8]> = content.chunks(cut).collect();
            if fragments.is_empty() {
                fragments.push(&[]);
            }
            let last = fragments.len() - 1;
            for (n, fragment) in fragments.into_iter().enumerate() {
                let data = if n == 0 { Data::Binary } else { Data::Continue };
                bytes.extend(sent(OpCode::Data(data), n == last, fragment));
                events.push(if n == last { ('m', content.clone()) } else { ('.', Vec::new()) });
                match between {
                    1 => {
                        bytes.extend(sent(OpCode::Control(Control::Ping), true, &control));
                        events.push(('?', control.clone()));
                    }
                    2 => {
                        bytes.extend(sent(OpCode::Control(Control::Pong), true, &control));
                        events.push(('!', Vec::new()));
                    }
                    _ => {}
                }
            }
        }
        (bytes, events)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// However the bytes are cut, what another implementation sent comes out.
    #[test]
    fn what_a_client_sent_comes_out_however_it_is_cut(
        (bytes, expected) in traffic(),
        cuts in prop::collection::vec(1_usize..5000, 1..20),
    ) {
        let (mut pieces, mut rest) = (Vec::new(), &bytes[..]);
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, behind) = rest.split_at(rest.len().min(*cut));
            pieces.push(piece);
            rest = behind;
        }
        let (events, violation) = decoded(pieces);
        prop_assert_eq!(violation, None);
        prop_assert!(events == expected, "something else came out");
    }

    /// Whatever comes, nothing panics, and the cut makes no difference.
    #[test]
    fn any_bytes_end_in_the_same_events_however_they_are_cut(
        mut bytes in prop::collection::vec(any::<u8>(), 0..300),
        sane in any::<bool>(),
        cut in 1_usize..40,
    ) {
        if sane && bytes.len() > 1 {
            // Past the first checks.
            bytes[0] = 0x80 | (bytes[0] & 0x0f);
            bytes[1] |= 0x80;
        }
        prop_assert_eq!(decoded([&bytes[..]]), decoded(bytes.chunks(cut)));
    }
}

#[test]
fn a_message_over_the_limit_is_too_large_by_its_header_alone() {
    assert_eq!(violation(&binary(&vec![0; MAX_FRAME])), None);
    assert_eq!(violation(&binary(&vec![0; MAX_FRAME + 1])[..8]), Some(Violation::TooLarge));
    let mut first = sent(OpCode::Data(Data::Binary), false, &[0; MAX_FRAME]);
    first.extend(sent(OpCode::Data(Data::Continue), true, &[0]));
    assert_eq!(violation(&first), Some(Violation::TooLarge));
    let gigabytes = [&[0x82, 0xff][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat();
    assert_eq!(violation(&gigabytes), Some(Violation::TooLarge));
}

#[test]
fn what_rfc_6455_or_the_protocol_forbids_is_a_violation() {
    let data = |data, last| sent(OpCode::Data(data), last, b"x");
    let control = |control, last, len| sent(OpCode::Control(control), last, &vec![0; len]);
    let mut unmasked = binary(b"x");
    unmasked[1] &= 0x7f;
    let reserved_bits = (4..7).map(|bit| {
        let mut bytes = binary(b"x");
        bytes[0] |= 1 << bit;
        bytes
    });
    let reserved_opcodes = [3_u8, 7, 11, 15].map(|opcode| {
        let mut bytes = binary(b"x");
        bytes[0] = 0x80 | opcode;
        bytes
    });
    let others = [
        unmasked,
        data(Data::Text, true),
        data(Data::Continue, true),
        [data(Data::Binary, false), data(Data::Binary, true)].concat(),
        control(Control::Ping, false, 1),
        control(Control::Ping, true, 126),
        control(Control::Close, false, 2),
        control(Control::Close, true, 1),
    ];
    for bytes in reserved_bits.chain(reserved_opcodes).chain(others) {
        assert_eq!(violation(&bytes), Some(Violation::Protocol), "{bytes:x?}");
    }
}

#[test]
fn memory_is_held_for_what_came_and_not_for_what_was_promised() {
    let bytes = binary(&[7; MAX_FRAME]);
    let mut decoder = Decoder::default();
    assert!(decoder.next(&mut &bytes[..8]).unwrap().is_none());
    assert!(decoder.message.capacity() <= 16, "a mere header");
    assert!(decoder.next(&mut &bytes[8..1008]).unwrap().is_none());
    assert!(decoder.message.capacity() <= 4 * 1024);
    let Ok(Some(Event::Message(message))) = decoder.next(&mut &bytes[1008..]) else { panic!("incomplete") };
    assert_eq!(message.frame(), [7; MAX_FRAME]);
    assert_eq!(decoder.message.capacity(), 0, "nothing stays");
}

#[test]
fn many_tiny_parts_of_a_message_cost_no_more_than_its_size() {
    let mut decoder = Decoder::default();
    let mut grown = 0;
    for n in 0..MAX_FRAME {
        let data = if n == 0 { Data::Binary } else { Data::Continue };
        let before = decoder.message.capacity();
        let bytes = sent(OpCode::Data(data), false, &[1]);
        assert!(matches!(decoder.next(&mut &bytes[..]), Ok(Some(Event::Part))));
        grown += usize::from(decoder.message.capacity() != before);
    }
    assert!(grown < 20, "grown {grown} times");
    assert!(decoder.message.capacity() <= 4 * MAX_FRAME);
}

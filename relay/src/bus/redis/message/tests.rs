use culvert_wire::limits::MAX_PAYLOAD;
use proptest::prelude::*;

use super::*;

const GOLDEN: [(u8, &str); 2] = [(1, include_str!("golden/v1.hex")), (2, include_str!("golden/v2.hex"))];

fn header(version: u8) -> Header {
    Header {
        version,
        flags: ASK,
        source: NodeId(0x0102),
        instance: 0x1111_1111_1111_1111,
        target: 0x2222_2222_2222_2222,
        epoch: 3,
        sequence: 4,
        offset: 5,
        letters: 6,
        confirmed_epoch: 7,
        confirmed: 8,
        granted: 9,
    }
}

fn member() -> Member {
    Member { conn: ConnId(0x0102_0304), peer: PeerId([0x33; 32]), generation: Generation(5) }
}

fn items() -> Vec<Item> {
    let topic = TopicId([0x44; 32]);
    let undelivered = |topic| {
        Item::Undelivered(Undelivered {
            topic,
            from: ConnId(1),
            to: ConnId(2),
            verdict: Verdict::Full,
            count: 3,
        })
    };
    vec![
        undelivered(Some(topic)),
        undelivered(None),
        Item::Arrived { topic, arrival: Arrival { member: member(), replaces: ConnId(9) } },
        Item::Departed { topic, member: member() },
        Item::Resynced,
    ]
}

fn letter(to: u64, class: Class, payload: &[u8]) -> Letter<'_> {
    let sender = if to == 0 { PeerId([0x55; 32]) } else { PeerId([0; 32]) };
    Letter { topic: TopicId([0x44; 32]), from: ConnId(1), to: ConnId(to), sender, class, payload }
}

fn message(version: u8) -> Vec<u8> {
    let mut chunk = Chunk::new(version);
    for (number, item) in (1..).zip(&items()) {
        chunk.item(number, item);
    }
    for letter in [
        letter(2, Class::Control, b"first"),
        letter(2, Class::Bulk, b"again"),
        letter(3, Class::Normal, b""),
        letter(0, Class::Normal, b"all"),
        letter(3, Class::Normal, b"after"),
    ] {
        chunk.letter(&letter);
    }
    assert_eq!(chunk.letters(), 5);
    let mut bytes = BytesMut::new();
    header(version).put(&mut bytes);
    bytes.extend_from_slice(chunk.bytes());
    bytes.to_vec()
}

#[test]
fn every_version_is_written_and_read_as_it_always_was() {
    for (version, golden) in GOLDEN {
        let golden = data_encoding::HEXLOWER.decode(golden.split_whitespace().collect::<String>().as_bytes());
        let golden = golden.unwrap();
        assert_eq!(
            data_encoding::HEXLOWER.encode(&message(version)),
            data_encoding::HEXLOWER.encode(&golden)
        );
        let mut rest = &golden[..];
        assert_eq!(Header::take(&mut rest).unwrap(), header(version));
        let parts: Vec<_> = Parts::new(version, rest).map(Result::unwrap).collect();
        let read: Vec<Item> = parts
            .iter()
            .filter_map(|part| match part {
                Part::Item { item, .. } => Some(*item),
                Part::Letter(_) => None,
            })
            .collect();
        assert_eq!(read, items());
        let letters: Vec<(u64, Class, &[u8])> = parts
            .iter()
            .filter_map(|part| match part {
                Part::Letter(letter) => Some((letter.to.0, letter.class, letter.payload)),
                Part::Item { .. } => None,
            })
            .collect();
        assert_eq!(
            letters,
            [
                (2, Class::Control, &b"first"[..]),
                (2, Class::Bulk, b"again"),
                (3, Class::Normal, b""),
                (0, Class::Normal, b"all"),
                (3, Class::Normal, b"after"),
            ]
        );
    }
}

#[test]
fn version_2_does_not_repeat_a_route() {
    let size = |version| {
        let mut chunk = Chunk::new(version);
        (0..64).for_each(|_| chunk.letter(&letter(2, Class::Normal, &[0; 64])));
        chunk.len()
    };
    assert_eq!((size(1), size(2)), (64 * (51 + 64), 48 + 64 * (3 + 64)));
}

#[test]
fn a_version_that_is_not_spoken_and_an_item_of_another_version_are_refused() {
    let mut bytes = message(2);
    bytes[0] = 3;
    assert_eq!(Header::take(&mut &bytes[..]), Err(MessageError::Version(3)));
    bytes[0] = 0;
    assert_eq!(Header::take(&mut &bytes[..]), Err(MessageError::Version(0)));
    let newer = message(2);
    let last = Parts::new(1, &newer[HEADER..]).last().unwrap();
    assert!(matches!(last, Err(MessageError::Item(REPEAT))), "{last:?}");
}

#[test]
fn the_longest_payload_fits() {
    let payload = vec![7; MAX_PAYLOAD];
    let mut chunk = Chunk::new(2);
    chunk.letter(&letter(2, Class::Bulk, &payload));
    let Some(Ok(Part::Letter(read))) = Parts::new(2, chunk.bytes()).next() else { panic!() };
    assert_eq!(read.payload, payload);
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic_or_run_for_ever(version in 1..=2u8, bytes: Vec<u8>) {
        let _ = Header::take(&mut &bytes[..]);
        let parts = Parts::new(version, &bytes).count();
        prop_assert!(parts <= bytes.len());
    }

    #[test]
    fn a_message_that_is_cut_off_is_an_error_or_ends_at_an_item(cut in 0usize..600) {
        let whole = message(2);
        let items = &whole[HEADER..];
        let cut = cut.min(items.len());
        let read: usize = Parts::new(2, &items[..cut]).filter(Result::is_ok).count();
        prop_assert!(read <= Parts::new(2, items).count());
    }
}

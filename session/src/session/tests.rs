//! A peer with keys and bad intentions: packets that no honest session writes.

use std::time::Duration;

use bytes::Bytes;
use culvert_wire::{Class, TopicId};
use proptest::prelude::*;

use super::*;
use crate::crypto::AwsLc;
use crate::frame::{Ack, Frame, Terms};
use crate::{Identity, Rekey, Violation};

const PATH: PathId = PathId(1);
const NOW: Duration = Duration::from_secs(1);

fn config(seed: u8) -> Config {
    Config::new(Identity::from_seed(&[seed; 32]), TopicId([7; 32]))
}

fn pass(from: &mut Session, to: &mut Session) -> bool {
    let mut datagram = Vec::new();
    let mut any = false;
    while from.poll_transmit(NOW, &mut datagram).is_some() {
        to.receive(NOW, PATH, &mut datagram);
        any = true;
    }
    any
}

/// An honest end and a hostile one, both past the handshake; accepted as asked.
fn pair(config_: Config, accept: [bool; 2]) -> (Session, Session) {
    let mut hostile = Session::initiate(config(66), PATH, NOW, Box::new(AwsLc));
    let mut datagram = Vec::new();
    hostile.poll_transmit(NOW, &mut datagram).unwrap();
    let mut honest = Session::accept(config_, &datagram, PATH, NOW, Box::new(AwsLc)).unwrap();
    while pass(&mut honest, &mut hostile) | pass(&mut hostile, &mut honest) {
        for (session, accept) in [&mut honest, &mut hostile].into_iter().zip(accept) {
            while session.poll_event().is_some() {}
            if accept {
                session.authorize(NOW, true);
            }
        }
    }
    (honest, hostile)
}

/// A packet of the hostile end with these frames.
fn forge(hostile: &mut Session, write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let channel = hostile.channel.as_mut().unwrap();
    let mut out = Vec::new();
    channel.begin(NOW, &Rekey::default(), &mut out, &mut Counters::default());
    write(&mut out);
    channel.finish(NOW, Class::Bulk, None, &mut out);
    out
}

fn strike(honest: &mut Session, hostile: &mut Session, frames: &[Frame<'_>]) {
    let mut packet = forge(hostile, |out| frames.iter().for_each(|frame| frame.encode(out)));
    honest.receive(NOW, PATH, &mut packet);
}

fn stream(id: u64, offset: u64, data: &[u8]) -> Frame<'_> {
    Frame::Stream { id: StreamId(id), priority: Priority::NORMAL, offset, data }
}

fn verdict(honest: &mut Session) -> Option<CloseReason> {
    std::iter::from_fn(|| honest.poll_event()).find_map(|event| match event {
        Event::Closed { reason, .. } => Some(reason),
        _ => None,
    })
}

#[test]
fn what_only_a_broken_peer_does_ends_the_session() {
    let acks = |low, high| Frame::Ack(Ack::new(Duration::ZERO, 0, [(low, high)]));
    let window = config(1).stream_window as u64;
    let cases: [(&[Frame<'_>], Violation); 9] = [
        (&[acks(0, 1 << 40)], Violation::UnsentAcknowledged),
        (&[stream(1, 0, b"x")], Violation::InvalidStream),
        (&[stream(2 * 32, 0, b"x")], Violation::InvalidStream),
        (&[Frame::Ping, stream(1 << 61, 0, b"x")], Violation::InvalidStream),
        (&[stream(0, window, b"x")], Violation::FlowControl),
        (&[stream(0, crate::frame::MAX_INT, b"x")], Violation::FlowControl),
        (&[stream(0, 0, b"x"), stream(0, window, b"x")], Violation::FlowControl),
        (&[stream(0, 0, &[0x7f, 0, 0, 0])], Violation::MessageTooLarge),
        (&[Frame::Credit { id: StreamId(0), limit: 5 }], Violation::InvalidStream),
    ];
    for (frames, violation) in cases {
        let (mut honest, mut hostile) = pair(config(1), [true, true]);
        strike(&mut honest, &mut hostile, frames);
        assert_eq!(verdict(&mut honest), Some(CloseReason::Violation(violation)), "{frames:?}");
        pass(&mut honest, &mut hostile);
        assert_eq!(verdict(&mut hostile), Some(CloseReason::ViolationReported));
    }
}

#[test]
fn frames_that_do_not_parse_end_the_session() {
    for bytes in [&[0][..], &[1, 99], &[4, 0, 0, 0, 9, 1], &[2, 1, 0, 0, 0, 2]] {
        let (mut honest, mut hostile) = pair(config(1), [true, true]);
        let mut packet = forge(&mut hostile, |out| out.extend_from_slice(bytes));
        honest.receive(NOW, PATH, &mut packet);
        assert_eq!(verdict(&mut honest), Some(CloseReason::Violation(Violation::MalformedFrame)));
    }
}

#[test]
fn data_before_this_end_accepted_ends_the_session() {
    let (mut honest, mut hostile) = pair(config(1), [false, true]);
    strike(&mut honest, &mut hostile, &[stream(0, 0, &[0, 0, 0, 1, 9])]);
    assert_eq!(verdict(&mut honest), Some(CloseReason::Violation(Violation::EarlyData)));
    assert!(honest.read(StreamId(0)).is_none());
}

#[test]
fn data_that_overtakes_the_acceptance_waits_for_it() {
    let (mut honest, mut hostile) = pair(config(1), [true, false]);
    strike(&mut honest, &mut hostile, &[stream(0, 0, &[0, 0, 0, 1, 9])]);
    assert_eq!(honest.poll_event(), None);
    let terms = Terms { max_message: 1, max_streams: 1, stream_window: 1, window: 1 };
    strike(&mut honest, &mut hostile, &[Frame::Accept(terms)]);
    assert_eq!(honest.poll_event(), Some(Event::Established));
    assert_eq!(honest.poll_event(), Some(Event::Readable { stream: StreamId(0) }));
    assert_eq!(honest.read(StreamId(0)), Some(Bytes::from_static(&[9])));
}

#[test]
fn absurd_terms_and_acknowledgements_are_harmless() {
    let (mut honest, mut hostile) = pair(config(1), [true, false]);
    let most = crate::frame::MAX_INT;
    let terms = Terms { max_message: most, max_streams: most, stream_window: most, window: most };
    strike(&mut honest, &mut hostile, &[Frame::Accept(terms)]);
    let stream = honest.open_stream(Priority::BULK).unwrap();
    let message = Bytes::from(vec![0; 1 << 20]);
    while honest.send(stream, message.clone()).is_ok() {}
    let mut out = Vec::new();
    let mut sent = 0;
    while honest.poll_transmit(NOW, &mut out).is_some() {
        sent += out.len();
    }
    assert!(sent < 256 << 10, "slow start is this end's own decision: {sent}");
    let sent = honest.channel.as_ref().unwrap().recovery.next_number();
    let delay = Duration::from_secs(1 << 40);
    strike(&mut honest, &mut hostile, &[Frame::Ack(Ack::new(delay, most, [(0, sent - 1)]))]);
    assert_eq!(honest.poll_event(), Some(Event::Established));
    assert!(honest.next_timeout().is_some());
}

#[test]
fn a_packet_that_does_not_fit_is_as_good_as_lost() {
    let (mut honest, mut hostile) = pair(config(1), [true, true]);
    for n in 0..2000u64 {
        strike(&mut honest, &mut hostile, &[stream(0, 100 + 2 * n, b"x")]);
    }
    let counters = honest.counters();
    assert_eq!(counters.deferred, 2000 - crate::stream::receive::MAX_SEGMENTS as u64);
    assert_eq!(verdict(&mut honest), None);
    // Once what is missing comes, the rest is welcome again.
    strike(&mut honest, &mut hostile, &[stream(0, 0, &[0; 4200])]);
    assert_eq!(honest.counters().deferred, counters.deferred);
}

/// The bound that the front page states, for these settings.
fn bound(config: &Config) -> usize {
    let pieces = crate::stream::receive::MAX_SEGMENTS * 128;
    usize::from(config.max_streams) * (2 * config.stream_window + pieces)
        + 2 * config.max_message
        + (64 << 10)
}

#[test]
fn memory_stays_bounded_whatever_an_authenticated_peer_sends() {
    let mut limits = config(1);
    (limits.max_streams, limits.stream_window, limits.max_message) = (4, 64 << 10, 256 << 10);
    let bound = bound(&limits);
    let patterns: [&dyn Fn(u64) -> (u64, Vec<u8>); 4] = [
        // One byte in two, from below and from above: as scattered as can be.
        &|n| (8 + 2 * n, vec![0; 1]),
        &|n| ((64 << 10) - 1 - 2 * n.min(20_000), vec![0; 1]),
        // Empty messages that nobody reads.
        &|n| (n * 4, vec![0; 4]),
        // The largest message there may be, never finished.
        &|n| (n * 1000, if n == 0 { [&[0, 4, 0, 0][..], &[0; 996]].concat() } else { vec![0; 1000] }),
    ];
    for pattern in patterns {
        let (mut honest, mut hostile) = pair(limits.clone(), [true, true]);
        let mut highest = 0;
        for n in 0..60_000u64 {
            let (offset, data) = pattern(n / 4);
            let id = n % 4 * 2;
            let room = honest.streams.check(StreamId(id), offset, data.len());
            if room.is_ok() {
                strike(&mut honest, &mut hostile, &[stream(id, offset, &data), Frame::Ping]);
            }
            if n % 64 == 0 {
                // It asks for answers and never acknowledges one.
                let mut out = Vec::new();
                while honest.poll_transmit(NOW, &mut out).is_some() {}
                highest = highest.max(honest.streams.footprint());
            }
        }
        assert_eq!(verdict(&mut honest), None);
        assert!(highest > 8 << 10 && highest <= bound, "{highest} of {bound}");
        assert!(honest.events.len() <= 4 && honest.outbox.is_empty());
    }
}

#[test]
fn memory_stays_bounded_under_anything_a_relay_sends() {
    let (mut honest, mut hostile) = pair(config(1), [true, true]);
    strike(&mut honest, &mut hostile, &[stream(0, 0, &[0, 0, 0, 1, 9])]);
    let before = honest.streams.footprint();
    let mut rng = AwsLc;
    for n in 0..20_000u64 {
        let mut noise = vec![0; 60];
        crate::Rng::fill(&mut rng, &mut noise);
        (noise[0], noise[1]) = (1, u8::try_from(n % 5).unwrap());
        noise[2..10].copy_from_slice(&honest.id.0.to_be_bytes());
        honest.receive(NOW, PathId(n), &mut noise);
    }
    assert_eq!(honest.streams.footprint(), before);
    assert_eq!((honest.outbox.len(), honest.path()), (0, Some(PATH)));
    assert_eq!(honest.poll_event(), Some(Event::Readable { stream: StreamId(0) }));
    assert_eq!(honest.poll_event(), None);
}

#[test]
fn a_farewell_that_was_not_heard_is_repeated_but_never_answered_with_another() {
    let (mut honest, mut hostile) = pair(config(1), [true, true]);
    honest.fail(NOW, Failure::Abandoned);
    hostile.fail(NOW, Failure::Abandoned);
    let mut out = Vec::new();
    assert!(honest.poll_transmit(NOW, &mut out).is_some(), "lost");
    assert!(honest.poll_transmit(NOW, &mut out).is_none());
    let mut rounds = 0;
    while pass(&mut hostile, &mut honest) | pass(&mut honest, &mut hostile) {
        rounds += 1;
        assert!(rounds < 5, "two farewells that answer each other");
    }
    for session in [&mut honest, &mut hostile] {
        session.handle_timeout(NOW + Duration::from_secs(20));
        assert!(session.is_finished());
    }
}

#[test]
fn a_late_resume_is_ignored() {
    let (mut honest, mut hostile) = pair(config(1), [true, true]);
    let mut late = forge(&mut hostile, |out| Frame::Resume.encode(out));
    let id = honest.open_stream(Priority::NORMAL).unwrap();
    strike(&mut honest, &mut hostile, &[Frame::Ping]);
    honest.send(id, Bytes::from_static(b"x")).unwrap();
    let mut out = Vec::new();
    while honest.poll_transmit(NOW, &mut out).is_some() {}
    honest.receive(NOW, PathId(9), &mut late);
    assert_eq!(honest.path(), Some(PATH));
    honest.poll_transmit(NOW, &mut out);
    assert_eq!(honest.counters().bytes_retransmitted, 0);
}

#[test]
fn a_session_that_nobody_proved_itself_to_is_small() {
    let mut datagram = Vec::new();
    let mut first = Session::initiate(config(66), PATH, NOW, Box::new(AwsLc));
    first.poll_transmit(NOW, &mut datagram).unwrap();
    let mut session = Session::accept(config(1), &datagram, PATH, NOW, Box::new(AwsLc)).unwrap();
    for _ in 0..100 {
        let mut datagram = Vec::new();
        Session::initiate(config(66), PATH, NOW, Box::new(AwsLc)).poll_transmit(NOW, &mut datagram).unwrap();
        session.receive(NOW, PATH, &mut datagram);
    }
    let posted: usize = session.outbox.iter().map(|(_, datagram)| datagram.capacity()).sum();
    let opening = session.opening.as_ref().unwrap().footprint();
    let total = size_of::<Session>() + posted + opening;
    assert!(opening > 1000 && total <= 8 << 10, "{total}: {} {posted} {opening}", size_of::<Session>());
}

#[test]
fn packets_that_are_never_acknowledged_are_bounded() {
    let mut limits = config(1);
    limits.send_buffer = 64 << 20;
    let (mut honest, mut hostile) = pair(limits, [true, false]);
    let most = crate::frame::MAX_INT;
    let terms = Terms { max_message: most, max_streams: 1, stream_window: most, window: most };
    strike(&mut honest, &mut hostile, &[Frame::Accept(terms)]);
    let stream = honest.open_stream(Priority::NORMAL).unwrap();
    let mut out = Vec::new();
    // The window is opened wide by good behaviour, then nothing is acknowledged any more.
    for _ in 0..12 {
        while honest.poll_transmit(NOW, &mut out).is_some() {}
        while honest.send(stream, Bytes::from(vec![0; 1 << 20])).is_ok() {}
        while honest.poll_transmit(NOW, &mut out).is_some() {}
        let sent = honest.channel.as_ref().unwrap().recovery.next_number();
        strike(&mut honest, &mut hostile, &[Frame::Ack(Ack::new(Duration::ZERO, most, [(0, sent - 1)]))]);
    }
    assert!(honest.counters().congestion_window >= 32 << 20);
    for _ in 0..100_000 {
        let _ = honest.send(stream, Bytes::from_static(&[0; 200]));
        while honest.poll_transmit(NOW, &mut out).is_some() {}
    }
    let footprint = honest.channel.as_ref().unwrap().recovery.footprint();
    assert!(footprint > 1 << 20 && footprint <= 6 << 20, "{footprint}");
}

/// Frames near every edge, some of them nonsense.
fn frame_bytes() -> impl Strategy<Value = Vec<u8>> {
    let small = || prop_oneof![0u64..6, Just(16 << 10), Just((16 << 10) + 1), Just(crate::frame::MAX_INT)];
    let encoded = |frame: Frame<'_>| {
        let mut out = Vec::new();
        frame.encode(&mut out);
        out
    };
    let data =
        prop_oneof![proptest::collection::vec(0u8..3, 0..20), (0usize..16_000).prop_map(|len| vec![0; len])];
    prop_oneof![
        (small(), small(), data).prop_map(move |(id, offset, data)| encoded(stream(id, offset, &data))),
        (0u64..12, 0u64..12, small()).prop_map(move |(low, len, window)| {
            encoded(Frame::Ack(Ack::new(Duration::from_millis(low), window, [(low, low + len)])))
        }),
        (small(), small()).prop_map(move |(id, limit)| encoded(Frame::Credit { id: StreamId(id), limit })),
        (small(), small(), small(), small()).prop_map(
            move |(max_message, max_streams, stream_window, window)| {
                encoded(Frame::Accept(Terms { max_message, max_streams, stream_window, window }))
            }
        ),
        Just(vec![1]),
        Just(vec![6]),
        (0u8..5).prop_map(|code| vec![7, code]),
        proptest::collection::vec(any::<u8>(), 1..30),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_an_authenticated_peer_sends_nothing_breaks(
        packets in proptest::collection::vec((proptest::collection::vec(frame_bytes(), 1..4), 0u64..700), 1..40),
        accept: bool,
    ) {
        let mut limits = config(1);
        (limits.max_streams, limits.stream_window, limits.max_message) = (3, 16 << 10, 40 << 10);
        let (mut honest, mut hostile) = pair(limits.clone(), [accept, false]);
        let mut now = NOW;
        let mut out = Vec::new();
        for (frames, wait) in packets {
            let mut packet = forge(&mut hostile, |out| frames.iter().for_each(|frame| out.extend(frame)));
            if packet.len() > MAX_PAYLOAD {
                continue;
            }
            honest.receive(now, PathId(1 + wait % 2), &mut packet);
            if let Ok(stream) = honest.open_stream(Priority::BULK) {
                let _ = honest.send(stream, Bytes::from(vec![0; 20_000]));
            }
            let mut events = 0;
            while let Some(event) = honest.poll_event() {
                events += 1;
                if let Event::Readable { stream } = event {
                    while honest.read(stream).is_some() {}
                }
            }
            prop_assert!(events < 100);
            let mut datagrams = 0;
            while honest.poll_transmit(now, &mut out).is_some() {
                datagrams += 1;
                prop_assert!(out.len() <= MAX_PAYLOAD);
            }
            prop_assert!(datagrams < 200, "{} datagrams for one packet", datagrams);
            now += Duration::from_millis(wait);
            if honest.next_timeout().is_some_and(|at| at <= now) {
                honest.handle_timeout(now);
            }
            prop_assert!(honest.streams.footprint() <= bound(&limits));
        }
    }
}

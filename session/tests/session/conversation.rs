//! What an application and a driver may rely on once two peers have met.

use culvert_session::{CloseReason, Event, Hint, MessageNumber, OpenError, Priority, SendError};
use culvert_wire::Class;

use crate::pair::{MS, PATH, Pair, SECOND, bytes, config};

#[test]
fn nothing_flows_before_both_applications_accept() {
    let mut pair = Pair::begun(&config(1), &config(2));
    let drain = |pair: &mut Pair| {
        for _ in 0..5 {
            for end in 0..2 {
                for packet in pair.drain(end) {
                    pair.deliver(&packet);
                }
            }
        }
    };
    drain(&mut pair);
    for end in 0..2 {
        assert!(matches!(pair.ends[end].poll_event(), Some(Event::Authenticated { .. })));
        assert_eq!(pair.ends[end].poll_event(), None);
        assert_eq!(pair.ends[end].open_stream(Priority::NORMAL), Err(OpenError::NotOpen));
    }
    pair.ends[0].authorize(pair.now, true);
    drain(&mut pair);
    for end in 0..2 {
        assert_eq!(pair.ends[end].poll_event(), None, "one side is not enough");
    }
    pair.ends[1].authorize(pair.now, true);
    drain(&mut pair);
    for end in 0..2 {
        assert_eq!(pair.ends[end].poll_event(), Some(Event::Established));
    }
}

#[test]
fn a_rejected_peer_is_told() {
    let mut pair = Pair::begun(&config(1), &config(2));
    pair.accepts[1] = false;
    pair.advance(SECOND);
    let reason = |end| match pair.closed(end) {
        Some(Event::Closed { reason, .. }) => *reason,
        _ => panic!("end {end} is not closed"),
    };
    assert_eq!((reason(0), reason(1)), (CloseReason::RejectedByPeer, CloseReason::Rejected));
    pair.advance(5 * SECOND);
    assert!(pair.ends.iter().all(culvert_session::Session::is_finished));
}

#[test]
fn messages_of_every_size_arrive_whole_both_ways() {
    let mut small = config(2);
    small.stream_window = 16 << 10;
    let mut pair = Pair::established(&config(1), &small);
    let stream = pair.stream(Priority::NORMAL);
    let sizes = [0, 1, 4, 16_000, 16_384, 100_000, 1 << 20, 5_000_000, 0, 16 << 20];
    let mut numbers = Vec::new();
    for from in [0, 1] {
        let mut received = Vec::new();
        for size in sizes {
            let number = pair.ends[from].send(stream, bytes(size)).unwrap();
            numbers.push(number.0);
            for _ in 0..100 {
                pair.advance(20 * MS);
                received.extend(pair.read_all(1 - from, stream));
                if pair.ends[from].acked(stream) == Some(number) {
                    break;
                }
            }
        }
        assert_eq!(received.iter().map(Vec::len).collect::<Vec<_>>(), sizes);
        assert!(received.iter().zip(sizes).all(|(message, size)| bytes(size) == message));
    }
    assert_eq!(numbers, (0..10).chain(0..10).collect::<Vec<_>>(), "each direction counts for itself");
    let limit = 16 << 20;
    assert_eq!(pair.ends[0].send(stream, bytes(limit + 1)), Err(SendError::TooLarge { limit }));
}

#[test]
fn the_smaller_end_decides_how_large_a_message_may_be() {
    let mut small = config(2);
    small.max_message = 1000;
    let mut pair = Pair::established(&config(1), &small);
    let stream = pair.stream(Priority::NORMAL);
    assert_eq!(pair.ends[0].send(stream, bytes(1001)), Err(SendError::TooLarge { limit: 1000 }));
    assert!(pair.ends[0].send(stream, bytes(1000)).is_ok());
}

#[test]
fn the_peer_limits_how_many_streams_there_are() {
    let mut few = config(2);
    few.max_streams = 2;
    let mut pair = Pair::established(&config(1), &few);
    pair.stream(Priority::NORMAL);
    pair.stream(Priority::BULK);
    assert_eq!(pair.ends[0].open_stream(Priority::NORMAL), Err(OpenError::TooMany { limit: 2 }));
    assert!(pair.ends[1].open_stream(Priority::NORMAL).is_ok());
}

#[test]
fn a_stream_that_is_not_read_blocks_its_sender_and_nobody_else() {
    let mut pair = Pair::default();
    let (idle, busy) = (pair.stream(Priority::URGENT), pair.stream(Priority::BULK));
    let mut sent = 0;
    loop {
        match pair.ends[0].send(idle, bytes(50_000)) {
            Ok(_) => sent += 1,
            Err(error) => {
                assert_eq!(error, SendError::Blocked);
                pair.advance(SECOND);
                if !pair.has(0, |event| *event == Event::Writable { stream: idle }) {
                    break;
                }
                pair.events[0].clear();
            }
        }
    }
    assert!((40..=44).contains(&sent), "the window and the send buffer: {sent}");
    for _ in 0..100 {
        pair.ends[0].send(busy, bytes(50_000)).unwrap();
        pair.advance(100 * MS);
        assert_eq!(pair.read_all(1, busy).len(), 1);
    }
    let mut read = 0;
    while read < sent {
        let messages = pair.read_all(1, idle).len();
        assert!(messages > 0);
        read += messages;
        pair.advance(SECOND);
    }
    assert!(pair.has(0, |event| *event == Event::Writable { stream: idle }));
}

#[test]
fn several_messages_larger_than_the_window_take_turns() {
    let mut receiver = config(2);
    receiver.stream_window = 16 << 10;
    receiver.max_message = 100 << 10;
    let mut pair = Pair::established(&config(1), &receiver);
    let streams: Vec<_> = (0..8).map(|_| pair.stream(Priority::NORMAL)).collect();
    for &stream in &streams {
        pair.ends[0].send(stream, bytes(100 << 10)).unwrap();
    }
    let mut read = 0;
    for _ in 0..50 {
        pair.advance(SECOND);
        let now: usize = streams.iter().map(|&stream| pair.read_all(1, stream).len()).sum();
        assert!(now <= 1, "the allowance is for one");
        read += now;
    }
    assert_eq!(read, streams.len());
}

#[test]
fn an_urgent_message_passes_a_file() {
    let mut pair = Pair::default();
    let (file, document) = (pair.stream(Priority::BULK), pair.stream(Priority::NORMAL));
    pair.ends[0].send(file, bytes(8 << 20)).unwrap();
    // The window is full of the file when the document comes.
    let first = pair.drain(0);
    assert!(first.len() > 4 && first.iter().all(|packet| packet.transmit.class == Class::Bulk));
    pair.ends[0].send(document, bytes(1000)).unwrap();
    let next = pair.drain(0);
    assert_eq!(next.len(), 1, "not even the window holds it back");
    assert_eq!(next[0].transmit.class, Class::Normal);
    for packet in first.iter().chain(&next) {
        pair.deliver(packet);
    }
    assert_eq!(pair.read_all(1, document).len(), 1);
    for packet in pair.drain(1) {
        assert_eq!(packet.transmit.class, Class::Control, "acknowledgements do not wait behind files");
        pair.deliver(&packet);
    }
}

#[test]
fn no_more_is_under_way_than_the_receiver_grants() {
    let mut receiver = config(2);
    receiver.receive_window = 40_000;
    let mut pair = Pair::established(&config(1), &receiver);
    let stream = pair.stream(Priority::NORMAL);
    pair.ends[0].send(stream, bytes(900_000)).unwrap();
    let sent = |pair: &mut Pair| {
        let packets = pair.drain(0);
        let size = packets.iter().map(|packet| packet.bytes.len()).sum::<usize>();
        for packet in packets {
            pair.deliver(&packet);
        }
        size
    };
    let size = sent(&mut pair);
    assert!((30_000..=40_000).contains(&size), "{size}");
    pair.ends[1].set_receive_window(0);
    for packet in pair.drain(1) {
        pair.deliver(&packet);
    }
    let size = sent(&mut pair);
    assert!((16_000..=16_384).contains(&size), "one datagram always goes: {size}");
    pair.ends[1].set_receive_window(1 << 20);
    for packet in pair.drain(1) {
        pair.deliver(&packet);
    }
    assert!(sent(&mut pair) > 60_000);
}

#[test]
fn a_long_path_is_filled() {
    let mut receiver = config(2);
    receiver.receive_window = 1 << 20;
    let mut pair = Pair::established(&config(1), &receiver);
    let stream = pair.stream(Priority::BULK);
    let total = 16 << 20;
    pair.ends[0].send(stream, bytes(total)).unwrap();
    // 50 ms each way, order kept.
    let mut under_way = std::collections::VecDeque::new();
    let start = pair.now;
    while pair.read_all(1, stream).is_empty() {
        pair.now += MS;
        for end in 0..2 {
            if pair.ends[end].next_timeout().is_some_and(|at| at <= pair.now) {
                pair.ends[end].handle_timeout(pair.now);
            }
            let at = pair.now + 50 * MS;
            under_way.extend(pair.drain(end).into_iter().map(|packet| (at, packet)));
        }
        while under_way.front().is_some_and(|(at, _)| *at <= pair.now) {
            let (_, packet) = under_way.pop_front().unwrap();
            pair.deliver(&packet);
        }
        assert!(pair.now < start + 10 * SECOND, "too slow");
    }
    // 16 MiB through a window of 1 MiB takes 16 round trips; slow start adds a few.
    let counters = pair.ends[0].counters();
    assert!(pair.now - start < 2500 * MS, "{:?}", pair.now - start);
    assert_eq!((counters.bytes_retransmitted, counters.packets_lost), (0, 0));
    // Smoothed, from the first instant that took no time at all.
    assert!(counters.rtt >= 80 * MS && counters.rtt < 125 * MS, "{:?}", counters.rtt);
}

#[test]
fn copies_of_packets_have_no_effect() {
    let mut pair = Pair::default();
    let stream = pair.stream(Priority::NORMAL);
    pair.ends[0].send(stream, bytes(10)).unwrap();
    let packets = pair.drain(0);
    for _ in 0..3 {
        for packet in &packets {
            pair.deliver(packet);
        }
    }
    assert_eq!(pair.read_all(1, stream).len(), 1);
    let counters = pair.ends[1].counters();
    assert_eq!(counters.replayed, 2 * packets.len() as u64);
    for index in 0..packets[0].bytes.len() {
        let mut tampered = packets[0].clone();
        tampered.bytes[index] ^= 1;
        pair.deliver(&tampered);
    }
    let after = pair.ends[1].counters();
    assert_eq!(after.packets_received, counters.packets_received);
    assert_eq!(after.rejected + after.replayed - counters.replayed, packets[0].bytes.len() as u64);
}

#[test]
fn keys_are_renewed_in_both_directions_while_messages_flow_in_one() {
    let often = [1, 2].map(|seed| {
        let mut config = config(seed);
        config.rekey.packets = 3;
        config
    });
    let mut pair = Pair::established(&often[0], &often[1]);
    let stream = pair.stream(Priority::NORMAL);
    let mut epochs = [0u32; 2];
    for n in 0..1000 {
        pair.ends[0].send(stream, bytes(n)).unwrap();
        pair.advance_if(30 * MS, |packet| {
            let seen = &mut epochs[packet.from];
            *seen += u32::from(packet.bytes[10].wrapping_sub(seen.to_le_bytes()[0]));
            true
        });
        assert_eq!(pair.read_all(1, stream), [bytes(n).to_vec()]);
    }
    assert!(epochs.iter().all(|&count| count > 200), "{epochs:?}");
    assert_eq!(pair.ends[0].counters().rekeys, pair.ends[1].counters().rekeys);
    assert_eq!(pair.ends[0].counters().rejected + pair.ends[1].counters().rejected, 0);
}

#[test]
fn acknowledgements_are_told_by_message() {
    let mut pair = Pair::default();
    let stream = pair.stream(Priority::NORMAL);
    assert_eq!(pair.ends[0].acked(stream), None);
    for n in 0..5 {
        assert_eq!(pair.ends[0].send(stream, bytes(30_000)), Ok(MessageNumber(n)));
    }
    pair.advance(SECOND);
    let told = pair.events[0].iter().filter_map(|event| match event {
        Event::Acked { up_to, .. } => Some(up_to.0),
        _ => None,
    });
    let told: Vec<_> = told.collect();
    assert!(told.is_sorted() && told.last() == Some(&4), "{told:?}");
    assert_eq!(pair.ends[0].acked(stream), Some(MessageNumber(4)));
}

#[test]
fn a_session_may_move_between_threads() {
    fn is_send<T: Send>(_: &T) {}
    is_send(&Pair::default().ends[0]);
}

#[test]
fn a_queue_smaller_than_the_grant_is_kept_busy_without_much_waste() {
    const RATE: usize = 10_000; // bytes a millisecond
    const QUEUE: usize = 256 << 10;
    let mut receiver = config(2);
    receiver.receive_window = 4 << 20;
    for verdicts in [true, false] {
        let mut pair = Pair::established(&config(1), &receiver);
        let stream = pair.stream(Priority::BULK);
        let total = 16 << 20;
        pair.ends[0].send(stream, bytes(total)).unwrap();
        let (mut queue, mut queued) = (std::collections::VecDeque::new(), 0);
        let mut back = std::collections::VecDeque::new();
        let (start, mut budget) = (pair.now, 0);
        while pair.read_all(1, stream).is_empty() {
            pair.now += MS;
            for end in 0..2 {
                if pair.ends[end].next_timeout().is_some_and(|at| at <= pair.now) {
                    pair.ends[end].handle_timeout(pair.now);
                }
            }
            for packet in pair.drain(0) {
                if queued + packet.bytes.len() <= QUEUE {
                    queued += packet.bytes.len();
                    queue.push_back(packet);
                } else if verdicts {
                    pair.ends[0].hint(PATH, Hint::Congested);
                }
            }
            budget = if queue.is_empty() { 0 } else { budget + RATE };
            while queue.front().is_some_and(|packet: &crate::pair::Packet| packet.bytes.len() <= budget) {
                let packet = queue.pop_front().unwrap();
                budget -= packet.bytes.len();
                queued -= packet.bytes.len();
                pair.deliver(&packet);
            }
            let at = pair.now + 20 * MS;
            back.extend(pair.drain(1).into_iter().map(|packet| (at, packet)));
            while back.front().is_some_and(|(at, _)| *at <= pair.now) {
                let (_, packet) = back.pop_front().unwrap();
                pair.deliver(&packet);
            }
            assert!(pair.now < start + 20 * SECOND, "stuck");
        }
        let ideal = total / RATE;
        let taken = usize::try_from((pair.now - start).as_millis()).unwrap();
        let again = usize::try_from(pair.ends[0].counters().bytes_retransmitted).unwrap();
        assert!(taken < ideal * 3 / 2, "{taken} ms instead of {ideal}, verdicts: {verdicts}");
        assert!(again < total / 10, "{again} bytes again, verdicts: {verdicts}");
    }
}

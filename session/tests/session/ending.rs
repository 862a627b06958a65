//! How sessions end: silence, farewell and failure, and what is said about undelivered messages.

use std::time::Duration;

use culvert_session::{CloseReason, Event, Failure, MessageNumber, Priority, SendError, Unacknowledged};

use crate::pair::{Pair, SECOND, bytes};

#[test]
fn silence_is_probed_with_pings_and_ends_with_a_list() {
    let mut pair = Pair::default();
    let stream = pair.stream(Priority::NORMAL);
    pair.ends[0].send(stream, bytes(10)).unwrap();
    pair.advance(SECOND);
    let mut pings = [0, 0];
    pair.advance_if(100 * SECOND, |packet| {
        pings[packet.from] += 1;
        true
    });
    assert!(pings[0] + pings[1] >= 12, "{pings:?}");
    assert!(pings[0] + pings[1] <= 60, "{pings:?}");
    for _ in 0..3 {
        pair.ends[0].send(stream, bytes(10)).unwrap();
    }
    let mut attempts = 0;
    pair.advance_if(301 * SECOND, |_| {
        attempts += 1;
        false
    });
    assert!(attempts < 400, "{attempts}");
    let run = Unacknowledged { stream, first: MessageNumber(1), last: MessageNumber(3) };
    let expected = Event::Closed { reason: CloseReason::PeerTimeout, unacknowledged: vec![run] };
    assert_eq!(pair.closed(0), Some(&expected));
    assert!(pair.closed(1).is_some());
}

#[test]
fn a_graceful_close_delivers_first() {
    let mut pair = Pair::default();
    let stream = pair.stream(Priority::BULK);
    pair.ends[0].send(stream, bytes(900_000)).unwrap();
    pair.ends[0].close(pair.now);
    assert_eq!(pair.ends[0].send(stream, bytes(1)), Err(SendError::NotOpen));
    let mut lost = 0;
    pair.advance_if(8 * SECOND, |packet| {
        lost += usize::from(packet.bytes.len() < 100);
        // Two of the last packets, among them the farewell, are lost.
        packet.bytes.len() >= 100 || lost > 2
    });
    let closed = |reason| Event::Closed { reason, unacknowledged: vec![] };
    assert_eq!(pair.closed(0), Some(&closed(CloseReason::Done)));
    assert_eq!(pair.closed(1), Some(&closed(CloseReason::ByPeer)));
    assert_eq!(pair.read_all(1, stream), [bytes(900_000)], "readable after the end");
    assert!(pair.ends.iter().all(culvert_session::Session::is_finished));
}

/// The acknowledgement of what the other end sent was lost on the way.
#[test]
fn a_farewell_says_once_more_what_arrived() {
    for failure in [false, true] {
        let mut pair = Pair::default();
        let stream = pair.stream(Priority::NORMAL);
        pair.ends[0].send(stream, bytes(10)).unwrap();
        let sent = pair.drain(0);
        sent.iter().for_each(|packet| pair.deliver(packet));
        pair.poll();
        assert_eq!(pair.read_all(1, stream).len(), 1);
        pair.now += SECOND;
        pair.ends[1].handle_timeout(pair.now);
        assert!(!pair.drain(1).is_empty(), "the acknowledgement, which is lost");
        if failure {
            pair.ends[1].fail(pair.now, Failure::Abandoned);
        } else {
            pair.ends[1].close(pair.now);
        }
        pair.exchange();
        let expected = Event::Closed { reason: CloseReason::ByPeer, unacknowledged: vec![] };
        assert_eq!(pair.closed(0), Some(&expected));
    }
}

#[test]
fn a_close_that_nobody_answers_has_a_deadline_and_a_list() {
    let mut pair = Pair::default();
    let stream = pair.stream(Priority::NORMAL);
    pair.ends[0].send(stream, bytes(10)).unwrap();
    pair.ends[0].close(pair.now);
    let start = pair.now;
    pair.advance_if(11 * SECOND, |_| false);
    let run = Unacknowledged { stream, first: MessageNumber(0), last: MessageNumber(0) };
    let expected = Event::Closed { reason: CloseReason::CloseTimeout, unacknowledged: vec![run] };
    assert_eq!(pair.closed(0), Some(&expected));
    assert_eq!(pair.now - start, 11 * SECOND);
}

#[test]
fn a_failed_session_tells_both_sides() {
    let mut pair = Pair::default();
    let stream = pair.stream(Priority::NORMAL);
    pair.ends[0].send(stream, bytes(10)).unwrap();
    pair.drain(0);
    pair.ends[0].fail(pair.now, Failure::PeerRestarted);
    pair.advance(SECOND);
    let Some(Event::Closed { reason, unacknowledged }) = pair.closed(0) else { panic!("not closed") };
    assert_eq!((*reason, unacknowledged.len()), (CloseReason::Failed(Failure::PeerRestarted), 1));
    assert!(matches!(pair.closed(1), Some(Event::Closed { reason: CloseReason::ByPeer, .. })));
    pair.advance(Duration::from_secs(5));
    assert!(pair.ends.iter().all(culvert_session::Session::is_finished));
    assert_eq!(pair.events[0].iter().filter(|event| matches!(event, Event::Closed { .. })).count(), 1);
}

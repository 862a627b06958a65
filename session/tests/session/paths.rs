//! A session outlives its paths, and hears what carriers say without trusting it.

use culvert_session::{Event, Hint, PathId, Priority};
use culvert_wire::Class;

use crate::pair::{MS, PATH, Pair, SECOND, bytes};

const NEW_PATH: PathId = PathId(2);

#[test]
fn everything_unacknowledged_goes_again_on_a_new_path_without_waiting() {
    let mut pair = Pair::default();
    let stream = pair.stream(Priority::NORMAL);
    let mut late = Vec::new();
    pair.ends[0].send(stream, bytes(40_000)).unwrap();
    late.extend(pair.drain(0));
    pair.ends[1].send(stream, bytes(10)).unwrap_err();
    pair.ends[0].set_path(pair.now, NEW_PATH);
    let packets = pair.drain(0);
    assert!(packets.iter().all(|packet| packet.transmit.path == NEW_PATH));
    for packet in &packets {
        pair.deliver(packet);
    }
    pair.poll();
    assert_eq!(pair.read_all(1, stream), [bytes(40_000)]);
    assert_eq!(pair.ends[1].path(), Some(NEW_PATH));
    assert!(pair.has(1, |event| *event == Event::PathChanged { path: NEW_PATH }));
    // What the dead node still held does not steal the route back.
    for packet in &late {
        pair.deliver(packet);
    }
    assert_eq!(pair.ends[1].path(), Some(NEW_PATH));
    // And both ends agree from now on.
    pair.ends[1].send(stream, bytes(20)).unwrap();
    let answer = pair.drain(1);
    assert!(answer.iter().all(|packet| packet.transmit.path == NEW_PATH));
    for packet in &answer {
        pair.deliver(packet);
    }
    assert_eq!(pair.read_all(0, stream), [bytes(20)]);
}

#[test]
fn a_resume_makes_the_other_end_repeat_what_it_lost() {
    let mut pair = Pair::default();
    let stream = pair.stream(Priority::NORMAL);
    pair.ends[0].send(stream, bytes(1)).unwrap();
    pair.exchange();
    pair.ends[1].send(stream, bytes(30_000)).unwrap();
    pair.drain(1);
    pair.ends[0].lose_path();
    pair.advance(50 * MS);
    pair.ends[0].set_path(pair.now, NEW_PATH);
    let before = pair.now;
    pair.exchange();
    assert_eq!(pair.now, before, "no timer was needed");
    assert_eq!(pair.read_all(0, stream), [bytes(30_000)]);
}

#[test]
fn without_a_path_nothing_is_sent_and_nothing_is_forgotten() {
    let mut pair = Pair::default();
    let stream = pair.stream(Priority::NORMAL);
    pair.ends[0].lose_path();
    pair.ends[0].send(stream, bytes(10)).unwrap();
    pair.advance(100 * SECOND);
    assert_eq!(pair.ends[0].counters().bytes_retransmitted, 0);
    assert!(pair.drain(0).is_empty());
    pair.ends[0].set_path(pair.now, NEW_PATH);
    pair.exchange();
    assert_eq!(pair.read_all(1, stream).len(), 1);
}

/// Two ways between the same two peers work, and each peer was moved to another one at the same moment.
#[test]
fn two_ends_that_chose_different_paths_at_once_agree_on_one() {
    let mut pair = Pair::default();
    let stream = pair.stream(Priority::NORMAL);
    pair.ends[0].send(stream, bytes(1)).unwrap();
    pair.exchange();
    let back = pair.ends[1].open_stream(Priority::NORMAL).unwrap();
    pair.ends[0].set_path(pair.now, NEW_PATH);
    pair.ends[1].set_path(pair.now, PathId(3));
    for _ in 0..1000 {
        pair.ends[0].send(stream, bytes(10)).unwrap();
        pair.ends[1].send(back, bytes(10)).unwrap();
        let mut packets = pair.drain(0);
        packets.extend(pair.drain(1));
        pair.now += 5 * MS;
        for packet in &packets {
            pair.deliver(packet);
        }
        for end in &mut pair.ends {
            if end.next_timeout().is_some_and(|at| at <= pair.now) {
                end.handle_timeout(pair.now);
            }
        }
        pair.poll();
        pair.read_all(0, back);
        pair.read_all(1, stream);
    }
    assert_eq!(pair.ends[0].path(), pair.ends[1].path());
    let changes = pair.ends.each_ref().map(|end| end.counters().path_changes);
    assert!(changes.iter().all(|changes| *changes <= 4), "{changes:?}");
}

#[test]
fn what_waits_for_a_sign_of_the_peer_is_told_until_there_is_one() {
    let mut pair = Pair::default();
    let stream = pair.stream(Priority::NORMAL);
    pair.ends[0].send(stream, bytes(1)).unwrap();
    pair.exchange();
    pair.advance(SECOND);
    assert_eq!(pair.ends[0].unanswered(), None);
    let asked = pair.now;
    pair.ends[0].ask();
    let packets = pair.drain(0);
    assert_eq!((packets.len(), pair.ends[0].unanswered()), (1, Some(asked)));
    pair.now += SECOND;
    pair.ends[0].send(stream, bytes(1)).unwrap();
    pair.drain(0);
    assert_eq!(pair.ends[0].unanswered(), Some(asked), "since the first of them");
    pair.deliver(&packets[0]);
    pair.exchange();
    assert_eq!(pair.ends[0].unanswered(), None);
    assert_eq!(pair.ends[0].heard(), Some((PATH, pair.now)));
}

#[test]
fn a_hint_of_loss_brings_one_probe_and_its_answer_what_was_lost() {
    let mut pair = Pair::default();
    let stream = pair.stream(Priority::NORMAL);
    pair.ends[0].send(stream, bytes(10)).unwrap();
    pair.drain(0);
    for _ in 0..50 {
        pair.ends[0].hint(NEW_PATH, Hint::Lost);
    }
    assert!(pair.drain(0).is_empty(), "another path's hints are not heard");
    let mut probes = 0;
    for _ in 0..50 {
        pair.ends[0].hint(PATH, Hint::Lost);
        let packets = pair.drain(0);
        probes += packets.len();
        if let Some(probe) = packets.first() {
            assert_eq!(probe.transmit.class, Class::Normal, "in the class of what is missing");
            pair.deliver(probe);
        }
    }
    assert_eq!(probes, 1, "a carrier that complains about every packet starts no storm");
    pair.exchange();
    assert_eq!(pair.read_all(1, stream).len(), 1);
}

#[test]
fn a_full_queue_halves_the_window_and_waits_for_the_timer() {
    let mut pair = Pair::default();
    let stream = pair.stream(Priority::NORMAL);
    let before = pair.ends[0].counters().congestion_window;
    pair.ends[0].send(stream, bytes(100_000)).unwrap();
    let dropped = pair.drain(0);
    for _ in &dropped {
        pair.ends[0].hint(PATH, Hint::Congested);
    }
    assert_eq!(pair.ends[0].counters().congestion_window, before / 2);
    assert!(pair.drain(0).is_empty());
    pair.advance(SECOND);
    assert_eq!(pair.read_all(1, stream).len(), 1);
}

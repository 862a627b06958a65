use super::*;

const MS: Duration = Duration::from_millis(1);
const FULL: usize = 16384;

fn chunk(n: u64) -> Option<Content> {
    let chunk = Chunk { stream: StreamId(0), offset: n, len: 1 };
    Some(Content { chunks: vec![chunk], ..Content::default() })
}

fn offsets(contents: &[Content]) -> Vec<u64> {
    contents.iter().flat_map(|content| &content.chunks).map(|chunk| chunk.offset).collect()
}

fn started(count: u64) -> Recovery {
    let mut recovery = Recovery::new();
    recovery.set_grant(1 << 30);
    for n in 0..count {
        recovery.sent(MS, Class::Normal, 1000, chunk(n));
    }
    recovery
}

fn ack(recovery: &mut Recovery, now: Duration, ranges: &[(u64, u64)]) -> Findings {
    let mut findings = Findings::default();
    assert!(recovery.acknowledged(now, ranges, Duration::ZERO, &mut findings));
    findings
}

#[test]
fn a_packet_is_lost_when_three_later_ones_arrived() {
    let mut recovery = started(5);
    let findings = ack(&mut recovery, 2 * MS, &[(1, 2)]);
    assert_eq!((offsets(&findings.acked), offsets(&findings.lost)), (vec![1, 2], vec![]));
    let findings = ack(&mut recovery, 2 * MS, &[(1, 3)]);
    assert_eq!((offsets(&findings.acked), offsets(&findings.lost)), (vec![3], vec![0]));
    assert_eq!(recovery.in_flight, 1000);
    assert!(ack(&mut recovery, 2 * MS, &[(0, 3)]).acked.is_empty(), "late: it was sent again already");
}

#[test]
fn another_class_may_overtake() {
    let mut recovery = started(1);
    for n in 1..6 {
        recovery.sent(MS, Class::Control, 100, chunk(n));
    }
    let findings = ack(&mut recovery, 2 * MS, &[(1, 5)]);
    assert_eq!(offsets(&findings.lost), [0u64; 0]);
}

#[test]
fn the_answer_to_a_probe_tells_what_was_lost() {
    let mut recovery = started(2);
    recovery.sent(MS, Class::Bulk, 1000, chunk(2));
    let deadline = recovery.probe_deadline().unwrap();
    assert_eq!(deadline, MS + 500 * MS);
    recovery.probe_due(deadline);
    assert_eq!(recovery.probe_wanted(), Some(Class::Normal));
    recovery.sent(deadline, Class::Normal, 50, Some(Content::default()));
    assert_eq!(recovery.probe_wanted(), Some(Class::Bulk));
    recovery.sent(deadline, Class::Bulk, 50, Some(Content::default()));
    assert_eq!(recovery.probe_wanted(), None);
    assert_eq!(recovery.probe_deadline().unwrap(), deadline + 1000 * MS, "doubled");
    let findings = ack(&mut recovery, deadline + MS, &[(3, 3)]);
    assert_eq!(offsets(&findings.lost), [0, 1], "and says nothing about the other class");
    let findings = ack(&mut recovery, deadline + MS, &[(3, 4)]);
    assert_eq!(offsets(&findings.lost), [2]);
    assert_eq!((recovery.in_flight, recovery.probe_deadline()), (0, None));
}

#[test]
fn the_probe_timeout_doubles_to_five_seconds_and_starts_over_with_an_answer() {
    let mut recovery = started(3);
    ack(&mut recovery, 11 * MS, &[(0, 0)]);
    let (mut waits, mut now) = (Vec::new(), MS);
    for _ in 0..7 {
        let deadline = recovery.probe_deadline().unwrap();
        waits.push((deadline - now).as_millis());
        now = deadline;
        recovery.probe_due(now);
        recovery.sent(now, Class::Normal, 50, Some(Content::default()));
    }
    assert_eq!(waits, [200, 400, 800, 1600, 3200, 5000, 5000]);
    recovery.sent(now, Class::Normal, 50, Some(Content::default()));
    recovery.sent(now, Class::Normal, 50, Some(Content::default()));
    let last_but_one = recovery.next_number() - 2;
    ack(&mut recovery, now + 10 * MS, &[(last_but_one, last_but_one)]);
    assert_eq!(recovery.probe_deadline().unwrap(), now + 200 * MS);
}

#[test]
fn hints_bring_one_probe_and_halve_once_per_flight() {
    let mut recovery = started(3);
    recovery.hurry();
    assert!(recovery.probe_wanted().is_some());
    recovery.sent(MS, Class::Normal, 50, Some(Content::default()));
    recovery.hurry();
    assert_eq!(recovery.probe_wanted(), None, "the timer decides about the next one");

    let before = recovery.window();
    recovery.congested();
    recovery.congested();
    assert_eq!(recovery.window(), before / 2);
    ack(&mut recovery, 2 * MS, &[(3, 3)]);
    assert_eq!(recovery.window(), before / 2, "the same flight");
}

#[test]
fn a_new_path_gives_everything_up_and_is_measured_anew() {
    let mut recovery = started(4);
    ack(&mut recovery, 101 * MS, &[(0, 0)]);
    assert_eq!(recovery.rtt(), 100 * MS);
    let mut findings = Findings::default();
    recovery.lose_all(&mut findings);
    assert_eq!(offsets(&findings.lost), [1, 2, 3]);
    assert_eq!((recovery.in_flight, recovery.next_number()), (0, 4));
    recovery.sent(200 * MS, Class::Normal, 1000, chunk(1));
    assert!(ack(&mut recovery, 900 * MS, &[(0, 2)]).acked.is_empty(), "the old path, late");
    assert_eq!(recovery.rtt(), 100 * MS);
    assert_eq!(offsets(&ack(&mut recovery, 205 * MS, &[(0, 4)]).acked), [1]);
    assert_eq!(recovery.rtt(), 5 * MS);
}

#[test]
fn an_acknowledgement_of_the_future_is_refused() {
    let mut recovery = started(2);
    let mut findings = Findings::default();
    assert!(!recovery.acknowledged(MS, &[(0, 2)], MS, &mut findings));
}

#[test]
fn the_window_doubles_per_round_trip_until_a_loss_halves_it() {
    let mut recovery = Recovery::new();
    recovery.set_grant(1 << 30);
    let mut now = MS;
    let mut windows = vec![recovery.window()];
    for round in 0..4 {
        let first = recovery.next_number();
        while recovery.allowance(false, FULL as u64) >= FULL as u64 {
            recovery.sent(now, Class::Bulk, FULL, chunk(0));
        }
        now += 100 * MS;
        let last = recovery.next_number() - 1;
        let from = if round == 3 { first + 1 } else { first };
        ack(&mut recovery, now, &[(from, last)]);
        windows.push(recovery.window());
    }
    let initial = windows[0];
    assert_eq!(windows[1..4], [2 * initial, 4 * initial, 8 * initial]);
    assert!(windows[4] >= 4 * initial && windows[4] <= 8 * initial, "{windows:?}");
}

#[test]
fn the_smaller_of_grant_and_congestion_window_counts_and_one_datagram_always_goes() {
    let mut recovery = Recovery::new();
    assert_eq!(recovery.allowance(true, 16384), 16384, "nothing granted, nothing under way");
    recovery.sent(MS, Class::Bulk, 1000, chunk(0));
    assert_eq!(recovery.allowance(false, 16384), 0);
    recovery.set_grant(41_000);
    assert_eq!(recovery.allowance(false, 16384), 40_000);
    assert_eq!(recovery.allowance(true, 16384), 40_000 - 41_000 / 4);
    recovery.set_grant(1 << 40);
    assert_eq!(recovery.allowance(false, 16384), recovery.window() - 1000);
}

#[test]
fn tracked_packets_are_bounded_whatever_the_window() {
    let mut recovery = started(0);
    for n in 0..u64::MAX {
        if recovery.allowance(false, 100) == 0 {
            break;
        }
        recovery.sent(MS, Class::Normal, 1, chunk(n));
    }
    assert!(recovery.packets.len() <= MAX_TRACKED);
    assert!(recovery.is_full());
    for _ in 0..100_000 {
        recovery.sent(MS, Class::Control, 50, None);
    }
    assert_eq!(recovery.packets.len(), MAX_TRACKED, "what need not arrive is not kept");
}

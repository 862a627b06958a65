use std::task::Waker;

use bytes::Bytes;
use culvert_wire::Kind;

use super::*;
use crate::budget::PIECE;

const A: ConnId = ConnId(1);
const B: ConnId = ConnId(2);

fn outbox(limit: usize) -> Outbox {
    Outbox::new(limit, &Budget::new(usize::MAX))
}

fn take(outbox: &Outbox, max: usize) -> Vec<Bytes> {
    let mut out = Vec::new();
    match outbox.poll_take(&mut out, max, &Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(_)) | Poll::Pending => {
            out.iter().map(|message| Bytes::copy_from_slice(message.frame())).collect()
        }
        Poll::Ready(Err(close)) => panic!("closed as {close:?}"),
    }
}

fn frame(text: &str) -> Message {
    Message::binary(text.as_bytes())
}

#[test]
fn each_sender_and_class_keeps_its_order() {
    let outbox = outbox(1 << 20);
    for text in ["1", "2", "3"] {
        outbox.push(A, Class::Normal, frame(text)).unwrap();
    }
    assert_eq!(take(&outbox, 2), ["1", "2"]);
    assert_eq!(take(&outbox, 2), ["3"]);
    assert_eq!(outbox.bytes(), 0);
}

#[test]
fn urgent_classes_go_first_and_the_last_still_moves() {
    let outbox = outbox(16 << 20);
    for _ in 0..400 {
        outbox.push(A, Class::Bulk, Message::binary(&[0; 4096])).unwrap();
        outbox.push(B, Class::Control, Message::binary(&[0; 4095])).unwrap();
    }
    let first = take(&outbox, 68 << 10);
    assert_eq!(first[0].len(), 4095, "control first");
    assert!(first.iter().any(|frame| frame.len() == 4096), "bulk gets its part");
    assert!(first.iter().filter(|frame| frame.len() == 4095).count() > 12);
}

#[test]
fn a_full_queue_refuses_and_keeps_what_it_has() {
    let outbox = outbox(1000);
    let mut accepted = 0;
    while outbox.push(A, Class::Normal, frame("0123456789")).is_ok() {
        accepted += 1;
    }
    assert_eq!(accepted, (1000 - 1000 / RESERVE) / (10 + PARCEL_OVERHEAD));
    assert_eq!(take(&outbox, usize::MAX).len(), accepted);
}

#[test]
fn many_queues_together_hold_no_more_than_the_nodes_budget() {
    let budget = Budget::new(4 * PIECE);
    let queues: Vec<Outbox> = (0..8).map(|_| Outbox::new(1 << 20, &budget)).collect();
    let taken = queues.iter().filter(|queue| queue.push(A, Class::Normal, frame("x")).is_ok()).count();
    assert_eq!(taken, 4);
    assert_eq!(queues[7].push(A, Class::Normal, frame("x")), Err(Verdict::Full));
    assert_eq!(take(&queues[0], usize::MAX), ["x"]);
    queues[7].push(A, Class::Normal, frame("x")).unwrap();
}

#[test]
fn an_empty_queue_gives_back_what_a_burst_took_and_a_full_one_keeps_what_it_has() {
    let outbox = outbox(1 << 20);
    let room = || {
        let queue = outbox.queue.lock();
        let deques = queue.own.capacity() + queue.classes.iter().map(VecDeque::capacity).sum::<usize>();
        deques + queue.senders.capacity() + queue.verdicts.capacity()
    };
    let burst = || {
        for sender in 0..100 {
            outbox.push(ConnId(sender), Class::Normal, frame("x")).unwrap();
        }
        outbox.push_own(&Frame::Notice(culvert_wire::Notice::Restored));
        let key = VerdictKey { handle: Handle(1), to: B, broadcast: false, verdict: Verdict::Full };
        outbox.report(key, 1);
    };
    burst();
    outbox.give_back_room();
    assert_eq!(take(&outbox, usize::MAX).len(), 102);
    assert!(room() >= 100, "nothing is freed while it may be wanted again at once");
    outbox.give_back_room();
    assert_eq!(room(), 0);
    burst();
    assert_eq!(take(&outbox, usize::MAX).len(), 102);
}

#[test]
fn a_flood_from_one_sender_leaves_room_for_another() {
    let outbox = outbox(10_000);
    outbox.push(B, Class::Normal, frame("first")).unwrap();
    let flood = (0..1000).filter(|_| outbox.push(A, Class::Normal, frame("flood")).is_ok()).count();
    let late = (0..1000).filter(|_| outbox.push(B, Class::Normal, frame("calm!")).is_ok()).count();
    assert!(late >= flood / 2, "flood {flood}, late {late}");
}

#[test]
fn a_sender_that_comes_when_a_flood_has_filled_the_queue_finds_room() {
    let outbox = outbox(10_000);
    while outbox.push(A, Class::Normal, frame("flood")).is_ok() {}
    outbox.push(B, Class::Normal, frame("calm!")).unwrap();
    assert!(outbox.push(A, Class::Normal, frame("flood")).is_err(), "the room was not for the flood");
}

#[test]
fn verdicts_are_merged_and_never_dropped() {
    let outbox = outbox(0);
    let key = VerdictKey { handle: Handle(1), to: B, broadcast: false, verdict: Verdict::Full };
    for _ in 0..1000 {
        outbox.report(key, 1);
    }
    outbox.report(VerdictKey { verdict: Verdict::Gone, ..key }, 2);
    let frames: Vec<Frame> =
        take(&outbox, usize::MAX).into_iter().map(|f| Frame::decode(f).unwrap()).collect();
    assert_eq!(frames.len(), 2);
    assert!(
        frames
            .iter()
            .any(|frame| matches!(frame, Frame::Undeliverable { verdict: Verdict::Full, count: 1000, .. }))
    );
}

#[test]
fn a_departure_never_overtakes_what_the_departed_sent_nor_a_return_the_departure() {
    let outbox = outbox(1 << 20);
    let left = Frame::Gap { from: Some(A), count: 1 };
    let back = Frame::Gap { from: Some(A), count: 2 };
    outbox.push(A, Class::Bulk, frame("sent")).unwrap();
    outbox.push_news(A, &left, true);
    outbox.push_news(A, &back, false);
    outbox.push_news(B, &left, true);
    let order = take(&outbox, usize::MAX);
    assert_eq!(order[0], left.encode().unwrap(), "about B, which sent nothing");
    assert_eq!(order[1], "sent");
    assert_eq!(take(&outbox, usize::MAX), [left.encode().unwrap(), back.encode().unwrap()]);
}

#[test]
fn nothing_comes_before_the_answer_to_a_join() {
    let outbox = outbox(1 << 20);
    outbox.hold();
    outbox.push(A, Class::Control, frame("early")).unwrap();
    outbox.push_own(&Frame::Gap { from: None, count: 0 });
    assert!(take(&outbox, usize::MAX).is_empty());
    let joined = Frame::Notice(culvert_wire::Notice::Restored);
    outbox.release(&joined);
    let order = take(&outbox, usize::MAX);
    assert_eq!((&order[0], order.len()), (&joined.encode().unwrap(), 3));
}

#[test]
fn a_connection_that_lets_notices_pile_up_is_closed_as_slow() {
    let outbox = outbox(1 << 20);
    for _ in 0..OWN_LIMIT / PARCEL_OVERHEAD {
        outbox.push_own(&Frame::Drain { reconnect_in_ms: 0, close_in_ms: 0 });
    }
    assert_eq!(outbox.queue.lock().close, Some(Close::Slow));
}

#[test]
fn closing_keeps_what_peers_sent_for_a_verdict_and_tells_why() {
    let outbox = outbox(1 << 20);
    let header = Header { handle: Handle(3), ..Header::plain(Kind::Deliver) };
    for class in [Class::Normal, Class::Bulk] {
        outbox.push(A, class, Message::of_frame(header, b"")).unwrap();
    }
    outbox.push_own(&Frame::Drain { reconnect_in_ms: 0, close_in_ms: 0 });
    outbox.close(Close::Drained);
    outbox.close(Close::Internal);
    assert_eq!(take(&outbox, usize::MAX).len(), 1, "the relay's own frame");
    let mut out = Vec::new();
    let end = outbox.poll_take(&mut out, 1, &Context::from_waker(Waker::noop()));
    assert_eq!(end, Poll::Ready(Err(Close::Drained)));
    assert_eq!(outbox.push(A, Class::Normal, frame("y")), Err(Verdict::Gone));
    let rest = Rest { sender: A, handle: Handle(3), broadcast: false, count: 2 };
    assert_eq!(outbox.take_rest(), [rest]);
    assert_eq!((outbox.take_rest(), outbox.bytes()), (vec![], 0));
}

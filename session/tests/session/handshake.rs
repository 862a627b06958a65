//! Handshakes with the wrong people, and with a relay that does what it wants.

use culvert_session::{CloseReason, Event, HandshakeFault, PathId, Peek, Priority, Session, peek};
use culvert_wire::TopicId;

use crate::pair::{MS, PATH, Pair, SECOND, accept, config, initiate, with_psk};

fn authenticated(pair: &Pair, end: usize) -> bool {
    pair.has(end, |event| matches!(event, Event::Authenticated { .. }))
}

fn reason(pair: &Pair, end: usize) -> Option<CloseReason> {
    match pair.closed(end) {
        Some(Event::Closed { reason, .. }) => Some(*reason),
        _ => None,
    }
}

#[track_caller]
fn assert_failed(mut pair: Pair, faults: [Option<HandshakeFault>; 2]) {
    pair.advance(21 * SECOND);
    for (end, fault) in faults.into_iter().enumerate() {
        assert!(!authenticated(&pair, end), "end {end}");
        assert_eq!(reason(&pair, end), Some(CloseReason::HandshakeTimeout(fault)), "end {end}");
        assert!(pair.ends[end].is_finished() && pair.ends[end].next_timeout().is_none());
    }
}

#[test]
fn peers_authenticate_each_other_and_talk() {
    for (first, second) in [(config(1), config(2)), (with_psk(config(1), 5), with_psk(config(2), 5))] {
        let mut pair = Pair::established(&first, &second);
        assert_eq!(pair.ends[0].peer(), Some(second.identity.peer_id()));
        assert_eq!(pair.ends[1].peer(), Some(first.identity.peer_id()));
        assert_eq!(pair.ends[0].channel_binding(), pair.ends[1].channel_binding());
        let stream = pair.stream(Priority::NORMAL);
        pair.ends[0].send(stream, "hello".into()).unwrap();
        pair.exchange();
        assert_eq!(pair.read_all(1, stream), [b"hello"]);
    }
}

#[test]
fn another_secret_leads_nowhere() {
    let pair = Pair::begun(&with_psk(config(1), 5), &with_psk(config(2), 6));
    assert_failed(pair, [None, Some(HandshakeFault::Undecryptable)]);
}

#[test]
fn a_secret_on_one_side_only_leads_nowhere() {
    let (open, secret) = (config(1), with_psk(config(2), 6));
    assert!(accept(&secret, &initiation(&open)).is_none());
    assert_failed(Pair::begun(&secret, &open), [Some(HandshakeFault::Undecryptable), None]);
}

#[test]
fn another_topic_leads_nowhere() {
    let mut other = config(2);
    other.topic = TopicId([8; 32]);
    assert_failed(Pair::begun(&config(1), &other), [Some(HandshakeFault::Undecryptable), None]);
}

#[test]
fn a_pinned_identity_must_be_the_one_that_answers() {
    let (mut alice, bob, eve) = (config(1), config(2), config(3));
    alice.expected_peer = Some(bob.identity.peer_id());
    let pair = Pair::begun(&alice, &eve);
    assert_failed(pair, [Some(HandshakeFault::WrongPeer), None]);
    let pair = Pair::begun(&eve, &alice);
    // The initiator did its part and waits for a packet that never comes.
    assert_failed(pair, [None, Some(HandshakeFault::WrongPeer)]);
    let mut bob = bob;
    bob.expected_peer = Some(alice.identity.peer_id());
    Pair::established(&alice, &bob);
}

#[test]
fn a_relay_in_the_middle_is_seen_with_a_pin_or_a_secret_and_named_without() {
    let relay = config(66);
    // With a secret it cannot even finish Noise with either side.
    let (alice, bob) = (with_psk(config(1), 5), with_psk(config(2), 5));
    assert_failed(
        Pair::begun(&alice, &with_psk(relay.clone(), 0)),
        [None, Some(HandshakeFault::Undecryptable)],
    );
    assert_failed(
        Pair::begun(&with_psk(relay.clone(), 0), &bob),
        [None, Some(HandshakeFault::Undecryptable)],
    );
    // Without pin and secret, the application is told whom it talks to.
    let mut pair = Pair::begun(&config(1), &relay);
    pair.exchange();
    assert!(pair.has(0, |event| *event == Event::Authenticated { peer: relay.identity.peer_id() }));
}

fn initiation(config: &culvert_session::Config) -> Vec<u8> {
    let mut datagram = Vec::new();
    initiate(config).poll_transmit(MS, &mut datagram).expect("an initiation");
    datagram
}

#[test]
fn a_replayed_initiation_leads_nowhere() {
    let replayed = initiation(&config(1));
    let mut sessions = [accept(&config(2), &replayed).unwrap(), accept(&config(2), &replayed).unwrap()];
    for session in &mut sessions {
        let mut out = Vec::new();
        assert!(session.poll_transmit(MS, &mut out).is_some(), "it is answered");
        assert!(session.poll_transmit(MS, &mut out).is_none(), "once, and never repeated by itself");
        for _ in 0..100 {
            session.receive(MS, PATH, &mut replayed.clone());
        }
        session.handle_timeout(21 * SECOND);
        assert!(session.peer().is_none() && session.is_finished());
    }
}

#[test]
fn a_whole_recorded_handshake_authenticates_nobody_again() {
    let mut pair = Pair::begun(&config(1), &config(2));
    let mut recorded = vec![initiation(&config(1))];
    pair.exchange_if(|packet| {
        if packet.from == 0 {
            recorded.push(packet.bytes.clone());
        }
        true
    });
    assert!(authenticated(&pair, 1));
    let mut again = accept(&config(2), &recorded[0]).unwrap();
    for datagram in &recorded {
        let mut datagram = datagram.clone();
        // Addressed to the new session, as a relay could.
        if !matches!(peek(&datagram), Some(Peek::Initiation { .. })) {
            datagram[2..10].copy_from_slice(&again.id().0.to_be_bytes());
        }
        again.receive(MS, PATH, &mut datagram);
    }
    assert_eq!(again.peer(), None);
}

#[test]
fn any_handshake_datagram_may_be_lost_doubled_or_late() {
    for lost in 0..6 {
        let mut pair = Pair::begun(&config(1), &config(2));
        let mut count = 0;
        let mut copies = Vec::new();
        pair.advance_if(10 * SECOND, |packet| {
            count += 1;
            copies.push(packet.clone());
            count - 1 != lost
        });
        for packet in copies.iter().chain(copies.iter().rev()) {
            pair.deliver(packet);
        }
        pair.advance(SECOND);
        for end in 0..2 {
            let times = |wanted: fn(&Event) -> bool| pair.events[end].iter().filter(|e| wanted(e)).count();
            assert_eq!(times(|event| matches!(event, Event::Authenticated { .. })), 1);
            assert_eq!(times(|event| *event == Event::Established), 1, "without datagram {lost}");
            assert!(pair.closed(end).is_none());
        }
    }
}

#[test]
fn tampered_copies_of_every_datagram_do_no_harm() {
    let mut pair = Pair::begun(&config(1), &config(2));
    for _ in 0..6 {
        let mut packets = pair.drain(0);
        packets.extend(pair.drain(1));
        for packet in &packets {
            for index in 0..packet.bytes.len().min(40) {
                let mut tampered = packet.clone();
                tampered.bytes[index] ^= 0x41;
                pair.deliver(&tampered);
                tampered.bytes.truncate(index);
                pair.deliver(&tampered);
            }
        }
        for packet in &packets {
            pair.deliver(packet);
        }
        pair.poll();
    }
    pair.advance(5 * SECOND);
    for end in 0..2 {
        assert!(pair.has(end, |event| *event == Event::Established), "end {end}");
        assert!(pair.ends[end].counters().rejected > 20);
    }
}

#[test]
fn both_may_begin_and_the_lower_identity_stays_initiator() {
    let (low, high) = {
        let (one, two) = (config(1), config(2));
        if one.identity.peer_id() < two.identity.peer_id() { (one, two) } else { (two, one) }
    };
    // Every order in which the two initiations arrive or are lost.
    for lost in [None, Some(0), Some(1)] {
        for swap in [false, true] {
            let ends =
                if swap { [initiate(&high), initiate(&low)] } else { [initiate(&low), initiate(&high)] };
            let mut pair = Pair::of(ends);
            let mut first = [true; 2];
            pair.advance_if(15 * SECOND, |packet| {
                let initiation = std::mem::take(&mut first[packet.from]);
                !(initiation && lost == Some(packet.from))
            });
            let initiator = usize::from(swap);
            for end in 0..2 {
                assert!(pair.has(end, |event| *event == Event::Established), "lost {lost:?}, end {end}");
                let stream = pair.ends[end].open_stream(Priority::NORMAL).unwrap();
                assert_eq!(stream.0, u64::from(end != initiator));
            }
        }
    }
}

#[test]
fn an_initiation_thrown_back_is_not_answered() {
    let mut session = initiate(&config(1));
    let mut datagram = Vec::new();
    session.poll_transmit(MS, &mut datagram).unwrap();
    session.receive(MS, PATH, &mut datagram.clone());
    assert!(session.poll_transmit(MS, &mut Vec::new()).is_none());
    assert_eq!(session.counters().rejected, 1);
}

#[test]
fn forged_initiations_do_not_keep_peers_apart() {
    let mut pair = Pair::begun(&config(1), &config(2));
    for seed in 10..30 {
        pair.ends[1].receive(MS, PATH, &mut initiation(&config(seed)));
        pair.ends[0].receive(MS, PATH, &mut initiation(&config(seed)));
    }
    pair.advance(15 * SECOND);
    for end in 0..2 {
        assert!(pair.has(end, |event| *event == Event::Established), "end {end}");
    }
}

#[test]
fn only_an_initiation_is_accepted() {
    let valid = initiation(&config(1));
    assert!(accept(&config(2), &valid).is_some());
    assert!(accept(&config(2), &valid[..valid.len() - 20]).is_none());
    assert!(accept(&config(2), b"").is_none());
    let mut pair = Pair::begun(&config(1), &config(2));
    let response = pair.drain(1).remove(0).bytes;
    assert!(accept(&config(2), &response).is_none());
}

#[test]
fn a_handshake_moves_to_another_path_at_once() {
    let mut session = initiate(&config(1));
    let mut datagram = Vec::new();
    session.poll_transmit(MS, &mut datagram).unwrap();
    assert!(session.poll_transmit(MS, &mut datagram).is_none());
    session.set_path(2 * MS, PathId(9));
    assert_eq!(session.poll_transmit(2 * MS, &mut datagram).unwrap().path, PathId(9));
    session.lose_path();
    session.handle_timeout(3 * SECOND);
    assert!(session.poll_transmit(3 * SECOND, &mut datagram).is_none());
}

#[test]
fn closing_before_the_handshake_is_over_is_quiet() {
    let mut session: Session = initiate(&config(1));
    session.close(MS);
    assert_eq!(
        session.poll_event(),
        Some(Event::Closed { reason: CloseReason::Done, unacknowledged: vec![] })
    );
    assert!(session.is_finished() && session.poll_transmit(MS, &mut Vec::new()).is_none());
}

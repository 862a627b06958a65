//! A sender and a receiver with everything between them that Redis and networks do, from a seed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use culvert_wire::{Class, ConnId, Generation, Member, NodeId, PeerId, TopicId, Verdict};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::bus::redis::message::{EMPTY, HEADER, Header, Item, Part, Parts, RESYNC};
use crate::bus::{Letter, Undelivered};

const WINDOW: u64 = 128 << 10;
const NONE: Confirm = Confirm { epoch: 0, next: 0, granted: 0, resync: false };

fn outgoing(now: Instant) -> Outgoing {
    Outgoing::new(Arc::default(), 7, 2, 1 << 20, now)
}

fn letter(id: u64, payload: &[u8]) -> Letter<'_> {
    // Each has an address of its own, so that verdicts can be told apart.
    Letter {
        topic: TopicId([1; 32]),
        from: ConnId(1),
        to: ConnId(id + 1),
        sender: PeerId([2; 32]),
        class: Class::Normal,
        payload,
    }
}

fn departure(id: u64) -> Item {
    let member = Member { conn: ConnId(id), peer: PeerId([3; 32]), generation: Generation(1) };
    Item::Departed { topic: TopicId([1; 32]), member }
}

fn verdict(id: u64) -> Item {
    Item::Undelivered(Undelivered {
        topic: None,
        from: ConnId(id),
        to: ConnId(9),
        verdict: Verdict::Full,
        count: 1,
    })
}

fn take(outgoing: &mut Outgoing, confirm: Confirm, now: Instant) -> Option<Taken> {
    outgoing.take(NodeId(1), 42, confirm, false, now)
}

fn header_of(message: &[u8]) -> Header {
    Header::take(&mut &message[..]).unwrap()
}

/// The header with which a receiver confirms.
fn confirmation(incoming: &mut Incoming) -> Header {
    let confirm = incoming.confirm(WINDOW);
    let mut answer = Outgoing::new(Arc::default(), 42, 2, 1, Instant::now());
    let taken = answer.take(NodeId(2), 7, confirm, true, Instant::now()).unwrap();
    header_of(&taken.message)
}

#[derive(Default)]
struct World {
    sent: u64,
    items: u64,
    verdicts_said: u64,
    channel: VecDeque<Bytes>,
    incoming: Incoming,
    delivered: Vec<u64>,
    membership: Vec<u64>,
    verdicts: Vec<u64>,
    reported: BTreeMap<u64, Verdict>,
    gaps: u64,
}

impl World {
    fn report(&mut self, lost: Vec<Undelivered>) {
        for Undelivered { to, verdict, count, .. } in lost {
            assert_eq!(count, 1);
            assert_eq!(self.reported.insert(to.0 - 1, verdict), None, "one verdict each");
        }
    }

    fn arrive(&mut self, message: &[u8]) {
        let header = header_of(message);
        let items = &message[HEADER..];
        let Entry::New { lost } = self.incoming.begin(&header) else { return };
        self.gaps += lost;
        let mut letters = 0;
        for part in Parts::new(header.version, items) {
            match part.unwrap() {
                Part::Letter(letter) => {
                    letters += 1;
                    self.delivered.push(letter.to.0 - 1);
                }
                Part::Item { number, item, .. } if self.incoming.admits(number, &item) => match item {
                    Item::Departed { member, .. } => self.membership.push(member.conn.0),
                    Item::Undelivered(undelivered) => self.verdicts.push(undelivered.from.0),
                    other => panic!("{other:?}"),
                },
                Part::Item { .. } => {}
            }
        }
        self.incoming.end(&header, items.len() as u64, letters, WINDOW);
    }
}

fn run(seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let start = Instant::now();
    let mut out = outgoing(start);
    let mut world = World::default();
    for step in 0..2_000u32 {
        let now = start + Duration::from_millis(10) * step;
        let calm = step >= 1_500;
        if !calm {
            for _ in 0..rng.random_range(0..20) {
                let payload = vec![0; rng.random_range(0..600)];
                match out.letter(&letter(world.sent, &payload)) {
                    Ok(()) => {}
                    Err(refused) => {
                        world.reported.insert(world.sent, refused);
                    }
                }
                world.sent += 1;
            }
            if rng.random_bool(0.2) {
                out.item(&departure(world.items));
                world.items += 1;
            }
            if rng.random_bool(0.2) {
                out.item(&verdict(world.verdicts_said));
                world.verdicts_said += 1;
            }
        }
        out.tick(now);
        let taken: Vec<Taken> =
            std::iter::from_fn(|| take(&mut out, NONE, now)).take(rng.random_range(1..8)).collect();
        match rng.random_range(0..100) {
            // No answer, and whatever was published arrives late.
            0..4 if !calm => {
                let published = rng.random_range(0..=taken.len());
                world.channel.extend(taken.into_iter().take(published).map(|taken| taken.message));
                let lost = out.end_epoch(Verdict::Unknown);
                world.report(lost);
            }
            // From one message on, nobody was subscribed.
            4..8 if !calm => {
                let heard = rng.random_range(0..=taken.len());
                let unheard = taken[heard..].iter().find_map(|taken| taken.sequence);
                world.channel.extend(taken.into_iter().take(heard).map(|taken| taken.message));
                if let Some(sequence) = unheard {
                    let lost = out.unpublished(sequence);
                    world.report(lost);
                }
            }
            // Published, and lost with the subscription.
            8..12 if !calm => {
                world.channel.extend(taken.into_iter().map(|taken| taken.message));
                let lost = rng.random_range(0..=world.channel.len());
                world.channel.drain(..lost);
            }
            _ => world.channel.extend(taken.into_iter().map(|taken| taken.message)),
        }
        for _ in 0..rng.random_range(0..8) {
            if let Some(message) = world.channel.pop_front() {
                world.arrive(&message);
            }
        }
        if calm || rng.random_bool(0.3) {
            let header = confirmation(&mut world.incoming);
            if calm || rng.random_bool(0.8) {
                let lost = out.confirmed(&header);
                world.report(lost.unwrap_or_default());
            }
        }
    }
    assert_eq!(out.held(), (0, 0), "seed {seed}: nothing waits for ever");
    let in_order = |list: &[u64]| list.windows(2).all(|pair| pair[0] < pair[1]);
    assert!(in_order(&world.delivered), "seed {seed}: at most once, in order");
    assert_eq!(world.membership, (0..world.items).collect::<Vec<_>>(), "seed {seed}");
    assert_eq!(world.verdicts, (0..world.verdicts_said).collect::<Vec<_>>(), "seed {seed}");
    let mut delivered = world.delivered.iter().copied().peekable();
    for id in 0..world.sent {
        let arrived = delivered.next_if_eq(&id).is_some();
        match world.reported.get(&id) {
            None => assert!(arrived, "seed {seed}: letter {id} is lost and nobody says so"),
            Some(Verdict::Unknown) => {}
            Some(verdict) => {
                assert!(!arrived, "seed {seed}: letter {id} arrived and is said to be {verdict:?}");
            }
        }
    }
}

#[test]
fn whatever_is_lost_on_the_way_is_accounted_for() {
    for seed in 0..300 {
        run(seed);
    }
}

#[test]
fn without_credit_nothing_is_sent_and_asking_brings_it() {
    let now = Instant::now();
    let mut out = outgoing(now);
    let mut world = World::default();
    let payload = [0; 1000];
    for id in 0..200 {
        out.letter(&letter(id, &payload)).unwrap();
    }
    while let Some(taken) = take(&mut out, NONE, now) {
        world.arrive(&taken.message);
    }
    assert!(out.is_blocked() && world.delivered.len() < 200, "the first credit is used up");
    assert!(!out.tick(now + Duration::from_millis(100)) && out.tick(now + Duration::from_millis(250)));
    let asking = header_of(&take(&mut out, NONE, now).unwrap().message);
    assert!(asking.has(EMPTY) && asking.sequence > 0);
    assert_eq!(world.incoming.begin(&asking), Entry::New { lost: 0 });
    assert!(world.incoming.end(&asking, 0, 0, WINDOW), "an answer is due");
    out.confirmed(&confirmation(&mut world.incoming));
    while let Some(taken) = take(&mut out, NONE, now) {
        world.arrive(&taken.message);
        out.confirmed(&confirmation(&mut world.incoming));
    }
    assert_eq!((world.delivered.len(), out.held()), (200, (0, 0)));
}

#[test]
fn credit_is_announced_in_steps_and_not_with_every_message() {
    let now = Instant::now();
    let mut out = outgoing(now);
    let mut incoming = Incoming::default();
    let (mut messages, mut said) = (0, 0);
    for id in 0..2_000 {
        out.letter(&letter(id, &[0; 1000])).unwrap();
        while let Some(taken) = take(&mut out, NONE, now) {
            let header = header_of(&taken.message);
            incoming.begin(&header);
            messages += 1;
            let bytes = (taken.message.len() - HEADER) as u64;
            if incoming.end(&header, bytes, taken.letters.into(), WINDOW) {
                said += 1;
                out.confirmed(&confirmation(&mut incoming));
            }
        }
    }
    assert!(said > 10 && said * 10 < messages, "{said} of {messages}");
}

#[test]
fn a_gap_is_counted_and_ends_the_epoch_of_the_sender() {
    let now = Instant::now();
    let mut out = outgoing(now);
    let mut world = World::default();
    let send = |out: &mut Outgoing, id| {
        out.letter(&letter(id, b"x")).unwrap();
        take(out, NONE, now).unwrap().message
    };
    let first = send(&mut out, 0);
    world.arrive(&first);
    let _lost = send(&mut out, 1);
    let third = send(&mut out, 2);
    world.arrive(&third);
    assert_eq!((world.gaps, &world.delivered[..]), (1, &[0, 2][..]));
    let header = confirmation(&mut world.incoming);
    assert!(header.has(RESYNC) && header.confirmed == 1);
    let lost = out.confirmed(&header).unwrap();
    let mut unknown: Vec<u64> = lost.iter().map(|lost| lost.to.0 - 1).collect();
    unknown.sort_unstable();
    assert_eq!(unknown, [1, 2], "what came behind the gap is not confirmed either");
    assert_eq!(out.confirmed(&header), None, "the epoch that it speaks of is over");
    let fourth = send(&mut out, 3);
    assert!(header_of(&fourth).epoch > header_of(&third).epoch);
    world.arrive(&fourth);
    world.arrive(&third);
    assert_eq!(world.delivered, [0, 2, 3], "what comes late of an epoch that is over does not count");
    assert!(!confirmation(&mut world.incoming).has(RESYNC));
}

#[test]
fn a_message_that_could_not_be_read_is_as_good_as_missing() {
    let now = Instant::now();
    let mut out = outgoing(now);
    let mut incoming = Incoming::default();
    out.letter(&letter(0, b"x")).unwrap();
    let header = header_of(&take(&mut out, NONE, now).unwrap().message);
    assert_eq!(incoming.begin(&header), Entry::New { lost: 0 });
    incoming.damaged();
    assert!(incoming.end(&header, 1, 0, WINDOW), "its sender hears of it at once");
    let lost = out.confirmed(&confirmation(&mut incoming)).unwrap();
    assert_eq!((lost.len(), lost[0].verdict), (1, Verdict::Unknown));
}

#[test]
fn a_queue_keeps_room_for_what_is_urgent() {
    let mut out = outgoing(Instant::now());
    let payload = [0; 1000];
    let fill = |out: &mut Outgoing, class| {
        let mut letter = letter(1, &payload);
        letter.class = class;
        let taken = std::iter::from_fn(|| out.letter(&letter).ok()).count();
        assert_eq!(out.letter(&letter), Err(Verdict::Full));
        taken
    };
    let (bulk, normal, control) =
        (fill(&mut out, Class::Bulk), fill(&mut out, Class::Normal), fill(&mut out, Class::Control));
    assert!(bulk > 700 && normal > 150 && control > 50, "{bulk} {normal} {control}");
    let given_up: u32 = out.give_up(Verdict::Unreachable).iter().map(|lost| lost.count).sum();
    assert_eq!(given_up as usize, bulk + normal + control);
    assert_eq!(out.held(), (0, 0));
}

#[test]
fn verdicts_of_one_kind_are_merged() {
    let now = Instant::now();
    let mut out = outgoing(now);
    for _ in 0..1_000 {
        out.item(&verdict(5));
        out.item(&verdict(6));
    }
    let message = take(&mut out, NONE, now).unwrap().message;
    let counts: Vec<u32> = Parts::new(2, &message[HEADER..])
        .map(|part| match part.unwrap() {
            Part::Item { item: Item::Undelivered(undelivered), .. } => undelivered.count,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(counts, [1_000, 1_000]);
}

#[test]
fn while_the_way_is_closed_letters_are_refused_and_items_wait() {
    let now = Instant::now();
    let mut out = outgoing(now);
    out.set_reachable(false);
    assert_eq!(out.letter(&letter(1, b"x")), Err(Verdict::Unreachable));
    out.item(&departure(1));
    out.item(&verdict(1));
    assert!(take(&mut out, NONE, now).is_none());
    out.ask(now);
    let asking = take(&mut out, NONE, now).unwrap();
    assert_eq!((asking.sequence, asking.message.len()), (None, HEADER));
    out.set_reachable(true);
    let taken = take(&mut out, NONE, now).unwrap();
    assert_eq!(Parts::new(2, &taken.message[HEADER..]).count(), 2);
}

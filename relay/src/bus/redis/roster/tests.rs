use culvert_wire::{Generation, PeerId};

use super::*;

const TOPIC: TopicId = TopicId([5; 32]);
const HERE: NodeId = NodeId(1);
const THERE: NodeId = NodeId(2);
const BEYOND: NodeId = NodeId(3);
const LIFE: Incarnation = Incarnation { instance: 9, term: 3 };
const MEMORY: Duration = Duration::from_secs(14);

fn member(node: NodeId, n: u64) -> Member {
    Member { conn: ConnId::new(node, n), peer: PeerId([1; 32]), generation: Generation(1) }
}

fn entry(node: NodeId, n: u64, term: u32) -> Entry {
    Entry { member: member(node, n), life: Incarnation { term, ..LIFE } }
}

fn complete(members: Vec<Entry>) -> Sight {
    Sight { members, nodes: Vec::new(), complete: true }
}

/// With one connection here whose read showed this.
fn joined(sight: &Sight) -> Roster {
    let roster = Roster::new(MEMORY);
    roster.enter(TOPIC, member(HERE, 1));
    roster.learn(&TOPIC, sight, false, |_, _| false);
    roster.read_ended(&TOPIC);
    roster
}

fn conns(roster: &Roster) -> Vec<ConnId> {
    roster.members(&TOPIC, usize::MAX).0.iter().map(|member| member.conn).collect()
}

#[test]
fn only_topics_with_members_here_are_followed() {
    let roster = Roster::new(MEMORY);
    assert!(!roster.arrived(&TOPIC, member(THERE, 1), LIFE));
    assert_eq!(
        roster.learn(&TOPIC, &complete(vec![entry(THERE, 1, 3)]), true, |_, _| true),
        Difference::default()
    );
    assert!(roster.is_empty() && roster.nodes_of(&TOPIC).is_empty());

    let roster = joined(&complete(vec![entry(THERE, 1, 3)]));
    roster.enter(TOPIC, member(HERE, 2));
    assert_eq!((roster.len(), roster.local(&TOPIC)), (1, 2));
    assert_eq!(roster.exit(&TOPIC, member(HERE, 3), Instant::now()), None, "it was not in");
    for n in 1..=2 {
        assert_eq!(roster.exit(&TOPIC, member(HERE, n), Instant::now()), Some(vec![THERE]));
    }
    assert!(roster.is_empty() && roster.nodes_of(&TOPIC).is_empty());
}

#[test]
fn a_node_is_told_of_as_long_as_it_has_members() {
    let roster = joined(&complete(vec![entry(THERE, 1, 3)]));
    assert!(roster.arrived(&TOPIC, member(THERE, 2), LIFE));
    assert!(!roster.arrived(&TOPIC, member(THERE, 2), LIFE), "once");
    assert!(roster.departed(&TOPIC, member(THERE, 1).conn));
    assert!(!roster.departed(&TOPIC, member(THERE, 1).conn), "once");
    assert_eq!(roster.nodes_of(&TOPIC), [THERE]);
    assert!(roster.departed(&TOPIC, member(THERE, 2).conn));
    assert_eq!(roster.nodes_of(&TOPIC), []);
}

#[test]
fn who_was_read_is_announced_once_more_only_to_those_who_did_not_read_it() {
    // The only one here has read it with its own join.
    let roster = joined(&complete(vec![entry(THERE, 1, 3)]));
    assert!(!roster.arrived(&TOPIC, member(THERE, 1), LIFE));
    // A second one finds somebody whose announcement is still on its way: the first has to hear it.
    roster.enter(TOPIC, member(HERE, 2));
    roster.learn(&TOPIC, &complete(vec![entry(THERE, 1, 3), entry(THERE, 2, 3)]), false, |_, _| false);
    assert!(roster.arrived(&TOPIC, member(THERE, 2), LIFE));
}

#[test]
fn who_departs_while_the_registry_is_read_does_not_come_back_with_the_answer() {
    let roster = Roster::new(MEMORY);
    roster.enter(TOPIC, member(HERE, 1));
    assert!(!roster.departed(&TOPIC, member(THERE, 1).conn));
    roster.learn(&TOPIC, &complete(vec![entry(THERE, 1, 3), entry(THERE, 2, 3)]), false, |_, _| false);
    assert_eq!(conns(&roster), [member(THERE, 2).conn]);
    // Unless it arrives again, or the read began after it.
    roster.arrived(&TOPIC, member(THERE, 1), LIFE);
    assert_eq!(conns(&roster).len(), 2);
    roster.read_ended(&TOPIC);
    roster.departed(&TOPIC, member(THERE, 2).conn);
    assert!(roster.read_begins(&TOPIC).is_some());
    let difference = roster.learn(&TOPIC, &complete(vec![entry(THERE, 2, 3)]), false, |_, _| false);
    assert_eq!(difference.arrived, [member(THERE, 2)]);
}

#[test]
fn a_complete_read_replaces_what_is_known_of_nodes_that_are_confirmed() {
    let roster = joined(&complete(vec![entry(THERE, 1, 3), entry(THERE, 2, 3), entry(BEYOND, 3, 3)]));
    let read = complete(vec![entry(THERE, 1, 3), entry(THERE, 4, 3)]);
    let difference = roster.learn(&TOPIC, &read, true, |node, _| node == THERE);
    assert_eq!(difference.departed, [member(THERE, 2)]);
    assert_eq!(difference.arrived, [member(THERE, 4)]);
    assert_eq!(roster.nodes_of(&TOPIC), [THERE, BEYOND], "the other may only be late");

    let sample = Sight { complete: false, ..Sight::default() };
    assert_eq!(roster.learn(&TOPIC, &sample, true, |_, _| true), Difference::default());
}

#[test]
fn who_is_announced_while_a_topic_is_read_anew_did_not_leave() {
    let roster = joined(&complete(vec![entry(THERE, 1, 3), entry(THERE, 2, 3)]));
    // After Redis lost everything the other node registers anew as well: the first just before the read,
    // the second just behind it.
    let anew = Incarnation { term: 4, ..LIFE };
    assert!(roster.read_begins(&TOPIC).is_some());
    for n in 1..=2 {
        assert!(!roster.arrived(&TOPIC, member(THERE, n), anew));
    }
    let read = complete(vec![entry(THERE, 1, 4)]);
    let confirmed = |_, life| life == anew;
    assert_eq!(roster.learn(&TOPIC, &read, true, confirmed), Difference::default());
    roster.read_ended(&TOPIC);
    // What was announced before a read began, the read must show.
    assert!(roster.read_begins(&TOPIC).is_some());
    assert_eq!(roster.learn(&TOPIC, &read, true, confirmed).departed, [member(THERE, 2)]);
}

#[test]
fn a_node_that_ended_takes_its_members_of_that_life_along() {
    let roster = joined(&complete(vec![entry(THERE, 1, 3), entry(THERE, 2, 4), entry(BEYOND, 3, 3)]));
    let parts = 0..Roster::PARTS;
    let gone: Vec<_> =
        parts.flat_map(|part| roster.remove(part, THERE, true, |known| known.life.term <= 3)).collect();
    assert_eq!(gone, [(TOPIC, member(THERE, 1))]);
    assert_eq!(conns(&roster), [member(THERE, 2).conn, member(BEYOND, 3).conn]);
}

#[test]
fn a_large_topic_is_known_by_node_and_its_departures_are_passed_on() {
    let sample = (0..512).map(|n| entry(THERE, n, 3)).collect();
    let roster = Roster::new(MEMORY);
    roster.enter(TOPIC, member(HERE, 1));
    assert!(roster.wants_nodes(&TOPIC));
    roster.learn(
        &TOPIC,
        &Sight { members: sample, nodes: vec![THERE, BEYOND], complete: false },
        false,
        |_, _| false,
    );
    assert!(!roster.wants_nodes(&TOPIC));
    for n in 0..2000 {
        roster.arrived(&TOPIC, member(THERE, 10_000 + n), LIFE);
    }
    assert_eq!(roster.members(&TOPIC, usize::MAX).1, KNOWN, "bounded");
    assert!(roster.departed(&TOPIC, member(BEYOND, 77).conn), "somebody here may know it");
    assert_eq!(roster.nodes_of(&TOPIC), [THERE, BEYOND]);
    for part in 0..Roster::PARTS {
        roster.remove(part, BEYOND, true, |_| true);
    }
    assert_eq!(roster.nodes_of(&TOPIC), [THERE]);
    // Once it has shrunk, one read tells all.
    assert!(roster.read_begins(&TOPIC).is_some());
    roster.learn(&TOPIC, &complete(vec![entry(BEYOND, 1, 3)]), true, |_, _| true);
    assert_eq!(roster.nodes_of(&TOPIC), [BEYOND]);
}

#[test]
fn a_node_that_may_have_read_a_leaving_member_is_told_that_it_left() {
    let roster = joined(&Sight::default());
    let start = Instant::now();
    let missed = |seconds| {
        roster
            .missed_by(THERE, &TOPIC, start + Duration::from_secs(seconds))
            .iter()
            .map(|m| m.conn)
            .collect::<Vec<_>>()
    };
    let left = member(HERE, 1);
    roster.exit(&TOPIC, left, start);
    assert_eq!(missed(1), [left.conn]);
    assert_eq!(missed(2), [left.conn], "as long as it may be read");
    roster.unregistered(&TOPIC, left.conn);
    assert_eq!(missed(3), [left.conn]);
    assert_eq!(missed(4), []);
    assert_eq!(roster.missed_by(BEYOND, &TOPIC, start + Duration::from_secs(4)), [left]);
    assert_eq!(roster.missed_by(NodeId(9), &TOPIC, start + MEMORY), [], "long ago");

    roster.enter(TOPIC, left);
    roster.exit(&TOPIC, left, start);
    roster.enter(TOPIC, left);
    assert_eq!(missed(1), [], "it is back");
}

//! One topic that this node has members of.

use culvert_wire::{ConnId, Member, NodeId};
use hashbrown::HashMap;

use super::{Difference, KNOWN, Known, Sight};
use crate::bus::redis::incarnation::Incarnation;

/// See the parent.
#[derive(Default)]
pub(super) struct Topic {
    pub(super) local: HashMap<ConnId, Member>,
    known: Vec<Known>,
    nodes: Vec<Presence>,
    /// Whether `nodes` are all nodes although the members are too many to be known.
    pub(super) wide: bool,
    /// Reads of the registry that are under way.
    pub(super) reading: u32,
    /// Who departed since the first of them began.
    pub(super) departed: Vec<ConnId>,
}

/// A node with members of the topic.
struct Presence {
    node: NodeId,
    /// How many of `known` are there.
    known: usize,
    /// Whether there may be more.
    beyond: bool,
}

impl Topic {
    pub(super) fn nodes(&self) -> Vec<NodeId> {
        self.nodes.iter().map(|presence| presence.node).collect()
    }

    pub(super) fn known(&self) -> std::slice::Iter<'_, Known> {
        self.known.iter()
    }

    /// See [`super::Roster::read_begins`].
    pub(super) fn read_begins(&mut self) {
        self.reading += 1;
        self.known.iter_mut().for_each(|known| known.fresh = false);
    }

    /// See [`super::Roster::learn`].
    pub(super) fn learn(
        &mut self,
        sight: &Sight,
        replace: bool,
        confirmed: impl Fn(NodeId, Incarnation) -> bool,
    ) -> Difference {
        let mut difference = Difference::default();
        // The only one here is the one that joins, and a difference is told to all.
        let told = replace || self.local.len() == 1;
        if sight.complete {
            self.wide = false;
            self.nodes.iter_mut().for_each(|presence| presence.beyond = false);
            if replace {
                let seen = |conn| sight.members.iter().any(|entry| entry.member.conn == conn);
                // Whoever was announced since the read began may have been registered just behind it.
                let lost = |known: &Known| {
                    confirmed(known.member.conn.node(), known.life)
                        && !known.fresh
                        && !seen(known.member.conn)
                };
                difference.departed = self.take(lost);
            }
        }
        for entry in &sight.members {
            let conn = entry.member.conn;
            if self.departed.contains(&conn) {
                continue;
            }
            match self.known.iter_mut().find(|known| known.member.conn == conn) {
                Some(known) => known.life = entry.life,
                None => {
                    difference.arrived.push(entry.member);
                    let (member, life) = (entry.member, entry.life);
                    self.add(Known { member, life, announced: false, fresh: false, told });
                }
            }
        }
        if !sight.complete {
            sight.nodes.iter().for_each(|node| self.presence(*node).beyond = true);
            self.wide |= !sight.nodes.is_empty();
        }
        self.nodes.retain(|presence| presence.known > 0 || presence.beyond);
        difference
    }

    /// See [`super::Roster::arrived`].
    pub(super) fn arrived(&mut self, member: Member, life: Incarnation) -> bool {
        self.departed.retain(|conn| *conn != member.conn);
        if let Some(known) = self.known.iter_mut().find(|known| known.member.conn == member.conn) {
            (known.life, known.announced, known.fresh) = (life, true, true);
            return !std::mem::replace(&mut known.told, true);
        }
        self.add(Known { member, life, announced: true, fresh: true, told: true });
        true
    }

    /// See [`super::Roster::departed`].
    pub(super) fn departed(&mut self, conn: ConnId) -> bool {
        if self.reading > 0 {
            self.departed.push(conn);
        }
        let known = !self.take(|known| known.member.conn == conn).is_empty();
        self.nodes.retain(|presence| presence.known > 0 || presence.beyond);
        // Of a topic that is not known member by member, somebody here may know the member.
        known || self.nodes.iter().any(|presence| presence.node == conn.node() && presence.beyond)
    }

    /// See [`super::Roster::remove`].
    pub(super) fn remove(&mut self, node: NodeId, all: bool, stale: impl Fn(&Known) -> bool) -> Vec<Member> {
        if !self.nodes.iter().any(|presence| presence.node == node) {
            return Vec::new();
        }
        let gone = self.take(|known| known.member.conn.node() == node && stale(known));
        self.nodes
            .retain(|presence| presence.known > 0 || (presence.beyond && !(all && presence.node == node)));
        gone
    }

    /// Takes members out; leaves it to the caller to drop nodes that have none.
    fn take(&mut self, gone: impl Fn(&Known) -> bool) -> Vec<Member> {
        let taken: Vec<Member> =
            self.known.extract_if(.., |known| gone(known)).map(|known| known.member).collect();
        for member in &taken {
            let presence = self.presence(member.conn.node());
            presence.known = presence.known.saturating_sub(1);
        }
        taken
    }

    fn add(&mut self, known: Known) {
        let room = self.known.len() < KNOWN;
        let presence = self.presence(known.member.conn.node());
        if room {
            presence.known += 1;
            self.known.push(known);
        } else {
            presence.beyond = true;
        }
    }

    fn presence(&mut self, node: NodeId) -> &mut Presence {
        let position = self.nodes.iter().position(|presence| presence.node == node);
        let position = position.unwrap_or_else(|| {
            self.nodes.push(Presence { node, known: 0, beyond: false });
            self.nodes.len() - 1
        });
        &mut self.nodes[position]
    }
}

//! The driver and the peers: who is met, by which way, and what their sessions say.
//!
//! Of two peers the one with the lower id begins. What the relay says about peers decides where packets
//! go and whom to greet, never whether a conversation lives: that is for the sessions, which know keys.

use std::time::Duration;

use culvert_session::{CloseReason, Config, Failure, Hint, PathId, Peek, Session, SessionId, peek};
use culvert_wire::{ConnId, PeerId};

use super::{Driver, Retry};
use crate::broadcast::SyncEvent;
use crate::identity::SystemRng;
use crate::options::PeerPolicy;
use crate::relay::WAITING_CONNECTIONS;
use crate::relay::conversation::{Conversation, Happened};
use crate::relay::paths::LegId;
use crate::relay::roster::Run;

/// Most sessions of a topic at once, those that end included.
const MAX_SESSIONS: usize = 256;
/// Most sessions whose peer has not proved itself yet; a stranger can cause them at will.
const MAX_HANDSHAKES: usize = 64;
/// Streams that a peer may open: one lane for messages, one for files. What a hostile peer can make this
/// end hold grows with them.
const STREAMS: u16 = 2;
/// Delay before a peer is greeted again after a handshake that came to nothing; doubles up to the next.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// How long an earlier session with the same peer has to show that it still lives.
const LAST_CHANCE: Duration = Duration::from_secs(3);

impl Driver {
    /// Makes the best of what is known about a peer: moves its conversations, or begins one.
    pub(super) fn meet(&mut self, peer: PeerId) {
        let Some(best) = self.ways(&peer).first().copied() else { return };
        let mut known = Vec::new();
        for (id, conversation) in &mut self.conversations {
            let same_run = conversation.run.is_none_or(|run| run == best.run);
            if conversation.peer == Some(peer) && !conversation.is_closed && same_run {
                conversation.run = Some(best.run);
                known.push(*id);
            }
        }
        for id in &known {
            self.review(*id);
        }
        let begins = self.settings.identity.peer_id() < peer;
        let is_wanted = !matches!(&self.settings.policy, PeerPolicy::Only(pinned) if !pinned.contains(&peer));
        let may_retry = self.retries.get(&peer).is_none_or(|retry| retry.at <= self.now);
        let was_ended = self.finished.contains(&(peer, best.run));
        if begins && is_wanted && may_retry && known.is_empty() && !was_ended && self.has_room_for_handshake()
        {
            let path = self.paths.number(best.leg, best.conn);
            let config = Config { expected_peer: Some(peer), ..self.config() };
            let session = Session::initiate(config, path, self.now, Box::new(SystemRng));
            self.add(Conversation::new(session, Some(peer), Some(best.run)));
        }
    }

    pub(super) fn meet_everybody(&mut self) {
        for peer in self.known_peers() {
            self.meet(peer);
        }
    }

    /// Everybody who is in the topic, as far as any of the connections tells.
    pub(super) fn known_peers(&self) -> Vec<PeerId> {
        let mut peers: Vec<_> = self.legs.iter().flat_map(|leg| leg.roster.peers()).collect();
        peers.sort_unstable();
        peers.dedup();
        peers
    }

    /// A datagram from a connection of a peer.
    pub(super) fn deliver(&mut self, leg: LegId, from: ConnId, payload: &[u8]) {
        let receiver = match peek(payload) {
            Some(Peek::Data { receiver } | Peek::Handshake { receiver }) => receiver,
            Some(Peek::Initiation { sender }) => match self.initiations.get(&sender) {
                Some(session) => *session,
                None => return self.answer(leg, from, sender, payload),
            },
            None => return,
        };
        if let Some(conversation) = self.conversations.get_mut(&receiver) {
            let path = self.paths.number(leg, from);
            self.datagram.clear();
            self.datagram.extend_from_slice(payload);
            conversation.session.receive(self.now, path, &mut self.datagram);
            let heard = conversation.session.heard().and_then(|(path, _)| self.paths.ends(path));
            let present = conversation.session.path().and_then(|path| self.paths.ends(path));
            if heard.map(|(_, theirs)| theirs) != present.map(|(_, theirs)| theirs) {
                self.review(receiver);
            }
            self.touch(receiver);
        }
    }

    /// A stranger begins a handshake.
    fn answer(&mut self, leg: LegId, from: ConnId, sender: SessionId, payload: &[u8]) {
        let me = self.settings.identity.peer_id();
        let owner = self.leg(leg).and_then(|leg| leg.roster.owner(from));
        let is_expected = owner.is_none_or(|(peer, _)| {
            peer < me && !matches!(&self.settings.policy, PeerPolicy::Only(pinned) if !pinned.contains(&peer))
        });
        if !is_expected || !self.has_room_for_handshake() {
            return;
        }
        let path = self.paths.number(leg, from);
        let Some(session) = Session::accept(self.config(), payload, path, self.now, Box::new(SystemRng))
        else {
            return;
        };
        self.initiations.insert(sender, session.id());
        let (peer, run) = owner.unzip();
        self.add(Conversation::new(session, peer, run));
    }

    fn add(&mut self, conversation: Conversation) {
        let id = conversation.session.id();
        self.conversations.insert(id, conversation);
        self.share_window();
        self.touch(id);
    }

    fn has_room_for_handshake(&self) -> bool {
        let handshakes =
            self.conversations.values().filter(|one| !one.is_established && !one.is_closed).count();
        !self.refuses
            && self.stops_by.is_none()
            && self.waiting.len() < WAITING_CONNECTIONS
            && self.conversations.len() < MAX_SESSIONS
            && handshakes < MAX_HANDSHAKES
    }

    fn config(&self) -> Config {
        Config {
            psk: self.settings.psk.clone(),
            close_timeout: self.settings.limit,
            max_message: crate::relay::MAX_MESSAGE,
            max_streams: STREAMS,
            ..Config::new(self.settings.identity.clone(), self.settings.topic)
        }
    }

    /// What the relay says about packets on one way, or on all ways of one of our connections.
    pub(super) fn hint(&mut self, leg: LegId, conn: Option<ConnId>, hint: Hint) {
        for (id, path) in self.on_way(leg, conn) {
            if let Some(conversation) = self.conversations.get_mut(&id) {
                conversation.session.hint(path, hint);
                self.touch(id);
            }
        }
    }

    /// The conversations on one way, or on all ways of one of our connections.
    pub(super) fn on_way(&self, leg: LegId, conn: Option<ConnId>) -> Vec<(SessionId, PathId)> {
        let is_meant = |(own, theirs): (LegId, ConnId)| own == leg && conn.is_none_or(|conn| conn == theirs);
        let paths = self.conversations.iter().filter_map(|(id, one)| Some((*id, one.session.path()?)));
        paths.filter(|(_, path)| self.paths.ends(*path).is_some_and(is_meant)).collect()
    }

    /// The conversations on a way that is gone wait for another.
    pub(super) fn lose(&mut self, path: PathId) {
        self.lose_where(|conversation, _| conversation.session.path() == Some(path));
    }

    pub(super) fn lose_unreachable(&mut self) {
        self.meet_everybody();
        self.lose_where(|conversation, paths| {
            conversation.session.path().is_some_and(|path| paths.ends(path).is_none())
        });
    }

    fn lose_where(&mut self, is_lost: impl Fn(&Conversation, &crate::relay::paths::Paths) -> bool) {
        let mut lost = Vec::new();
        for (id, conversation) in &mut self.conversations {
            if is_lost(conversation, &self.paths) {
                conversation.session.lose_path();
                lost.push((*id, conversation.peer.filter(|_| conversation.is_established)));
            }
        }
        for (id, peer) in lost {
            self.touch(id);
            if let Some(peer) = peer {
                self.publish(SyncEvent::PathChanged { peer_id: peer.to_string(), path: "none" });
            }
        }
    }

    /// What time demands of the conversations.
    pub(super) fn keep_peers_time(&mut self) {
        let now = self.now;
        let mut due = Vec::new();
        for (id, conversation) in &mut self.conversations {
            if conversation.session.next_timeout().is_some_and(|at| at <= now) {
                conversation.session.handle_timeout(now);
                due.push(*id);
            }
            if conversation.quiet_at.take_if(|at| *at <= now).is_some()
                && conversation.session.unanswered().is_none()
            {
                conversation.session.ask();
                due.push(*id);
            }
            if let Some((by, heard)) = conversation.superseded
                && by <= now
            {
                conversation.superseded = None;
                if conversation.session.counters().packets_received == heard {
                    conversation.session.fail(now, Failure::PeerRestarted);
                }
                due.push(*id);
            }
        }
        due.into_iter().for_each(|id| self.touch(id));
        self.review_silent();
        let ready: Vec<_> =
            self.retries.iter().filter(|(_, retry)| retry.at <= now).map(|(peer, _)| *peer).collect();
        for peer in ready {
            self.meet(peer);
            // It stays remembered for its delay only while the peer is being tried.
            if let Some(retry) = self.retries.get_mut(&peer) {
                retry.at = now + retry.delay;
            }
            if !self.legs.iter().any(|leg| leg.roster.has(&peer)) || self.talks_to(&peer) {
                self.retries.remove(&peer);
            }
        }
    }

    /// Whether a conversation with `peer` is going on.
    pub(super) fn talks_to(&self, peer: &PeerId) -> bool {
        let mut of_peer = self.conversations.values().filter(|one| one.peer == Some(*peer));
        of_peer.any(|one| one.is_established && !one.is_closed)
    }

    /// Lets every session that something happened to say what, and lines it up for writing.
    pub(super) fn settle(&mut self) {
        while let Some(id) = self.touched.pop() {
            self.settle_one(id);
            let Some(conversation) = self.conversations.get_mut(&id) else { continue };
            if std::mem::take(&mut conversation.has_read) {
                conversation.quiet_at = Some(self.now + self.settings.liveness.after);
            }
            conversation.close_when_empty(self.now);
            conversation.publish_counters();
            if conversation.session.is_finished() {
                self.conversations.remove(&id);
                self.initiations.retain(|_, session| *session != id);
                self.share_window();
            } else if !self.writers.contains(&id) {
                self.writers.push_back(id);
            }
        }
    }

    fn settle_one(&mut self, id: SessionId) {
        let limit = self.settings.limit;
        while let Some(conversation) = self.conversations.get_mut(&id)
            && let Some(happened) = conversation.next(&self.commands, limit)
        {
            let (peer, run) = (conversation.peer, conversation.run);
            match happened {
                Happened::Authenticated(peer) => {
                    let accept = self.settings.policy.allows(&peer) && !self.refuses;
                    conversation.authorize(self.now, accept);
                }
                Happened::Established(connection) => {
                    let peer = connection.peer();
                    self.waiting.push_back(connection);
                    self.retries.remove(&peer);
                    self.supersede(id, peer);
                    self.publish(SyncEvent::PeerConnected { peer_id: peer.to_string() });
                }
                Happened::PathChanged => {
                    self.review(id);
                    if let Some(peer) = peer {
                        self.publish(SyncEvent::PathChanged { peer_id: peer.to_string(), path: "relay" });
                    }
                }
                Happened::Closed(reason) => {
                    let was_established = conversation.is_established;
                    if self.stops_by.is_some() {
                        self.undelivered += conversation.outstanding();
                    }
                    if let Some(peer) = peer {
                        self.ended(peer, run, was_established, reason);
                    }
                }
            }
        }
    }

    /// A new session with a peer that has others: they end unless they are heard of soon.
    fn supersede(&mut self, newest: SessionId, peer: PeerId) {
        let path = self.conversations.get(&newest).and_then(|one| one.session.path());
        let mut older = Vec::new();
        for (id, conversation) in &mut self.conversations {
            let is_older = *id != newest && conversation.is_established && !conversation.is_closed;
            if is_older && conversation.peer == Some(peer) {
                match (conversation.session.path(), path) {
                    (Some(own), _) => conversation.session.hint(own, Hint::Lost),
                    (None, Some(path)) => conversation.session.set_path(self.now, path),
                    (None, None) => {}
                }
                let heard = conversation.session.counters().packets_received;
                conversation.superseded = Some((self.now + LAST_CHANCE, heard));
                older.push(*id);
            }
        }
        older.into_iter().for_each(|id| self.touch(id));
    }

    fn ended(&mut self, peer: PeerId, run: Option<Run>, was_established: bool, reason: CloseReason) {
        tracing::debug!(peer = %peer.short(), %reason, "a conversation ended");
        if was_established {
            self.publish(SyncEvent::PeerDisconnected { peer_id: peer.to_string() });
        }
        let on_purpose = matches!(
            reason,
            CloseReason::Done | CloseReason::ByPeer | CloseReason::Rejected | CloseReason::RejectedByPeer
        );
        match run {
            Some(run) if on_purpose => {
                // Only runs that are still here matter; the list cannot outgrow the roster by much.
                let here = self.known_peers();
                self.finished.retain(|(peer, _)| here.contains(peer));
                self.finished.insert((peer, run));
            }
            _ => {
                let before = self.retries.get(&peer).map(|retry| retry.delay);
                let delay = before.map_or(FIRST_RETRY, |delay| (delay * 2).min(LONGEST_RETRY));
                self.retries.insert(peer, Retry { at: self.now + delay, delay });
            }
        }
    }
}

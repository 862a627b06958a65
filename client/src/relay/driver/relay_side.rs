//! The driver and the relay: coming, going, and what the relay says.

use std::sync::Arc;
use std::time::Duration;

use culvert_session::Hint;
use culvert_wire::close::FIRST_TERMINAL;
use culvert_wire::{Close, ConnId, Frame, Handle, JoinRefusal, Member, Members, Notice, Verdict};
use futures_util::FutureExt;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Driver, GOODBYE};
use crate::broadcast::SyncEvent;
use crate::dial::DialError;
use crate::identity::random_u64;
use crate::options::AdmissionSource;
use crate::reconnect::{Ended, Next};
use crate::relay::end::RelayEnd;
use crate::relay::leg::{LINGER, Leg, Purpose};
use crate::relay::link::{Introduction, Link, LinkError, LinkEvent};
use crate::relay::paths::LegId;
use crate::transport::PeerInfo;

/// Longest time to wait with reconnecting that a draining relay is believed.
const LONGEST_DRAIN: Duration = Duration::from_secs(300);

impl Driver {
    /// Begins to dial if it is time for it. The home comes first.
    pub(super) fn start_dialing(&mut self) {
        let now = Instant::now();
        let is_due = self.dial_at.is_some_and(|at| at <= now);
        if is_due && self.dialing_for == Purpose::Search && self.dialing.take().is_some() {
            // The relay may have seen its number already.
            self.legs_opened += 1;
        }
        if self.dialing.is_some() {
            return;
        }
        if is_due {
            self.dial_at = None;
            self.dial(Purpose::Home);
        } else if self.begins_search(now) {
            self.dial(Purpose::Search);
        }
    }

    fn dial(&mut self, purpose: Purpose) {
        let (dialer, identity) = (Arc::clone(&self.settings.dialer), self.settings.identity.clone());
        let admission = self.settings.admission.clone();
        let limit = match self.ready {
            // Whoever waits for the first connection is told what it failed at, within the limit.
            Some(_) => self.ready_by.saturating_duration_since(Instant::now()),
            None => self.settings.reconnect.attempt_limit().min(self.settings.limit),
        };
        let generation = self.settings.run.generation(self.legs_opened);
        let replaces = match purpose {
            Purpose::Home => self.replaces,
            Purpose::Search => ConnId::NONE,
        };
        self.dialing_for = purpose;
        self.dialing = Some(
            async move {
                let introduction =
                    Introduction { identity: &identity, admission: &admission, generation, replaces };
                Link::open(&dialer, introduction, limit).await
            }
            .boxed(),
        );
    }

    pub(super) fn dialed(&mut self, result: Result<Link, LinkError>) {
        self.dialing = None;
        let purpose = self.dialing_for;
        match result {
            Ok(link) => {
                let id = LegId(self.legs_opened);
                let generation = self.settings.run.generation(self.legs_opened);
                self.legs_opened += 1;
                let join_by = Instant::now() + self.settings.limit;
                let leg = Leg::join(id, purpose, generation, link, self.settings.topic, join_by);
                if purpose == Purpose::Home {
                    self.replaces = leg.conn();
                    // Another loss may have asked for a connection meanwhile; this is it.
                    self.dial_at = None;
                }
                self.legs.push(leg);
            }
            Err(error) if purpose == Purpose::Search => {
                tracing::debug!(%error, "no further connection could be opened to look for peers");
            }
            Err(error) => self.come_back(error, true),
        }
    }

    /// After a lost connection or a failed attempt: waits and tries again, or gives up.
    fn come_back(&mut self, error: LinkError, never_opened: bool) {
        let has_source = matches!(self.settings.admission, AdmissionSource::TicketSource(_));
        let ended = match &error {
            // The next attempt asks for a fresh ticket.
            LinkError::Closed { code, .. } if has_source && *code == Close::TicketExpired.code() => {
                Ended::Broke
            }
            LinkError::Closed { code, .. } => Ended::Closed(*code),
            LinkError::TopicNotAllowed => Ended::Closed(FIRST_TERMINAL),
            LinkError::Dial(error) if error.is_sent_on() => Ended::SentOn,
            _ if never_opened => Ended::NeverOpened,
            _ => Ended::Broke,
        };
        let gives_up_early = self.ready.is_some() && !error.may_reconnect();
        match self.settings.reconnect.ended(ended, random_u64()) {
            Next::After { delay, killed_on_the_way } if !gives_up_early => {
                if killed_on_the_way {
                    tracing::warn!(
                        relay = %self.settings.dialer.relay(), %error,
                        "connections to the relay open and die at once; something on the way may kill WebSocket"
                    );
                } else {
                    tracing::info!(relay = %self.settings.dialer.relay(), %error, ?delay, "reconnecting");
                }
                let at = Instant::now() + delay;
                if let Some(ready) = self.ready.take() {
                    if at >= self.ready_by {
                        // The last attempt may have had no time left; an earlier one says more.
                        let error = match (error, self.last_error.take()) {
                            (LinkError::Dial(DialError::TimedOut { .. }), Some(earlier)) => earlier,
                            (error, _) => error,
                        };
                        return self.give_up_with(ready, error);
                    }
                    self.ready = Some(ready);
                    self.last_error = Some(error);
                }
                self.dial_at = Some(at);
            }
            _ => match self.ready.take() {
                Some(ready) => self.give_up_with(ready, error),
                None => {
                    tracing::warn!(relay = %self.settings.dialer.relay(), %error, "the relay does not let this peer back in");
                    self.give_up(RelayEnd::of(&error));
                }
            },
        }
    }

    fn give_up_with(&mut self, ready: super::Ready, error: LinkError) {
        let end = RelayEnd::of(&error);
        // Whoever asked may have stopped waiting.
        drop(ready.send(Err(error.into())));
        self.give_up(end);
    }

    fn give_up(&mut self, end: RelayEnd) {
        self.stops_by = Some(Instant::now());
        self.dial_at = None;
        let ids: Vec<_> = self.conversations.keys().copied().collect();
        for id in ids {
            if let Some(conversation) = self.conversations.get_mut(&id) {
                conversation.fail(self.now, end.reason.clone());
                self.touch(id);
            }
        }
        self.publish(SyncEvent::RelayEnded { reason: end.reason.clone() });
        // It ends once.
        drop(self.end.set(end));
    }

    /// Something from one of our connections.
    pub(super) fn hear(&mut self, leg: LegId, event: LinkEvent) {
        match event {
            LinkEvent::Flushed | LinkEvent::Pong => {}
            LinkEvent::Ended(error) => self.lost(leg, error),
            LinkEvent::Frame(Frame::Deliver { from, handle, payload, broadcast: false, .. }) => {
                if self.is_in_topic(leg, handle) {
                    self.deliver(leg, from, &payload);
                }
            }
            LinkEvent::Frame(frame) => self.told(leg, frame),
        }
    }

    fn told(&mut self, id: LegId, frame: Frame) {
        match frame {
            Frame::Joined { handle, topic, members } if topic == self.settings.topic => {
                self.joined(id, handle, members);
            }
            Frame::JoinRefused { topic, refusal } if topic == self.settings.topic => {
                self.refused(id, refusal);
            }
            // This peer's own other connections are no peers.
            Frame::PeerJoined { member, .. } if member.peer == self.settings.identity.peer_id() => {}
            Frame::PeerJoined { handle, member } => {
                if let Some(leg) = self.leg(id).filter(|leg| leg.handle == Some(handle)) {
                    leg.roster.add(member);
                    self.meet(member.peer);
                    self.question_all(&member.peer, member.conn);
                }
            }
            Frame::PeerLeft { handle, conn, .. } if self.is_in_topic(id, handle) => self.left(id, conn),
            Frame::Peers { topic, members } if topic == self.settings.topic => self.peers(id, members),
            Frame::Undeliverable { to, verdict, .. } => {
                let hint = match verdict {
                    Verdict::Full | Verdict::Limited => Hint::Congested,
                    Verdict::Gone | Verdict::Unreachable | Verdict::NotAllowed | Verdict::Unknown => {
                        Hint::Lost
                    }
                };
                self.hint(id, Some(to), hint);
                if matches!(verdict, Verdict::Gone | Verdict::Unreachable) {
                    for (session, _) in self.on_way(id, Some(to)) {
                        self.question(session);
                    }
                }
            }
            Frame::Gap { from, .. } => self.hint(id, from, Hint::Lost),
            Frame::Notice(notice) => self.notice(id, notice),
            Frame::Drain { reconnect_in_ms, close_in_ms } => {
                let now = Instant::now();
                let close_in = Duration::from_millis(close_in_ms.into()).min(LONGEST_DRAIN);
                let reconnect_in = Duration::from_millis(reconnect_in_ms.into()).min(close_in);
                if let Some(leg) = self.leg(id).filter(|leg| !leg.drains()) {
                    leg.drain(now + close_in + LINGER);
                    if leg.purpose == Purpose::Home {
                        self.dial_at = Some(now + reconnect_in);
                    }
                }
            }
            // For another topic, or of no concern: a relay may say what it likes.
            _ => {}
        }
    }

    fn joined(&mut self, id: LegId, handle: Handle, members: Members) {
        let me = self.settings.identity.peer_id();
        let Some(leg) = self.leg(id).filter(|leg| leg.handle.is_none() && handle != Handle::NONE) else {
            return;
        };
        leg.handle = Some(handle);
        leg.is_degraded = members.degraded;
        let (purpose, conn) = (leg.purpose, leg.conn());
        for member in members.list.into_iter().filter(|member| member.peer != me) {
            leg.roster.add(member);
        }
        // New ways to whomever it reaches.
        self.conversations.values_mut().for_each(|conversation| conversation.moves_in_vain = 0);
        let now = Instant::now();
        if purpose == Purpose::Search {
            if members.degraded || self.home().is_none_or(|home| !home.is_degraded) {
                self.searched(id, now);
                return self.meet_everybody();
            }
            // A node that reaches everybody: that is a better home.
            if let Some(leg) = self.leg(id) {
                leg.purpose = Purpose::Home;
            }
            self.replaces = conn;
        }
        // The join went there and its answer came back.
        self.settings.reconnect.proved_alive();
        for other in &mut self.legs {
            if other.id != id && other.purpose == Purpose::Home {
                other.retire(now);
            }
        }
        if let Some(ready) = self.ready.take() {
            self.last_error = None;
            if ready.send(Ok(())).is_err() {
                // Whoever asked has stopped waiting, so nobody would ever take a conversation.
                self.begin_stop();
            }
        }
        if members.degraded {
            self.publish(SyncEvent::RelayDegraded { degraded: true });
        }
        self.publish(SyncEvent::RelayConnected { connected: true });
        self.share_window();
        self.meet_everybody();
    }

    fn refused(&mut self, id: LegId, refusal: JoinRefusal) {
        let error = match refusal {
            JoinRefusal::NotAllowed => LinkError::TopicNotAllowed,
            other => LinkError::TopicRefused(other.name()),
        };
        self.lost(id, error);
    }

    /// Whoever uses that way takes another, or waits for one. Told of a connection that was never announced,
    /// or announced again later, it does no harm: a peer that is heard is followed.
    fn left(&mut self, id: LegId, conn: ConnId) {
        let path = self.paths.find(id, conn);
        let peer = self.leg(id).and_then(|leg| leg.roster.remove(conn));
        let on_way = self.on_way(id, Some(conn));
        self.paths.forget(id, conn);
        for (session, _) in on_way {
            self.review(session);
        }
        if let Some(peer) = peer {
            self.meet(peer);
        }
        if let Some(path) = path {
            self.lose(path);
        }
    }

    fn peers(&mut self, id: LegId, members: Members) {
        let me = self.settings.identity.peer_id();
        let others = |member: &Member| member.peer != me;
        if let Some(leg) = self.leg(id) {
            members.list.iter().copied().filter(others).for_each(|member| leg.roster.add(member));
            leg.is_degraded = members.degraded;
            leg.awaits_members = false;
        }
        self.answer_lookups();
        self.meet_everybody();
    }

    pub(super) fn lookup(&mut self, reply: oneshot::Sender<Vec<PeerInfo>>) {
        let topic = self.settings.topic;
        if let Some(leg) = self.legs.iter_mut().rfind(|leg| leg.handle.is_some()) {
            leg.link.send(&Frame::Lookup { topic });
            self.lookups.push(reply);
        }
    }

    fn answer_lookups(&mut self) {
        let peers = self.known_peers();
        let infos: Vec<_> = peers
            .iter()
            .map(|peer| PeerInfo { id: peer.to_string(), address: None, connected: self.talks_to(peer) })
            .collect();
        for reply in self.lookups.drain(..) {
            // Whoever asked may have stopped waiting.
            drop(reply.send(infos.clone()));
        }
    }

    fn notice(&mut self, id: LegId, notice: Notice) {
        if self.leg(id).is_some_and(|leg| leg.degraded_by(notice)) {
            self.publish(SyncEvent::RelayDegraded { degraded: notice == Notice::Degraded });
        }
        match notice {
            // Members that were hidden while the registry was away.
            Notice::Restored => {
                let topic = self.settings.topic;
                if let Some(leg) = self.leg(id) {
                    leg.awaits_members = true;
                    leg.link.send(&Frame::Lookup { topic });
                }
            }
            Notice::Throttled => tracing::warn!("the relay throttles this peer: it is over a limit"),
            Notice::Expiring { .. } => {
                if let AdmissionSource::TicketSource(source) = &self.settings.admission {
                    self.renewal.get_or_insert_with(|| source());
                }
            }
            Notice::RenewRefused { code } => tracing::warn!(code, "the relay refused a fresh ticket"),
            _ => {}
        }
    }

    /// A fresh ticket, or why there is none.
    pub(super) fn renewed(&mut self, result: anyhow::Result<String>) {
        self.renewal = None;
        match result {
            Ok(ticket) => {
                for leg in &mut self.legs {
                    leg.link.send(&Frame::Renew { ticket: ticket.clone() });
                }
            }
            // The connection ends with the ticket, and the next attempt asks again.
            Err(error) => tracing::warn!(error = format!("{error:#}"), "no fresh ticket could be had"),
        }
    }

    /// One of our connections is gone.
    pub(super) fn lost(&mut self, id: LegId, error: LinkError) {
        let Some(at) = self.legs.iter().position(|leg| leg.id == id) else { return };
        let leg = self.legs.remove(at);
        self.paths.forget_leg(id);
        self.lookups.clear();
        // A node that drains may be gone before it is time to dial; then it is time.
        let has_other = self.legs.iter().any(|leg| leg.purpose == Purpose::Home) || self.is_dialing_home();
        if leg.purpose == Purpose::Search || (leg.is_leaving() && has_other) {
            tracing::debug!(%error, "a connection that was not needed any more has ended");
        } else {
            self.come_back(error, leg.handle.is_none());
        }
        if self.legs.is_empty() {
            self.publish(SyncEvent::RelayConnected { connected: false });
        }
        self.lose_unreachable();
        self.goodbyes.spawn(leg.link.close(GOODBYE));
    }

    /// What time demands of the connections.
    pub(super) fn keep_time(&mut self) {
        let now = Instant::now();
        self.plan_search(now);
        let checked = self.legs.iter().filter(|leg| leg.next_check().is_some_and(|at| at <= now));
        let needed: Vec<_> = checked.map(|leg| leg.id).filter(|id| self.is_needed(*id)).collect();
        let mut ended = Vec::new();
        for leg in &mut self.legs {
            if let Some(LinkEvent::Ended(error)) = leg.link.tick(now) {
                ended.push((leg.id, error));
            } else if leg.answers_by().is_some_and(|at| at <= now) {
                ended.push((leg.id, LinkError::Silent("let this peer into the topic")));
            } else if leg.is_over(now, needed.contains(&leg.id)) {
                ended.push((leg.id, LinkError::Broke("it was replaced".to_owned())));
            }
        }
        for (id, error) in ended {
            self.lost(id, error);
        }
        while self.goodbyes.try_join_next().is_some() {}
        if self.ready_by <= now
            && self.dialing.is_none()
            && let Some(ready) = self.ready.take()
        {
            let error = self.last_error.take().unwrap_or(LinkError::Silent("let this peer into the topic"));
            self.give_up_with(ready, error);
        }
        self.keep_peers_time();
    }

    pub(super) fn leg(&mut self, id: LegId) -> Option<&mut Leg> {
        self.legs.iter_mut().find(|leg| leg.id == id)
    }

    fn is_dialing_home(&self) -> bool {
        self.dialing.is_some() && self.dialing_for == Purpose::Home
    }

    /// Whether `handle` is the topic's number on that connection.
    fn is_in_topic(&mut self, id: LegId, handle: Handle) -> bool {
        self.leg(id).is_some_and(|leg| leg.handle == Some(handle))
    }

    /// The newest connection that is in the topic.
    pub(super) fn current_leg(&self) -> Option<&Leg> {
        self.legs.iter().rfind(|leg| leg.handle.is_some())
    }

    /// Shares this connection's queue at the relay among the conversations that fill it.
    pub(super) fn share_window(&mut self) {
        let Some(queue) = self.current_leg().map(|leg| leg.link.welcome().queue_bytes as usize) else {
            return;
        };
        let sharing = self.conversations.values().filter(|conversation| !conversation.is_closed).count();
        // An eighth stays free for handshakes and strangers.
        let share = (queue - queue / 8) / sharing.max(1);
        for conversation in self.conversations.values_mut() {
            conversation.session.set_receive_window(share);
        }
    }
}

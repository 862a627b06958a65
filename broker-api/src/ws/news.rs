//! Who is told what happens.
//!
//! Every replica hears every event and tells those of its own sockets whom it concerns:
//!
//! - A change of a share: the owner's sockets, and those of users whom its policy names: listed users, the
//!   team's members, the whole institution. A public share names nobody: whoever has its token could use
//!   it, and who that is nobody knows, so only its owner hears of it. Who is named by the new policy and was
//!   not by the old one hears that it was published; who no longer is, that it was revoked.
//! - Somebody came or went: users who share a team with them, or a share that names one of the two.
//! - A session ended: its sockets are closed.
//!
//! Whom a team or a user is related to is asked of the database once and remembered until an event says
//! that it changed, or that events were missed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use culvert_broker_wire::message::{PresenceEvent, ShareChange, ShareEvent, ShareSummary};
use culvert_broker_wire::{AccessPolicy, Audience, ServerMessage, Timestamp};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::core::Core;
use crate::live::{Event, ShareNews};
use crate::metrics::Metrics;
use crate::store::{PageRequest, StoreError};

/// Users that are told of one user's presence, at most.
const MOST_RELATED: u32 = 10_000;
/// User ids that are remembered of teams, and of relations, each: tens of megabytes at most.
const REMEMBERED: u64 = 500_000;
/// Sets of them that are remembered.
const SETS: usize = 10_000;
/// Members that are asked for at once.
const PAGE: u32 = 1000;

/// What was pushed: a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// `share_event`.
    Share,
    /// `presence_event`.
    Presence,
}

impl Pushed {
    /// Both.
    pub const ALL: &'static [Self] = &[Self::Share, Self::Presence];

    /// The label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Share => "share_event",
            Self::Presence => "presence_event",
        }
    }
}

/// Tells this replica's sockets what happens, until dropped. Shares, presence and sessions each in their own
/// turn, so that none waits for what another asks of the database.
pub(super) async fn run(core: &Core) {
    tokio::join!(shares(core), presence(core), sessions(core));
}

async fn sessions(core: &Core) {
    let mut events = core.live.events();
    loop {
        match next(&core.metrics, &mut events).await {
            Event::Sessions { user, session } => core.sockets.end_session(&user, session.as_deref()),
            Event::Missed => core.sockets.recheck(),
            _ => {}
        }
    }
}

async fn shares(core: &Core) {
    let mut events = core.live.events();
    let teams = Known::new();
    loop {
        match next(&core.metrics, &mut events).await {
            Event::Share(news) => {
                if let Err(error) = tell_of_share(core, &teams, &news).await {
                    tracing::warn!(%error, "whom a change of a share concerns is not known; nobody is told");
                }
            }
            Event::Teams { .. } | Event::Missed => teams.forget(),
            _ => {}
        }
    }
}

async fn presence(core: &Core) {
    let mut events = core.live.events();
    let related = Known::new();
    loop {
        match next(&core.metrics, &mut events).await {
            Event::Presence { user, online, at } => {
                if let Err(error) = tell_of_presence(core, &related, &user, online, at).await {
                    tracing::warn!(%error, "whom somebody's presence concerns is not known; nobody is told");
                }
            }
            Event::Share(news) => {
                related.0.remove(&news.share.metadata.owner_user_id);
                let policies = [Some(&news.share.metadata.access_policy), news.before.as_ref()];
                for policy in policies.into_iter().flatten() {
                    if let Audience::Users { user_ids } = &policy.audience {
                        user_ids.iter().for_each(|user| drop(related.0.remove(user)));
                    }
                }
            }
            Event::Teams { .. } | Event::Missed => related.forget(),
            _ => {}
        }
    }
}

async fn next(metrics: &Metrics, events: &mut Receiver<Event>) -> Event {
    match events.recv().await {
        Ok(event) => event,
        Err(RecvError::Lagged(count)) => {
            metrics.events_missed.increment(count);
            tracing::warn!(count, "events came faster than they could be told");
            Event::Missed
        }
        Err(RecvError::Closed) => std::future::pending().await,
    }
}

/// Sets of users that were asked of the database.
struct Known(Cache<String, Users, PerUser>);

type Users = Arc<HashSet<String>>;

#[derive(Clone)]
struct PerUser;

impl Weighter<String, Users> for PerUser {
    fn weight(&self, _: &String, users: &Users) -> u64 {
        users.len() as u64 + 1
    }
}

impl Known {
    fn new() -> Self {
        Self(Cache::with_weighter(SETS, REMEMBERED, PerUser))
    }

    fn forget(&self) {
        self.0.clear();
    }
}

/// Whom a policy names.
enum Named {
    Everybody,
    Users(HashSet<String>),
}

impl Named {
    fn has(&self, user: &str) -> bool {
        match self {
            Self::Everybody => true,
            Self::Users(users) => users.contains(user),
        }
    }
}

async fn named(core: &Core, teams: &Known, owner: &str, policy: &AccessPolicy) -> Result<Named, StoreError> {
    let mut users = match &policy.audience {
        Audience::Public => HashSet::new(),
        Audience::Institution { .. } => return Ok(Named::Everybody),
        Audience::Users { user_ids } => user_ids.iter().cloned().collect(),
        Audience::Team { team_id } => HashSet::clone(&*members(core, teams, team_id).await?),
    };
    users.insert(owner.to_owned());
    Ok(Named::Users(users))
}

async fn members(core: &Core, teams: &Known, team: &str) -> Result<Users, StoreError> {
    if let Some(members) = teams.0.get(team) {
        return Ok(members);
    }
    let (mut members, mut after) = (HashSet::new(), None);
    loop {
        let page = core.store.members(team, PageRequest { after, limit: PAGE }).await?;
        members.extend(page.items.into_iter().map(|member| member.user));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let members = Arc::new(members);
    teams.0.insert(team.to_owned(), Arc::clone(&members));
    Ok(members)
}

async fn tell_of_share(core: &Core, teams: &Known, news: &ShareNews) -> Result<(), StoreError> {
    let ShareNews { change, share, before } = news;
    let owner = &share.metadata.owner_user_id;
    let now = named(core, teams, owner, &share.metadata.access_policy).await?;
    let before = match before {
        Some(before) => Some(named(core, teams, owner, before).await?),
        None => None,
    };
    let users = match (&now, &before) {
        (Named::Everybody, _) | (_, Some(Named::Everybody)) => core.sockets.users(),
        (Named::Users(now), None) => now.iter().cloned().collect(),
        (Named::Users(now), Some(Named::Users(before))) => now.union(before).cloned().collect(),
    };
    let mut texts: HashMap<&str, Utf8Bytes> = HashMap::new();
    for user in users.iter().filter(|user| core.sockets.has(user)) {
        let was = before.as_ref().is_none_or(|before| before.has(user));
        let (label, event) = match (change, was, now.has(user)) {
            (_, false, true) => ("published", ShareChange::Published),
            (_, true, false) => ("revoked", ShareChange::Revoked),
            (change, ..) => ("as it is", *change),
        };
        let text = texts.entry(label).or_insert_with(|| share_event(event, share));
        core.metrics.events[Pushed::Share].increment(core.sockets.tell(user, text));
    }
    Ok(())
}

async fn tell_of_presence(
    core: &Core,
    related: &Known,
    user: &str,
    online: bool,
    at: Timestamp,
) -> Result<(), StoreError> {
    let others = match related.0.get(user) {
        Some(others) => others,
        None => {
            let others = core.store.related(user, core.now(), MOST_RELATED).await?;
            let others = Arc::new(others.into_iter().collect::<HashSet<_>>());
            related.0.insert(user.to_owned(), Arc::clone(&others));
            others
        }
    };
    let event = PresenceEvent { user_id: user.to_owned(), online, last_seen: at };
    let text = json(&ServerMessage::PresenceEvent(event));
    for other in others.iter().filter(|other| *other != user) {
        core.metrics.events[Pushed::Presence].increment(core.sockets.tell(other, &text));
    }
    Ok(())
}

fn share_event(event: ShareChange, share: &ShareSummary) -> Utf8Bytes {
    json(&ServerMessage::ShareEvent(ShareEvent { event, share: share.clone() }))
}

fn json(message: &ServerMessage) -> Utf8Bytes {
    // Nothing in the messages can fail to be written as JSON.
    serde_json::to_string(message).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use culvert_service_kit::metric_set::Registry;
    use tokio::sync::broadcast;

    use super::*;

    #[tokio::test]
    async fn events_that_came_too_fast_are_counted_and_said_to_be_missed() {
        let registry = Registry::new();
        let metrics = Metrics::register(registry.recorder());
        let (sender, mut events) = broadcast::channel(1);
        for _ in 0..3 {
            sender.send(Event::Keys).unwrap();
        }
        assert_eq!(next(&metrics, &mut events).await, Event::Missed);
        assert_eq!(next(&metrics, &mut events).await, Event::Keys);
        assert!(
            registry.render().contains("culvert_broker_events_missed_total 2\n"),
            "{}",
            registry.render()
        );
    }
}

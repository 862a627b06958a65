//! Tickets for the relays, and what ends them early.
//!
//! A ticket is bound to a key that only its holder can use, and opens topics by their ids. A topic id is 32
//! random bytes that no list shows: whoever can name one was told it, by its owner or with a share. So a
//! user may name any topics, at most [`topics_per_ticket`](crate::config::Limits::topics_per_ticket), or
//! shares instead, which adds the topics where their owners wait; only administrators get every topic.

use culvert_broker_wire::{ErrorCode, Permission, Timestamp};
use culvert_relay::admission::Revoked;
use culvert_wire::ticket::{AUDIENCE, TicketClaims, TicketLimits, Topics};
use culvert_wire::{PeerId, TopicId};
use serde_json::json;

use super::{audit, check, shares};
use crate::core::{Caller, Core, Refusal};
use crate::live::LiveError;
use crate::live::memory::NoRelay;
use crate::store::{Access, AuditAction, AuditFilter, AuditRecord, Outcome, PageRequest, Role};

/// How long a ticket lasts unless asked for otherwise, in seconds.
const USUAL_LIFE: u64 = 3600;
/// Things revoked in one request.
pub const MAX_REVOKED: usize = 256;

/// Bytes of a ticket's id at most; those of this broker have 32.
const MAX_TICKET_ID: usize = 128;

/// What a ticket is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The key it is bound to.
    pub peer: PeerId,
    /// The topics it opens.
    pub topics: Topics,
    /// Shares whose owners' topics it opens as well.
    pub shares: Vec<String>,
    /// How long it lasts, in seconds.
    pub lifetime: Option<u64>,
    /// Limits narrower than the relay's own.
    pub limits: TicketLimits,
}

/// A ticket that was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// For the relay.
    pub ticket: String,
    /// What it claims.
    pub claims: TicketClaims,
}

/// Signs a ticket for a key of the caller's.
///
/// # Errors
/// `FORBIDDEN` if the key is bound to somebody else, or every topic is asked for by a user;
/// `INVALID_INPUT`; `SHARE_NOT_FOUND` if the caller may not download one of the shares.
pub async fn issue(core: &Core, caller: &Caller, wanted: Wanted) -> Result<Ticket, Refusal> {
    let action = AuditAction::TicketIssued;
    let subject = wanted.peer.to_string();
    if caller.device != Some(wanted.peer)
        && core.store.user_of_device(&wanted.peer).await?.is_some_and(|user| user.id != caller.user)
    {
        let detail = json!({ "reason": "key of another user" });
        audit::denied(core, Some(caller), caller.visitor, action, Some(&subject), detail).await;
        return Err(Refusal::new(ErrorCode::Forbidden, "this key is bound to another user"));
    }
    let topics = topics(core, caller, wanted.topics, &wanted.shares).await?;
    let longest = core.config.timing.ticket.as_secs();
    let life = wanted.lifetime.unwrap_or(USUAL_LIFE.min(longest));
    if !(1..=longest).contains(&life) {
        let text = format!("`lifetime_seconds` must be from 1 to {longest}");
        return Err(Refusal::new(ErrorCode::InvalidInput, text));
    }
    let iat = core.now().unix_seconds();
    let claims = TicketClaims {
        aud: AUDIENCE.to_owned(),
        sub: wanted.peer,
        tenant: core.config.tenant.clone(),
        topics,
        limits: wanted.limits,
        invites: 0,
        iat,
        exp: iat.saturating_add(life),
        jti: shares::random_id(),
    };
    let ticket = core.keys.ticket(&claims)?;
    let detail = json!({ "peer": subject, "exp": claims.exp, "topics": count(&claims.topics) });
    audit::done(core, caller, action, &claims.jti, detail).await?;
    Ok(Ticket { ticket, claims })
}

/// Revokes tickets and keys at every relay: anybody's by administrators, one's own by users.
///
/// # Errors
/// `FORBIDDEN` if one of them is not the caller's; `INVALID_INPUT`; `CONFLICT` if this broker reaches no relay,
/// having neither Redis nor one in its process; `UNAVAILABLE` if the relays may not have
/// been told, though it is written down and they will be.
pub async fn revoke(core: &Core, caller: &Caller, revoked: Vec<Revoked>) -> Result<Timestamp, Refusal> {
    if !(1..=MAX_REVOKED).contains(&revoked.len()) {
        let text = format!("name 1 to {MAX_REVOKED} tickets and keys");
        return Err(Refusal::new(ErrorCode::InvalidInput, text));
    }
    for one in &revoked {
        if let Revoked::Ticket(id) = one {
            check::id("tickets", id, MAX_TICKET_ID)?;
        }
    }
    if caller.role != Role::Admin {
        for one in &revoked {
            if !is_own(core, caller, one).await? {
                let action = AuditAction::TicketRevoked;
                let subject = subject(one);
                audit::denied(core, Some(caller), caller.visitor, action, Some(&subject), json!({})).await;
                let text = "you may revoke your own tickets and devices only";
                return Err(Refusal::new(ErrorCode::Forbidden, text));
            }
        }
    }
    revoke_now(core, caller, &revoked).await
}

/// Revokes without asking whose they are: for a device that its owner removed. Gives until when.
///
/// It is written down first: [`restore`] tells the relays again whatever happens to Redis.
///
/// # Errors
/// As [`revoke`].
pub async fn revoke_now(core: &Core, caller: &Caller, revoked: &[Revoked]) -> Result<Timestamp, Refusal> {
    let until = core.now().unix_seconds().saturating_add(core.config.timing.ticket.as_secs());
    for one in revoked {
        let detail = json!({ "until": until });
        audit::done(core, caller, AuditAction::TicketRevoked, &subject(one), detail).await?;
    }
    core.live.revoke(revoked, until).await.map_err(|error| {
        if matches!(&error, LiveError::Unavailable(source) if source.is::<NoRelay>()) {
            let text = "this broker reaches no relay to revoke anything at; give it the Redis of the relays";
            return Refusal::new(ErrorCode::Conflict, text);
        }
        error.into()
    })?;
    Ok(Timestamp::from_unix_seconds(until))
}

/// Tells the relays again what is revoked: what Redis knows does not last, the audit log does.
///
/// # Errors
/// One of the stores is not available.
pub async fn restore(core: &Core) -> Result<usize, Refusal> {
    let now = core.now().unix_seconds();
    let since = Timestamp::from_unix_seconds(now.saturating_sub(core.config.timing.ticket.as_secs()));
    let action = Some(AuditAction::TicketRevoked);
    let filter = AuditFilter { action, since: Some(since), ..AuditFilter::default() };
    let mut page = PageRequest { after: None, limit: super::MAX_PAGE };
    let mut count = 0;
    loop {
        let found = core.store.entries(filter.clone(), page).await?;
        for (revoked, until) in found.items.iter().filter_map(|entry| read(&entry.record)) {
            if until > now {
                core.live.revoke(&[revoked], until).await?;
                count += 1;
            }
        }
        let Some(next) = found.next else { return Ok(count) };
        page = PageRequest { after: Some(next), limit: super::MAX_PAGE };
    }
}

/// The topics that a ticket may open.
async fn topics(core: &Core, caller: &Caller, named: Topics, shares: &[String]) -> Result<Topics, Refusal> {
    let mut topics = match named {
        Topics::All => {
            super::admins_only(core, caller, AuditAction::TicketIssued).await?;
            return Ok(Topics::All);
        }
        Topics::Only(topics) => topics,
    };
    let most = core.config.limits.topics_per_ticket;
    let too_many = || Refusal::new(ErrorCode::InvalidInput, format!("a ticket opens at most {most} topics"));
    if topics.len().saturating_add(shares.len()) > most {
        return Err(too_many());
    }
    for token in shares {
        topics.extend(topics_of(core, caller, token).await?);
    }
    topics.sort_unstable();
    topics.dedup();
    if topics.is_empty() {
        let text = "name topics, or shares whose owners are reachable through a relay now";
        return Err(Refusal::new(ErrorCode::InvalidInput, text));
    }
    if topics.len() > most { Err(too_many()) } else { Ok(Topics::Only(topics)) }
}

/// Where the owner of a share waits, for those who may download it.
async fn topics_of(core: &Core, caller: &Caller, token: &str) -> Result<Vec<TopicId>, Refusal> {
    let token = check::known_token(token)?;
    let share = match core.store.look_up(&token.hash(), Some(&caller.user), core.now()).await? {
        Some(Access::Owner(share)) => share,
        Some(Access::Granted(share)) if share.policy.permissions.contains(&Permission::Download) => share,
        _ => return Err(shares::not_found()),
    };
    let presences = core.live.presences(&share.owner).await?;
    Ok(presences.into_iter().filter_map(|presence| presence.relay.map(|relay| relay.topic)).collect())
}

async fn is_own(core: &Core, caller: &Caller, revoked: &Revoked) -> Result<bool, Refusal> {
    match revoked {
        Revoked::Ticket(id) => {
            let filter = AuditFilter {
                actor: Some(caller.user.clone()),
                action: Some(AuditAction::TicketIssued),
                subject: Some(id.clone()),
                since: None,
            };
            let issued = core.store.entries(filter, PageRequest { after: None, limit: 1 }).await?;
            Ok(issued.items.iter().any(|entry| entry.record.outcome == Outcome::Done))
        }
        Revoked::Peer(peer) => {
            let bound = core.store.user_of_device(peer).await?;
            Ok(caller.device == Some(*peer) || bound.is_some_and(|user| user.id == caller.user))
        }
    }
}

fn count(topics: &Topics) -> serde_json::Value {
    match topics {
        Topics::All => "*".into(),
        Topics::Only(topics) => topics.len().into(),
    }
}

/// How the audit log names it.
pub(crate) fn subject(revoked: &Revoked) -> String {
    match revoked {
        Revoked::Ticket(id) => format!("ticket {id}"),
        Revoked::Peer(peer) => format!("peer {peer}"),
    }
}

/// What [`revoke_now`] wrote down.
fn read(record: &AuditRecord) -> Option<(Revoked, u64)> {
    if record.outcome != Outcome::Done {
        return None;
    }
    let (kind, id) = record.subject.as_deref()?.split_once(' ')?;
    let revoked = match kind {
        "ticket" => Revoked::Ticket(id.to_owned()),
        "peer" => Revoked::Peer(id.parse().ok()?),
        _ => return None,
    };
    Some((revoked, record.detail.get("until")?.as_u64()?))
}

//! Sessions: what a login gives out, so that the next request need not prove everything again.
//!
//! A token is `cst_` and 32 random bytes; only its SHA-256 is stored. A session that was read from the
//! database holds for [`FRESH`] without asking again, so that a look-up of a share does not pay for a second
//! round trip. What ends a session is told to every replica, and every replica applies what it was told
//! before it believes its memory: a session that ended is over everywhere as soon as the others heard.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};
use axum::http::header::AUTHORIZATION;
use culvert_broker_wire::auth::SESSION_PREFIX;
use culvert_broker_wire::login::SessionGiven;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;

use super::guesses::Guess;
use super::{Entrance, Presented, Provider, wrong};
use crate::core::{Caller, Core, Refusal, Visitor};
use crate::live::{Event, Live};
use crate::store::{Session, SessionUser};

/// How long a session that was read from the database is believed without asking again.
const FRESH: Duration = Duration::from_secs(10);
/// Sessions remembered; about 200 bytes each.
const REMEMBERED: usize = 16_384;
/// Characters of a token.
const TOKEN_CHARS: usize = SESSION_PREFIX.len() + 43;

/// Knows sessions, and remembers those it saw lately.
pub(super) struct Memory {
    known: Cache<[u8; 32], Known>,
    heard: Mutex<Heard>,
}

#[derive(Clone)]
struct Known {
    user: SessionUser,
    read_at: Instant,
}

struct Heard {
    events: Receiver<Event>,
    /// Counts what may have ended a session: what was read before must not be remembered after.
    endings: u64,
}

impl Memory {
    pub(super) fn new(live: &dyn Live) -> Self {
        let heard = Heard { events: live.events(), endings: 0 };
        Self { known: Cache::new(REMEMBERED), heard: Mutex::new(heard) }
    }

    /// Forgets what the other replicas said is over; gives a number that changes whenever something was.
    fn listen(&self) -> u64 {
        let mut heard = self.heard.lock();
        loop {
            match heard.events.try_recv() {
                Ok(Event::Sessions { user, session }) => {
                    heard.endings += 1;
                    self.forget(&user, session.as_deref());
                }
                Ok(Event::Missed) | Err(TryRecvError::Lagged(_)) => {
                    heard.endings += 1;
                    self.known.clear();
                }
                Ok(_) => {}
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Closed) => {
                    // Nobody will say what ends from now on, so nothing is believed.
                    heard.endings += 1;
                    self.known.clear();
                    break;
                }
            }
        }
        heard.endings
    }

    /// Forgets one session (its hash in hexadecimal), or all of the user.
    fn forget(&self, user: &str, session: Option<&str>) {
        let hash = session.and_then(|text| HEXLOWER.decode(text.as_bytes()).ok());
        match hash.and_then(|hash| <[u8; 32]>::try_from(hash).ok()) {
            Some(hash) => drop(self.known.remove(&hash)),
            None => self.known.retain(|_, known| known.user.session.user != user),
        }
    }

    /// The session that somebody presents a token for, if it holds. One that is not remembered costs a look
    /// into the database, and one source may cause only so many that were for nothing.
    async fn presented(
        &self,
        core: &Core,
        visitor: Visitor,
        hash: &[u8; 32],
    ) -> Result<Option<SessionUser>, Refusal> {
        if self.known.peek(hash).is_some() {
            return self.find(core, hash).await;
        }
        let proof = Guess::with_proof(core, visitor);
        proof.charge(core).await?;
        let found = self.find(core, hash).await?;
        if found.is_some() {
            proof.give_back(core).await;
        }
        Ok(found)
    }

    /// The session with this hash, if it holds.
    pub(super) async fn find(&self, core: &Core, hash: &[u8; 32]) -> Result<Option<SessionUser>, Refusal> {
        let endings = self.listen();
        let now = core.clock.now();
        if let Some(known) = self.known.get(hash)
            && now.saturating_duration_since(known.read_at) < FRESH
        {
            return Ok((known.user.session.expires_at > core.now()).then_some(known.user));
        }
        let found = core.store.session(hash, core.now()).await?;
        match &found {
            // Nothing ended while the database was asked, as far as anybody said.
            Some(user) if self.listen() == endings => {
                self.known.insert(*hash, Known { user: user.clone(), read_at: now });
            }
            _ => drop(self.known.remove(hash)),
        }
        Ok(found)
    }

    /// Something of this user ended: here at once, and everywhere else as soon as they hear it.
    pub(super) async fn ended(&self, core: &Core, user: &str, session: Option<&[u8; 32]>) {
        let session = session.map(|hash| HEXLOWER.encode(hash));
        {
            let mut heard = self.heard.lock();
            heard.endings += 1;
            self.forget(user, session.as_deref());
        }
        let event = Event::Sessions { user: user.to_owned(), session };
        if let Err(error) = core.live.publish(&event).await {
            tracing::warn!(%error, "other replicas believe an ended session for up to {FRESH:?}");
        }
    }
}

/// Gives a session to somebody who proved who they are.
pub(super) async fn give(core: &Core, caller: &Caller) -> Result<SessionGiven, Refusal> {
    let mut secret = [0; 32];
    rand::fill(&mut secret);
    let session_token = format!("{SESSION_PREFIX}{}", BASE64URL_NOPAD.encode(&secret));
    let (now, lasts) = (core.now(), core.config.timing.session.as_secs());
    let session = Session {
        hash: hash(&session_token),
        user: caller.user.clone(),
        device: caller.device,
        way: caller.way,
        created_at: now,
        expires_at: culvert_broker_wire::Timestamp::from_unix_seconds(now.unix_seconds() + lasts),
    };
    core.store.create_session(session).await?;
    Ok(SessionGiven { session_token, user_id: caller.user.clone(), expires_in_seconds: lasts })
}

fn hash(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

/// By a session's token: `Authorization: Bearer …`, or `session_token` in a message.
pub(super) struct Tokens;

#[async_trait]
impl Provider for Tokens {
    fn entrance(&self) -> Entrance {
        Entrance::Session
    }

    async fn identify(
        &self,
        core: &Core,
        visitor: Visitor,
        presented: &Presented<'_>,
    ) -> Result<Option<Caller>, Refusal> {
        let token = match presented {
            Presented::Token(token) => token,
            Presented::Request { headers, .. } => {
                let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
                let (scheme, token) =
                    value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(wrong)?;
                if !scheme.eq_ignore_ascii_case("bearer") {
                    return Err(wrong());
                }
                token.trim()
            }
            _ => return Ok(None),
        };
        if token.len() != TOKEN_CHARS || !token.starts_with(SESSION_PREFIX) {
            return Err(wrong());
        }
        let found = core.identity.sessions.presented(core, visitor, &hash(token)).await?.ok_or_else(wrong)?;
        let SessionUser { session, role } = found;
        let Session { hash, user, device, way, .. } = session;
        Ok(Some(Caller { user, role, way, device, session: Some(hash), api_key: None, visitor }))
    }
}

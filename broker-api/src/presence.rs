//! Who of this replica's users is online, kept known to all replicas.
//!
//! A connection is entered when its user registers and removed when it ends. In between it lives for the
//! heartbeat timeout and is renewed here, well before that, in batches: a heartbeat of a client costs
//! nothing but its answer. If this replica dies, the others find what it entered once its time is over. If
//! Redis comes back empty, everybody here is entered again at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use culvert_broker_wire::Timestamp;
use parking_lot::Mutex;
use tokio::sync::broadcast::Receiver;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::core::Core;
use crate::live::{Change, Event, LiveError, Presence};

/// How often connections whose time is over are looked for. With it, a user of a dead replica is offline
/// everywhere at most this long after their time.
const SWEEP: Duration = Duration::from_secs(1);

/// The connections of this replica whose users are online.
#[derive(Default)]
pub struct Keeper {
    here: Mutex<HashMap<String, Presence>>,
    /// Those that ended while Redis did not answer, with their users: removed once it does.
    leaving: Mutex<HashMap<String, String>>,
}

impl Keeper {
    /// Enters a connection, or changes what is known of it.
    ///
    /// # Errors
    /// Redis does not answer; the user is not online.
    pub async fn arrive(&self, core: &Core, presence: Presence) -> Result<(), LiveError> {
        let connection = presence.connection.clone();
        self.here.lock().insert(connection.clone(), presence.clone());
        let arrived = core.live.arrive(&presence, ttl(core), core.now()).await;
        if arrived.is_err() {
            self.here.lock().remove(&connection);
            // It may have been entered before the answer was lost.
            self.leaving.lock().insert(connection, presence.user);
        }
        arrived.map(drop)
    }

    /// Removes a connection; if Redis does not answer, as soon as it does.
    pub async fn leave(&self, core: &Core, connection: &str) {
        let Some(presence) = self.here.lock().remove(connection) else { return };
        let now = core.now();
        match core.live.depart(&presence.user, connection, now).await {
            Ok(Change::Turned) => note_seen(core, &presence.user, now).await,
            Ok(Change::Same) => {}
            Err(error) => {
                tracing::debug!(%error, "a connection could not be removed; it is later");
                self.leaving.lock().insert(connection.to_owned(), presence.user);
            }
        }
    }

    /// Renews and sweeps, until dropped.
    pub(crate) async fn run(&self, core: &Arc<Core>) {
        let mut events = core.live.events();
        let (sweep, renewal) = (SWEEP.min(ttl(core) / 4), ttl(core) / 3);
        let mut ticks = interval(sweep);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut renewed, mut failing) = (Instant::now(), false);
        loop {
            let missed = tokio::select! {
                _ = ticks.tick() => false,
                () = missed(&mut events) => true,
            };
            let renew = missed || renewed.elapsed() >= renewal;
            match self.turn(core, renew).await {
                Ok(()) => {
                    if renew {
                        renewed = Instant::now();
                    }
                    if std::mem::take(&mut failing) {
                        tracing::info!("presence is kept again");
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "presence cannot be kept; trying again");
                    }
                    if missed {
                        // Whoever was lost is entered as soon as it can be.
                        renewed = Instant::now().checked_sub(renewal).unwrap_or(renewed);
                    }
                }
            }
        }
    }

    async fn turn(&self, core: &Core, renew: bool) -> Result<(), LiveError> {
        self.let_go(core).await?;
        if renew {
            self.renew(core).await?;
        }
        let now = core.now();
        for user in core.live.sweep(now).await? {
            note_seen(core, &user, now).await;
        }
        Ok(())
    }

    async fn renew(&self, core: &Core) -> Result<(), LiveError> {
        let presences: Vec<Presence> = self.here.lock().values().cloned().collect();
        let renewed = core.live.renew(&presences, ttl(core), core.now()).await;
        // Those that left meanwhile may have been entered again behind their departure.
        let here = self.here.lock();
        let gone = presences.into_iter().filter(|presence| !here.contains_key(&presence.connection));
        self.leaving.lock().extend(gone.map(|presence| (presence.connection, presence.user)));
        renewed
    }

    /// Removes what could not be removed before.
    async fn let_go(&self, core: &Core) -> Result<(), LiveError> {
        let leaving: Vec<(String, String)> = self.leaving.lock().clone().into_iter().collect();
        for (connection, user) in leaving {
            let is_back = self.here.lock().contains_key(&connection);
            let now = core.now();
            if !is_back && core.live.depart(&user, &connection, now).await? == Change::Turned {
                note_seen(core, &user, now).await;
            }
            self.leaving.lock().remove(&connection);
        }
        Ok(())
    }
}

/// How long a connection lives without renewal.
fn ttl(core: &Core) -> Duration {
    core.config.timing.heartbeat_timeout
}

/// Completes when events were missed, so that everything may have been lost.
async fn missed(events: &mut Receiver<Event>) {
    use tokio::sync::broadcast::error::RecvError;
    loop {
        match events.recv().await {
            Ok(Event::Missed) => return,
            // Of the others nothing concerns presence; falling behind them loses none.
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Notes when a user was last online. It is for people to read; nothing is refused for want of it.
async fn note_seen(core: &Core, user: &str, at: Timestamp) {
    if let Err(error) = core.store.seen(user, at).await {
        tracing::debug!(%error, "when a user was last seen is not noted");
    }
}

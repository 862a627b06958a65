//! Where look-ups are gathered: those that come at about the same time cost one question to the database and
//! one to presence.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use culvert_broker_wire::Timestamp;
use culvert_service_kit::Clock;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::batches::{Batches, Waiting};
use crate::core::Refusal;
use crate::live::{Live, Presence};
use crate::store::{Access, LookUp, Store};

/// Look-ups of one statement.
const MOST: usize = 64;
/// From the start of a batch to that of the next: what a look-up among many may wait. Those that are answered
/// together are written down together as well.
const REST: Duration = Duration::from_millis(5);
/// Batches under way at once: one that waits for a lame connection does not hold up the others.
const AT_ONCE: usize = 4;

/// What a look-up found, and where the share's owner is, as far as the viewer may use it.
pub(super) type Found = Option<(Access, Vec<Presence>)>;

type Asked = Waiting<LookUp, Result<Found, Refusal>>;

/// Answers look-ups.
pub struct Desk(Batches<LookUp, Result<Found, Refusal>>);

impl Desk {
    /// Over these stores; within a runtime.
    pub fn open(store: Arc<dyn Store>, live: Arc<dyn Live>, clock: Clock) -> Self {
        let (room, under_way) = (Arc::new(Semaphore::new(AT_ONCE)), TaskTracker::new());
        Self(Batches::start(MOST, REST, move |batch| {
            let (store, live, room) = (store.clone(), live.clone(), room.clone());
            let under_way = under_way.clone();
            let now = Timestamp::from_unix_seconds(clock.unix_seconds());
            async move {
                let room = room.acquire_owned().await;
                under_way.spawn(async move {
                    let _room = room;
                    answer(store.as_ref(), live.as_ref(), batch, now).await;
                });
            }
        }))
    }

    /// Completes if nothing is looked up any more. Cancel safe.
    pub async fn closed(&self) {
        self.0.ended().await;
    }

    /// Looks up.
    ///
    /// # Errors
    /// A store is not available.
    pub(super) async fn look_up(&self, look_up: LookUp) -> Result<Found, Refusal> {
        self.0.ask(look_up).await.unwrap_or_else(|| Err(Refusal::unavailable()))
    }
}

async fn answer(store: &dyn Store, live: &dyn Live, batch: Vec<Asked>, now: Timestamp) {
    let (look_ups, askers): (Vec<LookUp>, Vec<_>) = batch.into_iter().unzip();
    match find(store, live, &look_ups, now).await {
        Ok(found) => askers.into_iter().zip(found).for_each(|(asker, found)| asker.answer(Ok(found))),
        Err(refusal) => askers.into_iter().for_each(|asker| asker.answer(Err(refusal.clone()))),
    }
}

async fn find(
    store: &dyn Store,
    live: &dyn Live,
    look_ups: &[LookUp],
    now: Timestamp,
) -> Result<Vec<Found>, Refusal> {
    let found = store.look_up_all(look_ups, now).await?;
    // Each owner once; those of shares that nobody here may use are not asked for.
    let mut owners: BTreeMap<String, Vec<Presence>> = BTreeMap::new();
    for access in found.iter().flatten() {
        if let Access::Owner(share) | Access::Granted(share) = access
            && !owners.contains_key(&share.owner)
        {
            owners.insert(share.owner.clone(), Vec::new());
        }
    }
    let users: Vec<&str> = owners.keys().map(String::as_str).collect();
    let presences = live.presences_of(&users).await?;
    owners.values_mut().zip(presences).for_each(|(of_owner, presences)| *of_owner = presences);
    let with_presences = |access: Access| {
        let presences = match &access {
            Access::Owner(share) | Access::Granted(share) => owners.get(&share.owner).cloned(),
            Access::Denied(_) => None,
        };
        (access, presences.unwrap_or_default())
    };
    Ok(found.into_iter().map(|access| access.map(with_presences)).collect())
}

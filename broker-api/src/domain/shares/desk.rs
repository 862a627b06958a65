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
use crate::live::{Live, LiveError, Presence};
use crate::store::{Access, LookUp, Store, StoreError};

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
pub struct Desk {
    batches: Batches<LookUp, Result<Found, Refusal>>,
    under_way: TaskTracker,
}

impl Desk {
    /// Over these stores; within a runtime.
    pub fn open(store: Arc<dyn Store>, live: Arc<dyn Live>, clock: Clock) -> Self {
        let (room, under_way) = (Arc::new(Semaphore::new(AT_ONCE)), TaskTracker::new());
        let tasks = under_way.clone();
        let batches = Batches::start(MOST, REST, move |batch| {
            let (store, live, clock) = (store.clone(), live.clone(), clock.clone());
            let (room, tasks) = (room.clone(), tasks.clone());
            async move {
                let room = room.acquire_owned().await;
                tasks.spawn(async move {
                    let _room = room;
                    // Not before there was room: what has expired meanwhile has expired.
                    let now = Timestamp::from_unix_seconds(clock.unix_seconds());
                    answer(store.as_ref(), live.as_ref(), batch, now).await;
                });
            }
        });
        Self { batches, under_way }
    }

    /// Waits until everything that was asked is answered.
    pub async fn close(self) {
        let Self { batches, under_way } = self;
        batches.close().await;
        under_way.close();
        under_way.wait().await;
    }

    /// Completes if nothing is looked up any more. Cancel safe.
    pub async fn closed(&self) {
        self.batches.ended().await;
    }

    /// Looks up.
    ///
    /// # Errors
    /// A store is not available.
    pub(super) async fn look_up(&self, look_up: LookUp) -> Result<Found, Refusal> {
        self.batches.ask(look_up).await.unwrap_or_else(|| Err(Refusal::unavailable()))
    }
}

/// Why a batch was not answered.
#[derive(Debug)]
enum Fault {
    Store(StoreError),
    Live(LiveError),
}

impl Fault {
    /// Whether it may be that of one look-up: a row that cannot be read, a key that holds something else. A
    /// store that is away is so for all of them, and asking it more often would not bring it back.
    fn may_be_of_one(&self) -> bool {
        match self {
            Self::Store(error) => !matches!(error, StoreError::Unavailable(_)),
            Self::Live(error) => !matches!(error, LiveError::Unavailable(_)),
        }
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<LiveError> for Fault {
    fn from(error: LiveError) -> Self {
        Self::Live(error)
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Store(error) => error.into(),
            Fault::Live(error) => error.into(),
        }
    }
}

/// Answers a batch. One that fails because of what it asks for is asked again in halves, until those that are
/// all right have their answers.
async fn answer(store: &dyn Store, live: &dyn Live, batch: Vec<Asked>, now: Timestamp) {
    let (look_ups, askers): (Vec<LookUp>, Vec<_>) = batch.into_iter().unzip();
    let mut parts = vec![(look_ups, askers)];
    while let Some((mut look_ups, mut askers)) = parts.pop() {
        match find(store, live, &look_ups, now).await {
            Ok(found) => askers.into_iter().zip(found).for_each(|(asker, found)| asker.answer(Ok(found))),
            Err(fault) if look_ups.len() > 1 && fault.may_be_of_one() => {
                let half = look_ups.len() / 2;
                parts.push((look_ups.split_off(half), askers.split_off(half)));
                parts.push((look_ups, askers));
            }
            Err(fault) => {
                let refusal = Refusal::from(fault);
                askers.into_iter().for_each(|asker| asker.answer(Err(refusal.clone())));
            }
        }
    }
}

async fn find(
    store: &dyn Store,
    live: &dyn Live,
    look_ups: &[LookUp],
    now: Timestamp,
) -> Result<Vec<Found>, Fault> {
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

//! What the dead leave behind: here in the roster, and in the registry.

use culvert_wire::NodeId;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::{Chore, Membership};
use crate::bus::redis::incarnation::Incarnation;
use crate::bus::redis::lease::{chain, tick};
use crate::bus::redis::registry::RegistryError;
use crate::bus::redis::registry::sweep::{Swept, sweep};
use crate::bus::redis::roster::{Known, Roster};

/// A process that had more terms than this has swept all but the last of them.
const TERMS: u32 = 64;

impl Membership {
    /// Does the chores until dropped.
    pub(super) async fn keep(&self) {
        loop {
            let chores = std::mem::take(&mut *self.chores.lock());
            if chores.is_empty() {
                self.chore.notified().await;
                continue;
            }
            for chore in chores {
                match chore {
                    Chore::Gone(node, life) => self.bury(node, life).await,
                    Chore::Resynced(node) => self.settle(node).await,
                }
            }
        }
    }

    /// The members of a node that ended are gone.
    async fn bury(&self, node: NodeId, life: Incarnation) {
        // It may have come back since, under a higher term, and have announced members again.
        let ended = move |known: &Known| {
            known.life.instance == 0 || (known.life.instance == life.instance && known.life.term <= life.term)
        };
        let back = self.lease.table().get(node).is_some();
        self.remove(node, !back, ended).await;
    }

    /// A node has announced all that it has: what it registered before and did not announce is gone.
    async fn settle(&self, node: NodeId) {
        // Its raised term may not have been seen yet. Without an answer, less is known to be stale.
        self.lease.refresh().await;
        let Some(now) = self.lease.table().get(node).map(|lease| lease.incarnation) else { return };
        let stale = move |known: &Known| {
            !known.announced && (known.life.instance != now.instance || known.life.term < now.term)
        };
        self.remove(node, false, stale).await;
    }

    async fn remove(&self, node: NodeId, all: bool, stale: impl Fn(&Known) -> bool) {
        for part in 0..Roster::PARTS {
            for (topic, member) in self.roster.remove(part, node, all, &stale) {
                self.inbox.departed(topic, member);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Sweeps until dropped.
    pub(super) async fn sweep(&self) {
        loop {
            // At random, so that it is not always the same node that gets the lock.
            let pause = self.lease_time.mul_f64(rand::random_range(0.1..0.3));
            sleep(pause).await;
            if !self.lease.is_valid() {
                continue;
            }
            let result = async {
                self.sweep_dead().await?;
                self.sweep_own().await
            };
            if let Err(error) = result.await {
                warn!(error = chain(&error), "what dead nodes registered could not be swept yet");
            }
        }
    }

    /// What is registered under expired leases, and then those leases.
    async fn sweep_dead(&self) -> Result<(), RegistryError> {
        let dead: Vec<_> = self.lease.table().dead().map(|(node, lease)| (node, lease.clone())).collect();
        for (node, lease) in dead {
            let life = lease.incarnation;
            let mut all = true;
            for term in terms(lease.about.unswept, life.term) {
                all &= self.sweep_one(node, Incarnation { term, ..life }).await? == Swept::Done;
            }
            let bury = async {
                tick::bury(&mut self.reach.ask().await?, self.reach.keys(), node, life)
                    .await
                    .map_err(RegistryError::from)
            };
            if all && timeout(self.timeout, bury).await.unwrap_or(Ok(false))? {
                info!(%node, %life, "a dead node is swept and its number free");
            }
        }
        Ok(())
    }

    /// What this process registered under earlier terms, and under numbers that it lost.
    async fn sweep_own(&self) -> Result<(), RegistryError> {
        let former = std::mem::take(&mut *self.former.lock());
        for (position, (node, life)) in former.iter().enumerate() {
            for term in terms(1, life.term) {
                if let Err(error) = self.sweep_one(*node, Incarnation { term, ..*life }).await {
                    self.former.lock().extend(&former[position..]);
                    return Err(error);
                }
            }
        }
        let Some((node, life)) = *self.own.borrow() else { return Ok(()) };
        let unswept = self.lease.unswept();
        if unswept < life.term && self.is_complete() {
            let mut all = true;
            for term in terms(unswept, life.term - 1) {
                all &= self.sweep_one(node, Incarnation { term, ..life }).await? == Swept::Done;
            }
            if all {
                self.lease.swept(life);
            }
        }
        Ok(())
    }

    async fn sweep_one(&self, node: NodeId, life: Incarnation) -> Result<Swept, RegistryError> {
        sweep(&self.reach, node, life, |removed| self.metrics.swept.increment(removed)).await
    }
}

fn terms(from: u32, to: u32) -> std::ops::RangeInclusive<u32> {
    from.max(to.saturating_sub(TERMS - 1)).max(1)..=to
}

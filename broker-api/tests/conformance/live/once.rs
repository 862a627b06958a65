//! What happens once: values that are taken, nonces.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use culvert_broker_api::live::{Horizon, LiveError};
use futures_util::future::join_all;

use super::stage::{START, Stage, TTL, eventually};

/// Says a horizon, and counts how often it was asked.
pub(super) struct Known {
    at: u64,
    pub(super) asked: AtomicU32,
}

impl Known {
    pub(super) fn at(at: u64) -> Self {
        Self { at, asked: AtomicU32::new(0) }
    }
}

#[async_trait]
impl Horizon for Known {
    async fn horizon(&self) -> Result<u64, LiveError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(self.at)
    }
}

pub(super) async fn a_value_is_kept_while_it_is_free_and_taken_once(stage: &mut Stage) {
    assert_eq!(stage.first().take("k").await.unwrap(), None);
    assert!(stage.first().keep("k", b"one\0\xff", TTL).await.unwrap());
    assert!(!stage.last().keep("k", b"two", TTL).await.unwrap());
    let takers = (0..8).map(|turn| &stage.replicas[turn % stage.replicas.len()]);
    let taken = join_all(takers.map(|live| live.take("k"))).await;
    let taken: Vec<_> = taken.into_iter().filter_map(Result::unwrap).collect();
    assert_eq!(taken, [b"one\0\xff".to_vec()]);
    assert!(stage.last().keep("k", b"two", TTL).await.unwrap());
}

pub(super) async fn a_kept_value_ends_with_its_time(stage: &mut Stage) {
    let short = Duration::from_millis(20);
    assert!(stage.first().keep("k", b"one", short).await.unwrap());
    // Redis goes by its own clock, memory by the stage's.
    stage.clock.advance(short);
    let live = stage.last();
    eventually("the key is never free", async || live.keep("k", b"two", TTL).await.unwrap().then_some(()))
        .await;
    assert_eq!(stage.first().take("k").await.unwrap(), Some(b"two".to_vec()));
}

pub(super) async fn a_nonce_is_new_once_wherever_it_is_used(stage: &mut Stage) {
    let horizon = Known::at(0);
    let uses = (0..8).map(|turn| &stage.replicas[turn % stage.replicas.len()]);
    let new = join_all(uses.map(|live| live.nonce("n", START, TTL, &horizon))).await;
    assert_eq!(new.into_iter().filter(|new| *new.as_ref().unwrap()).count(), 1);
    assert!(stage.last().nonce("m", START, TTL, &horizon).await.unwrap());
    assert!(!stage.first().nonce("m", START + 1, TTL, &horizon).await.unwrap());
}

pub(super) async fn a_memory_of_nonces_that_begins_asks_for_the_horizon_and_refuses_what_is_older(
    stage: &mut Stage,
) {
    let horizon = Known::at(START);
    assert!(!stage.first().nonce("n", START, TTL, &horizon).await.unwrap());
    assert!(!stage.last().nonce("n", START - 1, TTL, &horizon).await.unwrap());
    assert!(stage.last().nonce("n", START + 1, TTL, &horizon).await.unwrap());
    assert!(!stage.first().nonce("n", START + 1, TTL, &horizon).await.unwrap());
    assert_eq!(horizon.asked.load(Ordering::Relaxed), 1);
}

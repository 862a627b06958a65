//! Who goes first when much waits: long turns give way to short ones.
//!
//! A task that has moved much goes to the end of the runtime's queue. While that queue has anything in it,
//! the runtime rarely asks the kernel which sockets have something, so a small frame could wait until a bulk
//! sender pauses. A long turn therefore ends behind everything that the sockets have by then. Where many
//! long turns wait, that look would help nobody, since all of them come before the small frame anyway, and it
//! costs: what a reader has just brought is out of the cache until its receiver's writer gets there.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

/// Long turns that may wait while the sockets are looked at after each.
const FEW: usize = 4;

/// The connections of a node that are in the middle of something long.
#[derive(Debug, Default)]
pub struct Turns {
    waiting: AtomicUsize,
}

/// One that waits for its next turn.
struct Waiting<'a>(&'a AtomicUsize);

impl Turns {
    /// Between two long turns of reading. Cancel safe.
    pub async fn give_way(&self) {
        let crowded = self.is_crowded();
        let _waiting = Waiting::among(&self.waiting);
        if crowded { yield_once().await } else { tokio::task::yield_now().await }
    }

    /// Between two long turns of writing what was read just before: only where few wait. Cancel safe.
    pub async fn give_way_if_few(&self) {
        if !self.is_crowded() {
            self.give_way().await;
        }
    }

    fn is_crowded(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) >= FEW
    }
}

impl<'a> Waiting<'a> {
    fn among(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Gives those who wait their turn, the other half of the same task among them, without a look at the sockets.
pub async fn yield_once() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;
    use tokio::task::yield_now;
    use tokio_util::task::TaskTracker;

    use super::*;

    /// Turns of a bulk task that pass from the moment at which a socket has something until its reader knows,
    /// while `others` wait.
    async fn turns_until_noticed(others: usize) -> u32 {
        let turns = Arc::new(Turns::default());
        let tasks = TaskTracker::new();
        let sockets = tasks.clone();
        let bulk = async move {
            let _others: Vec<_> = (0..others).map(|_| Waiting::among(&turns.waiting)).collect();
            let (mut near, mut far) = UnixStream::pair().unwrap();
            let reader = sockets.spawn(async move { far.read_u8().await.unwrap() });
            // Until it waits.
            yield_now().await;
            near.write_u8(1).await.unwrap();
            let mut passed = 0;
            while !reader.is_finished() {
                turns.give_way().await;
                passed += 1;
            }
            passed
        };
        tasks.spawn(bulk).await.unwrap()
    }

    #[tokio::test]
    async fn between_the_turns_of_few_the_sockets_are_looked_at() {
        for others in 0..FEW {
            assert!(turns_until_noticed(others).await <= 2, "{others}");
        }
    }

    #[tokio::test]
    async fn many_go_on_by_turns_and_do_not_forget_the_sockets() {
        let passed = turns_until_noticed(FEW).await;
        assert!((3..1000).contains(&passed), "{passed}");
    }

    #[tokio::test]
    async fn whoever_had_a_turn_or_gave_it_up_does_not_wait() {
        let turns = Turns::default();
        for _ in 0..=FEW {
            turns.give_way().await;
            tokio::select! {
                biased;
                () = turns.give_way() => unreachable!("its turn cannot have come yet"),
                () = async {} => {}
            }
        }
        assert_eq!(turns.waiting.load(Ordering::Relaxed), 0);
    }
}

//! Requests that come at about the same time, done together.
//!
//! What a request needs of a database costs mostly the going there and coming back: each send, each wake-up.
//! Here whatever came since the last batch, or comes in the same turn of the runtime, goes together. Batches can
//! be told to rest from one start to the next: then the first after a rest goes at once, so whoever is alone
//! waits for nobody, and where many come, each waits at most that long and pays a part.

use std::future::Future;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::TaskTracker;

/// Requests that wait for their batch; those beyond wait for room within their own deadline.
const QUEUE: usize = 4096;

/// Gathers questions and gives each its answer.
pub struct Batches<Q, A> {
    queue: mpsc::Sender<Waiting<Q, A>>,
    tasks: TaskTracker,
}

/// A question, and who waits for its answer.
pub type Waiting<Q, A> = (Q, Asker<A>);

/// Who waits for an answer.
pub struct Asker<A>(oneshot::Sender<A>);

impl<A> Asker<A> {
    /// Answers. Who does not wait any more has been refused already.
    pub fn answer(self, answer: A) {
        let _ = self.0.send(answer);
    }
}

impl<Q: Send + 'static, A: Send + 'static> Batches<Q, A> {
    /// Does batches of up to `most` with `work`, one after the other, `rest` apart unless they are full; within
    /// a runtime. Ends after it is dropped, see [`Self::close`].
    pub fn start<W, F>(most: usize, rest: Duration, work: W) -> Self
    where
        W: FnMut(Vec<Waiting<Q, A>>) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let tasks = TaskTracker::new();
        tasks.spawn(gather(waiting, most, rest, work));
        Self { queue, tasks }
    }

    /// Asks, and waits for the answer; `None` if there will be none, because the work ended or failed.
    pub async fn ask(&self, question: Q) -> Option<A> {
        let (answer, answered) = oneshot::channel();
        self.queue.send((question, Asker(answer))).await.ok()?;
        answered.await.ok()
    }

    /// Completes if nothing is done any more, because the task that does it has ended. Cancel safe.
    pub async fn ended(&self) {
        self.queue.closed().await;
    }

    /// Waits until everything that was asked is done.
    pub async fn close(self) {
        let Self { queue, tasks } = self;
        drop(queue);
        tasks.close();
        tasks.wait().await;
    }
}

async fn gather<Q, A, W, F>(
    mut waiting: mpsc::Receiver<Waiting<Q, A>>,
    most: usize,
    rest: Duration,
    mut work: W,
) where
    W: FnMut(Vec<Waiting<Q, A>>) -> F,
    F: Future<Output = ()>,
{
    let mut rested = Instant::now();
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, most).await > 0 {
        if batch.len() < most {
            if Instant::now() < rested {
                sleep_until(rested).await;
            } else {
                // For those who ask in the same turn.
                yield_now().await;
            }
            while batch.len() < most
                && let Ok(another) = waiting.try_recv()
            {
                batch.push(another);
            }
        }
        rested = Instant::now() + rest;
        work(std::mem::take(&mut batch)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::future::join_all;
    use parking_lot::Mutex;

    use super::*;

    const REST: Duration = Duration::from_millis(4);

    /// Answers with the size of the batch, and notes when it began.
    fn counting(most: usize) -> (Batches<(), usize>, Arc<Mutex<Vec<Instant>>>) {
        let begun = Arc::new(Mutex::new(Vec::new()));
        let noted = begun.clone();
        let batches = Batches::start(most, REST, move |batch: Vec<Waiting<(), usize>>| {
            noted.lock().push(Instant::now());
            async move {
                let size = batch.len();
                batch.into_iter().for_each(|((), asker)| asker.answer(size));
            }
        });
        (batches, begun)
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_goes_at_once_and_those_after_it_together() {
        let (batches, begun) = counting(100);
        let start = Instant::now();
        assert_eq!(batches.ask(()).await, Some(1));
        assert_eq!(begun.lock().clone(), [start], "nobody is waited for");
        assert_eq!(join_all((0..7).map(|_| batches.ask(()))).await, [Some(7); 7]);
        tokio::time::sleep(10 * REST).await;
        assert_eq!(batches.ask(()).await, Some(1));
        assert_eq!(begun.lock().clone(), [start, start + REST, start + 11 * REST]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_no_larger_than_it_may_be_and_a_full_one_does_not_rest() {
        let (batches, begun) = counting(3);
        let start = Instant::now();
        let sizes = join_all((0..7).map(|_| batches.ask(()))).await;
        assert_eq!(sizes, [3, 3, 3, 3, 3, 3, 1].map(Some));
        assert_eq!(begun.lock().clone(), [start, start, start + REST]);
    }

    #[tokio::test]
    async fn what_was_asked_is_done_when_it_is_closed() {
        let (batches, begun) = counting(3);
        {
            // Whoever asked may give up: what was asked is done all the same.
            let asking = std::pin::pin!(batches.ask(()));
            assert!(futures_util::poll!(asking).is_pending());
        }
        assert!(begun.lock().is_empty());
        batches.close().await;
        assert_eq!(begun.lock().len(), 1);
    }

    #[tokio::test]
    async fn whoever_asks_after_a_failure_gets_no_answer() {
        let batches = Batches::<(), ()>::start(3, REST, |_| async { panic!("as it must not") });
        assert_eq!(batches.ask(()).await, None);
        batches.ended().await;
        assert_eq!(batches.ask(()).await, None);
    }
}

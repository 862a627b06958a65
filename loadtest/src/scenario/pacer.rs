//! Sending at moments that were fixed in advance.
//!
//! The moment at which a frame is due never moves, however late the ones before it were: whoever measures
//! from there measures what a user would wait for, and not only what the relay felt like answering
//! (coordinated omission).

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use tokio::task::{coop, yield_now};

use super::field::Field;
use crate::frames::Timer;
use crate::measure::Count;

/// Frames that are sent later than this are counted: the load was not able to keep its time.
const LATE: Duration = Duration::from_millis(1);
/// Frames that are sent before others get their turn, when many are due.
const BATCH: u32 = 64;
/// Shortest sleep: above 10,000 frames a second several are sent each time. It is part of what is
/// measured, because a frame is measured from when it was due.
const TICK: Duration = Duration::from_micros(100);

/// Has so many senders send in turn, at even distances, until the run is over.
pub(super) struct Pacer {
    step: f64,
    order: Vec<usize>,
}

impl Pacer {
    /// `senders` of this worker send `rate` frames a second together. Which of them begins is drawn by
    /// the seed.
    pub(super) fn new(field: &Field, senders: usize, rate: f64) -> Self {
        let mut order: Vec<usize> = (0..senders).collect();
        order.shuffle(&mut StdRng::seed_from_u64(field.seed.wrapping_add(field.share.index as u64)));
        Self { step: 1.0 / rate, order }
    }

    /// Calls `send` with the sender's number and the moment at which its frame is due, on the stage's
    /// clock, until the run is over.
    pub(super) async fn run(self, field: Rc<Field>, mut send: impl FnMut(usize, u64)) -> Result<()> {
        if self.order.is_empty() {
            return Ok(());
        }
        let mut timer = Timer::new()?;
        // The budget of a task would make sockets look blocked that are not.
        coop::unconstrained(async {
            let began = Instant::now();
            let (mut number, mut burst) = (0_u64, 0);
            let mut slept = began;
            while !field.is_over() {
                let due = began + Duration::from_secs_f64(number as f64 * self.step);
                let now = Instant::now();
                if due > now {
                    timer.until(due.max(slept + TICK)).await?;
                    slept = Instant::now();
                    burst = 0;
                    continue;
                }
                if burst == BATCH {
                    yield_now().await;
                    burst = 0;
                }
                let turn = usize::try_from(number).unwrap_or(usize::MAX) % self.order.len();
                send(self.order[turn], field.nanos_of(due));
                if now - due > LATE {
                    field.recorder.add(Count::Late, 1);
                }
                (number, burst) = (number + 1, burst + 1);
            }
            Ok(())
        })
        .await
    }
}

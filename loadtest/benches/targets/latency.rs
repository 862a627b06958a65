//! How long a frame takes from one peer to the other when nothing waits: beside haproxy in TCP mode.
//!
//! A hundred pairs send ten frames a second each, spread evenly over time. A frame is stamped right before
//! it is written and its age is taken right after the read that brought it, both in one thread: what the
//! load itself needs for a write and a read is in the figure, for the relay and for haproxy alike.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::time::MissedTickBehavior;

use crate::Bench;
use crate::machine::{median, quantile};
use crate::middle::{Kind, Security};
use crate::pairs::{End, Load};
use crate::verdict::Bound;

/// Pairs, each sending ten frames a second when one of them sends in a millisecond.
const PAIRS: usize = 100;
/// Payload bytes.
const PAYLOAD: usize = 64;
/// The relay's median and 99th percentile, as multiples of haproxy's.
const TARGETS: (f64, f64) = (1.5, 2.0);

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    println!("one way, {PAIRS} pairs of 10 frames a second, {PAYLOAD} B: microseconds");
    let baseline = Kind::Haproxy(Security::Clear);
    let mut kinds = vec![baseline];
    kinds.extend(bench.securities().into_iter().map(Kind::Relay));
    let mut all: Vec<(Kind, Vec<(f64, f64)>)> = kinds.iter().map(|kind| (*kind, Vec::new())).collect();
    for round in 1..=bench.rounds() {
        for (kind, rounds) in &mut all {
            let middle = bench.surroundings.start(*kind).await?;
            let load = Load::of(PAYLOAD, PAIRS, 16);
            let mut pairs = Vec::new();
            for _ in 0..PAIRS {
                pairs.push(load.connect(&middle).await?);
            }
            let times = one_way(pairs, bench.seconds()).await?;
            middle.stop().await?;
            let (middle, far) = (quantile(&times, 0.5), quantile(&times, 0.99));
            bench.say(format_args!("round {round}, {}: median {middle:.0}, p99 {far:.0} µs", kind.name()));
            rounds.push((middle, far));
        }
    }
    let of = |rounds: &[(f64, f64)]| (median(rounds.iter().map(|r| r.0)), median(rounds.iter().map(|r| r.1)));
    let unit = all.first().map(|(_, rounds)| of(rounds)).context("no rounds")?;
    println!("                  median      p99   of haproxy's");
    for (kind, rounds) in &all {
        let (middle, far) = of(rounds);
        println!(
            "{:<14} {middle:>9.0} {far:>8.0}   {:.2} and {:.2}",
            kind.name(),
            middle / unit.0,
            far / unit.1
        );
        if *kind != baseline {
            let name = kind.name();
            let judge = format!("one way, {name}: median beside haproxy's");
            bench.verdicts.judge(judge, middle / unit.0, "times", Bound::AtMost(TARGETS.0));
            let judge = format!("one way, {name}: 99th percentile beside haproxy's");
            bench.verdicts.judge(judge, far / unit.1, "times", Bound::AtMost(TARGETS.1));
        }
    }
    Ok(())
}

/// Lets the pairs send in turns, one frame each millisecond, and gives the microseconds that each took,
/// sorted. The first tenth is not counted.
pub(crate) async fn one_way(pairs: Vec<(End, End)>, seconds: f64) -> Result<Vec<f64>> {
    let epoch = Instant::now();
    let (mut senders, receivers): (Vec<End>, Vec<End>) = pairs.into_iter().unzip();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some seconds")]
    let frames = (seconds * 1e3) as usize;
    let warm = frames / 10;
    let (arrived, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
    let mut readers = tokio::task::JoinSet::new();
    for mut receiver in receivers {
        let arrived = arrived.clone();
        readers.spawn_local(async move {
            loop {
                let stamps = receiver.received_stamps().await?;
                let now = epoch.elapsed().as_nanos() as f64;
                for sent in stamps {
                    // Nobody takes them any more when the last one is there.
                    let _over = arrived.send((sent, (now - sent as f64) / 1e3));
                }
            }
            #[expect(unreachable_code, reason = "names the type of the error")]
            anyhow::Ok(())
        });
    }
    let send = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for number in 0..frames + warm {
            ticks.tick().await;
            let turn = number % senders.len();
            senders[turn].send_stamped(u64::try_from(epoch.elapsed().as_nanos())?).await?;
        }
        anyhow::Ok(())
    };
    let receive = async {
        let mut took = Vec::with_capacity(frames + warm);
        while took.len() < frames + warm {
            tokio::select! {
                Some(ended) = readers.join_next() => ended??,
                Some(arrival) = arrivals.recv() => took.push(arrival),
            }
        }
        anyhow::Ok(took)
    };
    let limit = Duration::from_secs_f64(20.0 + 3.0 * seconds);
    let both = async { tokio::try_join!(send, receive) };
    let ((), mut took) = tokio::time::timeout(limit, both).await.context("frames went missing")??;
    took.sort_by_key(|(sent, _)| *sent);
    let mut took: Vec<f64> = took.drain(warm..).map(|(_, took)| took).collect();
    took.sort_by(f64::total_cmp);
    Ok(took)
}

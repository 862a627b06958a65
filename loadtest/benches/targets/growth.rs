//! Whether a frame costs more where there is more: connections, and topics.
//!
//! A node that has a hundred times the peers costs more per frame for two reasons, and both are measured:
//! its tables and sockets no longer fit the processor's caches, whoever uses them (all pairs at work), and
//! whatever it does for connections that are only there (the same 50 pairs at work among others that are
//! silent). The same with topics: joined by others, and used by turns by the pairs themselves.

use anyhow::{Result, bail};
use culvert_loadtest::frames::{Peer, SMALL_BUFFER};
use culvert_testkit::process::allow_open_files;
use culvert_wire::{Frame, Handle};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::Bench;
use crate::machine::median;
use crate::middle::{Kind, Middle, Security};
use crate::pairs::{End, Load, connect, send_frame, topic};
use crate::verdict::Bound;

/// Payload bytes.
const PAYLOAD: usize = 64;
/// The pairs of the small case.
const PAIRS: usize = 50;
/// Connections of the small and of the large case.
const PEERS: [usize; 2] = [100, 10_000];
/// Topics of the small and of the large case.
const TOPICS: [usize; 2] = [100, 100_000];
/// Topics that each of the silent peers is in.
const TOPICS_EACH: usize = 64;
/// How much more a frame may cost.
const TARGET: f64 = 1.3;
/// What a peer keeps for reading, so that 10,000 of them fit the load's memory: more than a window.
const BUFFER: usize = 16 << 10;
/// Connections being made at once.
const AT_ONCE: usize = 16;
/// Joins whose answers are awaited together.
const JOINS_AT_ONCE: usize = 50;

/// What grows.
#[derive(Clone, Copy)]
enum Growth {
    /// All connections send or receive.
    BusyPeers,
    /// All but those of 50 pairs are silent.
    SilentPeers,
    /// Topics of silent peers.
    OthersTopics,
    /// Topics of the pairs themselves, which take the next one for every frame.
    OwnTopics,
}

impl Growth {
    const ALL: [(Self, &'static str, [usize; 2]); 4] = [
        (Growth::BusyPeers, "peers, all at work", PEERS),
        (Growth::SilentPeers, "peers, 100 of them at work", PEERS),
        (Growth::OthersTopics, "topics, of others", TOPICS),
        (Growth::OwnTopics, "topics, another for every frame", TOPICS),
    ];
}

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    allow_open_files(12_000)?;
    println!("microseconds per frame of {PAYLOAD} B, clear text");
    for (growth, name, sizes) in Growth::ALL {
        let mut rounds = [Vec::new(), Vec::new()];
        for round in 1..=bench.rounds() {
            for (size, rounds) in sizes.into_iter().zip(&mut rounds) {
                let middle = bench.surroundings.start(Kind::Relay(Security::Clear)).await?;
                let (pairs, silent) = populate(&middle, growth, size).await?;
                let running = load(pairs.len()).run(pairs)?;
                bench.warm_up().await;
                let stretch = running.measure(&middle, bench.seconds()).await?;
                running.check()?;
                drop(silent);
                middle.stop().await?;
                bench.say(format_args!(
                    "round {round}, {size} {name}: {:.0} frames/s, {:.2} µs, busy {:.0} %, {} undelivered",
                    stretch.rate(),
                    stretch.micros(),
                    stretch.busy(),
                    stretch.undelivered,
                ));
                rounds.push(stretch.micros());
            }
        }
        let [small, large] = rounds.map(median);
        println!("{:>7} and {:>7} {name:<32} {small:.2} and {large:.2}", sizes[0], sizes[1]);
        let what = format!("{} {name}, beside {}", sizes[1], sizes[0]);
        bench.verdicts.judge(what, large / small, "times", Bound::AtMost(TARGET));
    }
    Ok(())
}

fn load(pairs: usize) -> Load {
    Load::of(PAYLOAD, pairs, 64)
}

async fn populate(middle: &Middle, growth: Growth, size: usize) -> Result<(Vec<(End, End)>, Vec<Peer>)> {
    let pairs = match growth {
        Growth::BusyPeers => size / 2,
        _ => PAIRS,
    };
    let load = load(pairs);
    let ends: Vec<(End, End)> = stream::iter(0..pairs)
        .map(async |number| match growth {
            Growth::OwnTopics => spread(middle, load, number, size / pairs).await,
            _ => connect(middle.dialer()?, middle.dialer()?, load, BUFFER).await,
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let silent = match growth {
        Growth::BusyPeers | Growth::OwnTopics => Vec::new(),
        Growth::SilentPeers => silent(middle, size - 2 * pairs, 1).await?,
        Growth::OthersTopics => {
            silent(middle, size.saturating_sub(pairs).div_ceil(TOPICS_EACH), TOPICS_EACH).await?
        }
    };
    Ok((ends, silent))
}

/// Peers that are in topics of their own and do nothing.
async fn silent(middle: &Middle, peers: usize, topics: usize) -> Result<Vec<Peer>> {
    stream::iter(0..peers)
        .map(async |number| {
            let mut peer = Peer::connect(middle.dialer()?, number, SMALL_BUFFER).await?;
            join_all(&mut peer, (1 << 32) + number * topics, topics).await?;
            anyhow::Ok(peer)
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

/// A pair in so many topics, whose sender takes another one for every frame.
async fn spread(middle: &Middle, load: Load, number: usize, topics: usize) -> Result<(End, End)> {
    let mut sender = Peer::connect(middle.dialer()?, 0, BUFFER).await?;
    let mut receiver = Peer::connect(middle.dialer()?, 0, BUFFER).await?;
    let handles = join_all(&mut sender, number * topics, topics).await?;
    let answers = join_all(&mut receiver, number * topics, topics).await?;
    let to = receiver.conn;
    let (Some(first), Some(answer)) = (handles.first(), answers.first()) else {
        bail!("a pair without topics")
    };
    let mut pair = load.pair(sender, receiver, *first, *answer)?;
    let messages = handles.iter().map(|handle| send_frame(load.class, *handle, to, load.payload));
    pair.0.take_turns(&messages.collect::<Result<Vec<_>>>()?, load.window);
    Ok(pair)
}

async fn join_all(peer: &mut Peer, first: usize, count: usize) -> Result<Vec<Handle>> {
    let mut handles = Vec::with_capacity(count);
    for from in (0..count).step_by(JOINS_AT_ONCE) {
        let until = count.min(from + JOINS_AT_ONCE);
        for number in from..until {
            peer.send(&Frame::Join { topic: topic((first + number) as u64) }).await?;
        }
        while handles.len() < until {
            match peer.receive().await? {
                Frame::Joined { handle, .. } => handles.push(handle),
                Frame::JoinRefused { refusal, .. } => bail!("a join was refused: {}", refusal.name()),
                _ => {}
            }
        }
    }
    Ok(handles)
}

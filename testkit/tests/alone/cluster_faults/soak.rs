//! Faults that meet: two at a time, drawn at random, round after round. After each, every node tells its
//! peers exactly who is there.

use std::time::Duration;

use culvert_testkit::Identity;
use culvert_testkit::chaos::{Cut, Mode};
use culvert_testkit::report::{full, measured};
use tokio::time::sleep;

use super::world::{LEASE, NODES, World, topic};
use crate::common::PATIENCE;
use crate::common::pairs::percentile;

/// Of the small run, which is the same every time; the large one draws its own.
const SEED: u64 = 7;

/// What happens, in the order in which it is begun; it is ended in the opposite one, because a node starts
/// only where it reaches Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Killed(usize),
    Hung(usize),
    Deaf(usize),
    Cut(usize),
    RedisStalls,
    RedisDies,
}

/// A sequence of numbers that a seed decides (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (number ^ (number >> 31)) % bound
    }

    /// Two faults that are not of the same node.
    fn faults(&mut self) -> [Fault; 2] {
        let first = self.below(NODES as u64);
        let second = (first + 1 + self.below(NODES as u64 - 1)) % NODES as u64;
        let mut faults = [first, second].map(|node| {
            let node = usize::try_from(node).unwrap();
            match self.below(6) {
                0 => Fault::Killed(node),
                1 => Fault::Hung(node),
                2 => Fault::Deaf(node),
                3 => Fault::Cut(node),
                4 => Fault::RedisStalls,
                _ => Fault::RedisDies,
            }
        });
        faults.sort_unstable();
        faults
    }
}

impl Fault {
    async fn begin(self, world: &mut World) {
        match self {
            Fault::Killed(node) => world.cluster.kill(node).await.unwrap(),
            Fault::Hung(node) => world.cluster.pause(node).unwrap(),
            Fault::Deaf(node) => {
                for subscription in world.cluster.subscriptions(node, &world.redis).await.unwrap() {
                    subscription.set(|faults| faults.down.mode = Mode::Deaf);
                }
            }
            Fault::Cut(node) => {
                let proxy = world.cluster.to_redis(node).unwrap();
                proxy.refuse_new(true);
                proxy.cut(Cut::Reset).await;
            }
            Fault::RedisStalls => {
                (0..NODES).for_each(|node| world.cluster.to_redis(node).unwrap().stall());
            }
            Fault::RedisDies => world.redis.kill().await.unwrap(),
        }
    }

    async fn end(self, world: &mut World) {
        match self {
            Fault::Killed(node) => world.cluster.start(node).await.unwrap(),
            Fault::Hung(node) => world.cluster.resume(node).unwrap(),
            // What is deaf stays so, and is replaced.
            Fault::Deaf(_) => {}
            Fault::Cut(node) => world.cluster.to_redis(node).unwrap().refuse_new(false),
            Fault::RedisStalls => {
                for node in 0..NODES {
                    let proxy = world.cluster.to_redis(node).unwrap();
                    proxy.set(|faults| (faults.up.mode, faults.down.mode) = (Mode::Pass, Mode::Pass));
                }
            }
            // Two of these are one.
            Fault::RedisDies if world.redis.process().is_ok() => {}
            Fault::RedisDies => world.redis.start_again().await.unwrap(),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_that_meet_at_random_lose_nothing() {
    let random = || u64::from_be_bytes(Identity::random().unwrap().peer().0[..8].try_into().unwrap());
    let (rounds, seed) = if full() { (20, random()) } else { (3, SEED) };
    let seed = std::env::var("CULVERT_TEST_SEED").map_or(seed, |seed| seed.parse().unwrap());
    measured(&format!("fault: the seed of the faults that meet is {seed} (CULVERT_TEST_SEED repeats it)"));
    let mut dice = Dice(seed);
    let mut world = World::start().await;
    let sessions = world.sessions(9).await;
    sessions.goes_on(10, PATIENCE).await;
    let topic = topic();
    let mut witnesses = Vec::new();
    for node in 0..NODES {
        witnesses.push(world.witness(node, topic).await);
    }
    let mut met = Vec::new();
    for round in 0..rounds {
        let faults = dice.faults();
        met.push(format!("{} with {}", name(faults[0]), name(faults[1])));
        println!("round {round}: {faults:?}");
        for fault in faults {
            fault.begin(&mut world).await;
            sleep(Duration::from_millis(dice.below(500))).await;
        }
        let is_still =
            |node: usize| faults.iter().any(|fault| [Fault::Killed(node), Fault::Hung(node)].contains(fault));
        for node in (0..NODES).filter(|node| !is_still(*node)) {
            // Somebody comes and somebody goes in the middle of it.
            witnesses[node] = world.witness(node, topic).await;
        }
        sleep(LEASE.mul_f64(dice.below(200) as f64 / 100.0)).await;
        for fault in faults.into_iter().rev() {
            fault.end(&mut world).await;
        }
        world.heals().await;
        sessions.goes_on(10, PATIENCE).await;
        for fault in faults {
            if let Fault::Killed(node) = fault {
                witnesses[node] = world.witness(node, topic).await;
            }
        }
        let all = witnesses.iter().map(|witness| witness.conn).collect();
        for witness in &mut witnesses {
            witness.raw.sync(round).await.unwrap();
            witness.sees(&all).await;
        }
    }
    let (_pairs, ledger) = sessions.end().await;
    ledger.balances();
    world.takes_little_memory().await;
    measured(&format!(
        "fault: {}: {} messages each once, longest pause {:.2} s",
        met.join(", "),
        ledger.messages,
        percentile(&ledger.pauses, 100).as_secs_f64()
    ));
}

fn name(fault: Fault) -> &'static str {
    match fault {
        Fault::Killed(_) => "a killed node",
        Fault::Hung(_) => "a hung node",
        Fault::Deaf(_) => "a deaf node",
        Fault::Cut(_) => "a node cut off",
        Fault::RedisStalls => "a Redis that stalls",
        Fault::RedisDies => "a Redis that dies",
    }
}

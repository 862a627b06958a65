//! Faults of a cluster in a random order, one upon the other: conversations survive all of them.
//!
//! A failing seed is printed; `CULVERT_SEED=<seed>` replays its faults, `CULVERT_SEEDS=<count>` tries more.

use std::time::Duration;

use anyhow::{Context, Result};
use culvert_relay::Config;
use culvert_testkit::relay::{Cluster, Embedded};

use crate::balancer::{Balancer, until};
use crate::talk::Talk;

const NODES: usize = 3;
const PAIRS: usize = 8;
const STEPS: u64 = 8;

/// Random numbers that depend on the seed alone (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).unwrap()
    }
}

struct World {
    cluster: Cluster,
    balancer: Balancer,
    /// Nodes that nobody reaches, but that do not know it.
    lost: Vec<Embedded>,
    dice: Dice,
}

fn config() -> Config {
    let mut config = Embedded::config();
    config.drain.delay = Duration::ZERO;
    config.drain.window = Duration::from_millis(500);
    config.drain.grace = Duration::from_secs(1);
    config
}

impl World {
    async fn new(seed: u64) -> Result<Self> {
        let mut cluster = Cluster::open(0).await?;
        for _ in 0..NODES {
            cluster.add(config()).await?;
        }
        let balancer = Balancer::start(cluster.nodes().iter().map(Embedded::addr)).await?;
        Ok(Self { cluster, balancer, lost: Vec::new(), dice: Dice(seed) })
    }

    async fn replace(&mut self) -> Result<()> {
        let addr = self.cluster.add(config()).await?.addr();
        self.balancer.add(addr);
        Ok(())
    }

    fn heal(&self) {
        // The bus knows the lost ones still.
        let nodes: Vec<_> = self.cluster.nodes().iter().chain(&self.lost).map(Embedded::id).collect();
        for one in &nodes {
            for other in nodes.iter().filter(|other| *other < one) {
                self.cluster.hub().heal(*one, *other);
            }
        }
    }

    async fn fault(&mut self) -> Result<&'static str> {
        let at = self.dice.below(NODES);
        Ok(match self.dice.below(5) {
            0 => {
                let other = (at + 1 + self.dice.below(NODES - 1)) % NODES;
                let nodes = self.cluster.nodes();
                self.cluster.hub().cut(nodes[at].id(), nodes[other].id());
                "two nodes are cut off from each other"
            }
            1 => {
                let nodes = self.cluster.nodes();
                for other in (0..NODES).filter(|other| *other != at) {
                    self.cluster.hub().cut(nodes[at].id(), nodes[other].id());
                }
                "one node is cut off"
            }
            2 => {
                self.heal();
                "everything is healed"
            }
            3 => {
                let node = self.cluster.take(at);
                node.shutdown().request_drain();
                self.replace().await?;
                self.balancer.remove(node.addr());
                node.ended(Duration::from_secs(20)).await?;
                "a node is drained"
            }
            _ => {
                let node = self.cluster.take(at);
                self.balancer.kill(node.addr());
                self.lost.push(node);
                self.replace().await?;
                "a node is killed"
            }
        })
    }
}

async fn weather(seed: u64) -> Result<()> {
    let mut world = World::new(seed).await?;
    let mut talk = Talk::begin(&world.balancer.url(), PAIRS, Duration::from_millis(50)).await?;
    for step in 0..STEPS {
        let fault = world.fault().await?;
        for _ in 0..2 {
            talk.hear_everybody().await.with_context(|| format!("seed {seed}, step {step}: {fault}"))?;
        }
        eprintln!(
            "seed {seed}, step {step}: {fault}, {:?}, {} open",
            talk.pauses(),
            world.balancer.open(None)
        );
        let most = 2 * PAIRS * 3;
        assert!(world.balancer.open(None) <= most, "seed {seed}: more than {most} connections");
    }
    world.heal();
    let settled = || world.balancer.open(None) == 2 * PAIRS;
    until(Duration::from_secs(60), "one connection each", settled).await?;
    let delivered = talk.end().await.with_context(|| format!("seed {seed}"))?;
    eprintln!("seed {seed}: {delivered} messages, each once and in order");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn conversations_survive_faults_in_any_order() -> Result<()> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("CULVERT_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CULVERT_SEEDS").unwrap_or(2),
    };
    for seed in seeds {
        weather(seed).await?;
    }
    Ok(())
}

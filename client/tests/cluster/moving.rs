//! Conversations while the nodes under them are drained and killed, one after the other.
//!
//! `CULVERT_PAIRS` changes how many pairs talk; the figures are printed.

use std::time::Duration;

use anyhow::{Context, Result};
use culvert_testkit::relay::{Cluster, Embedded};

use crate::balancer::{Balancer, until};
use crate::talk::Talk;

const NODES: usize = 3;
/// A bound for machines that do many other things meanwhile; what is aimed at is measured with real nodes.
const GENEROUS: Duration = Duration::from_secs(5);

fn pairs() -> usize {
    std::env::var("CULVERT_PAIRS").map_or(50, |text| text.parse().unwrap())
}

/// Between two messages of one direction: so long that the machine has time for the moves, too.
fn interval() -> Duration {
    Duration::from_millis(pairs().max(50) as u64)
}

fn config() -> culvert_relay::Config {
    let mut config = Embedded::config();
    config.drain.delay = Duration::ZERO;
    config.drain.window = Duration::from_secs(1);
    config.drain.grace = Duration::from_secs(2);
    config
}

async fn cluster() -> Result<(Cluster, Balancer)> {
    let mut cluster = Cluster::open(0).await?;
    for _ in 0..NODES {
        cluster.add(config()).await?;
    }
    let balancer = Balancer::start(cluster.nodes().iter().map(Embedded::addr)).await?;
    Ok((cluster, balancer))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_pauses_conversations_for_moments_and_loses_nothing() -> Result<()> {
    let (mut cluster, balancer) = cluster().await?;
    let mut talk = Talk::begin(&balancer.url(), pairs(), interval()).await?;
    for round in 0..NODES {
        // The balancer does not know yet that the node leaves, so some are sent back there.
        let node = cluster.take(0);
        let addr = node.addr();
        let before = balancer.accepted();
        node.shutdown().request_drain();
        until(Duration::from_secs(10), "everybody left", || balancer.open(Some(addr)) == 0).await?;
        balancer.remove(addr);
        node.ended(Duration::from_secs(10)).await?;
        let new = cluster.add(config()).await?.addr();
        balancer.add(new);
        talk.hear_everybody().await?;
        let pauses = talk.pauses();
        let dialled = balancer.accepted() - before;
        eprintln!("drain {round}: {pauses:?}, {dialled} connections were made");
        assert!(pauses.moved >= pairs() / 3, "{pauses:?}");
        assert!(pauses.median < GENEROUS, "{pauses:?}");
    }
    let delivered = talk.end().await.context("after the drains")?;
    eprintln!("{delivered} messages, each once and in order");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_interrupts_conversations_shortly_and_loses_nothing() -> Result<()> {
    let (cluster, balancer) = cluster().await?;
    let mut talk = Talk::begin(&balancer.url(), pairs(), interval()).await?;
    for node in &cluster.nodes()[..2] {
        balancer.kill(node.addr());
        talk.hear_everybody().await?;
        // Once more, so that a gap that ended just now counts.
        talk.hear_everybody().await?;
        let pauses = talk.pauses();
        eprintln!("kill: {pauses:?}");
        assert!(pauses.moved >= pairs() / 3, "{pauses:?}");
        assert!(pauses.median < GENEROUS, "{pauses:?}");
    }
    let delivered = talk.end().await.context("after the kills")?;
    eprintln!("{delivered} messages, each once and in order");
    Ok(())
}

//! What an idle connected peer costs: many are connected, each in a topic, and the kernel says how much the
//! relay grew.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::Result;
use culvert_testkit::certs::TestCa;
use culvert_testkit::process::allow_open_files;
use culvert_testkit::relay::{RelayPlan, RelayProcess};
use culvert_testkit::report::{full, measured};
use culvert_testkit::{HelloOptions, Identity, RawPeer};
use culvert_wire::TopicId;
use tokio::task::JoinSet;

/// Peers beside those that are counted, so that what the relay allocates once is there before.
const WARM: u64 = 64;

async fn enter(relay: &RelayProcess, peers: std::ops::Range<u64>) -> Result<Vec<RawPeer>> {
    let (mut tasks, mut entered) = (JoinSet::new(), Vec::new());
    for number in peers {
        if tasks.len() >= 32
            && let Some(peer) = tasks.join_next().await
        {
            entered.push(peer??);
        }
        // Not more than 10,000 from one address: that is the relay's limit.
        let source = Ipv4Addr::new(127, 0, 0, 2 + u8::try_from(number / 2_000)?);
        let (addr, options) = (relay.addr(), relay.raw().from(source.into()));
        tasks.spawn(async move {
            let mut peer = RawPeer::connect(addr, &options).await?;
            peer.hello(&HelloOptions::new(&Identity::random()?)).await?;
            let mut topic = [0; 32];
            topic[..8].copy_from_slice(&(number / 2).to_be_bytes());
            peer.join(TopicId(topic)).await?;
            anyhow::Ok(peer)
        });
    }
    while let Some(peer) = tasks.join_next().await {
        entered.push(peer??);
    }
    Ok(entered)
}

/// Resident bytes of the relay per idle peer, each in a topic with one other.
async fn cost_of_a_peer(plan: RelayPlan, how: &str) -> Result<u64> {
    let count = if full() { 5_000 } else { 1_000 };
    allow_open_files(count + WARM)?;
    let relay = plan.start().await?;
    let warm = enter(&relay, 0..WARM).await?;
    let before = relay.resources()?.resident;
    let mut peers = enter(&relay, WARM..WARM + count).await?;
    for peer in peers.iter_mut().take(100) {
        peer.sync(1).await?;
    }
    let after = relay.resources()?.resident;
    let each = (after - before) / count;
    measured(&format!("resident memory of an idle peer, {how}: {each} bytes each, {count} of them"));
    drop(warm);
    Ok(each)
}

fn plan() -> Result<RelayPlan> {
    RelayPlan::open(Path::new(env!("CARGO_BIN_EXE_culvert-relay")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_peer_costs_at_most_8_kib_in_clear_text() {
    let each = cost_of_a_peer(plan().unwrap(), "clear text").await.unwrap();
    assert!(each <= 8 * 1024, "{each} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_peer_costs_at_most_14_kib_with_tls() {
    let ca = TestCa::new("Relay").unwrap();
    let plan = plan().unwrap().tls(&ca.loopback().unwrap(), &ca).unwrap();
    let each = cost_of_a_peer(plan, "TLS").await.unwrap();
    assert!(each <= 14 * 1024, "{each} bytes");
}

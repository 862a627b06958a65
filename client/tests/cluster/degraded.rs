//! Peers on nodes that are cut off from each other find one another through further connections.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use culvert_client::{RelayConnection, RelayOptions, SearchPolicy, TopicSecret, derive_topic};
use culvert_relay::bus::{Arrival, Bus};
use culvert_testkit::relay::{Cluster, Embedded};
use culvert_wire::{ConnId, Generation, Member, TopicId};
use tokio::time::timeout;

use crate::balancer::{Balancer, until};
use crate::talk::{Peer, Talk, member};

/// Longest time for a search, and for what it left to go away.
const SEARCH: Duration = Duration::from_secs(60);

async fn cluster(nodes: usize) -> Result<(Cluster, Balancer)> {
    let cluster = Cluster::open(nodes).await?;
    let balancer = Balancer::start(cluster.nodes().iter().map(Embedded::addr)).await?;
    Ok((cluster, balancer))
}

fn cut(cluster: &Cluster) {
    for one in cluster.nodes() {
        for other in cluster.nodes().iter().filter(|other| other.id() < one.id()) {
            cluster.hub().cut(one.id(), other.id());
        }
    }
}

fn heal(cluster: &Cluster) {
    for one in cluster.nodes() {
        for other in cluster.nodes().iter().filter(|other| other.id() < one.id()) {
            cluster.hub().heal(one.id(), other.id());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conversations_go_on_over_a_second_connection_while_their_nodes_are_cut_off() -> Result<()> {
    const PAIRS: usize = 16;
    let (cluster, balancer) = cluster(2).await?;
    let mut talk = Talk::begin(&balancer.url(), PAIRS, Duration::from_millis(50)).await?;
    for round in 0..2 {
        cut(&cluster);
        talk.hear_everybody().await?;
        talk.hear_everybody().await?;
        eprintln!("cut {round}: {:?}, {} connections", talk.pauses(), balancer.open(None));
        assert!(balancer.open(None) > 2 * PAIRS, "somebody needs a second connection");
        assert!(balancer.open(None) <= 2 * PAIRS * 3);
        heal(&cluster);
        until(SEARCH, "further connections go away", || balancer.open(None) == 2 * PAIRS).await?;
        talk.hear_everybody().await?;
        eprintln!("heal {round}: {:?}", talk.pauses());
    }
    let accepted = balancer.accepted();
    let delivered = talk.end().await?;
    assert_eq!(balancer.accepted(), accepted, "nobody searches any more");
    eprintln!("{delivered} messages, each once and in order");
    Ok(())
}

async fn greet(one: &mut RelayConnection, other: &mut RelayConnection) -> Result<()> {
    one.send_bytes(Bytes::from_static(b"hello")).await?;
    let heard = timeout(SEARCH, other.receive_bytes()).await.context("nothing came")??;
    assert_eq!(heard.as_deref(), Some(&b"hello"[..]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_never_met_find_each_other_across_the_cut() -> Result<()> {
    let (cluster, balancer) = cluster(3).await?;
    cut(&cluster);
    let secret = TopicSecret::generate();
    let mut a = Peer::enter(&balancer.url(), secret.topic(), member(&secret)).await?;
    let mut b = Peer::enter(&balancer.url(), secret.topic(), member(&secret)).await?;
    let find = async |peer: &mut Peer| timeout(SEARCH, peer.connections.recv()).await?.context("the end");
    let (to_b, to_a) = tokio::join!(find(&mut a), find(&mut b));
    let (mut to_b, mut to_a) = (to_b?, to_a?);
    assert_eq!((to_b.peer(), to_a.peer()), (b.transport.peer_id(), a.transport.peer_id()));
    greet(&mut to_b, &mut to_a).await?;
    greet(&mut to_a, &mut to_b).await?;
    heal(&cluster);
    until(SEARCH, "further connections go away", || balancer.open(None) == 2).await?;
    greet(&mut to_b, &mut to_a).await?;
    greet(&mut to_a, &mut to_b).await
}

/// Somebody else connects after each attempt, so that the balancer's next turn is this peer's own node again:
/// two peers that look for each other can do that to one another for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_search_that_always_comes_back_to_its_own_node_gets_away() -> Result<()> {
    let (cluster, balancer) = cluster(2).await?;
    cut(&cluster);
    let search = |connections| SearchPolicy {
        first: Duration::from_millis(400),
        longest: Duration::from_millis(600),
        connections,
    };
    let secret = TopicSecret::generate();
    let looking = RelayOptions { search: search(3), ..member(&secret) };
    let found = RelayOptions { search: search(1), ..member(&secret) };
    let mut a = Peer::enter(&balancer.url(), secret.topic(), looking).await?;
    let mut b = Peer::enter(&balancer.url(), secret.topic(), found).await?;
    let others = async {
        loop {
            let before = balancer.accepted();
            until(SEARCH, "an attempt", || balancer.accepted() > before).await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
            if (balancer.accepted() - before) % 2 == 1 {
                balancer.take_turn();
            }
        }
    };
    let meet = async { anyhow::Ok((a.next().await?, b.next().await?)) };
    let (mut to_b, mut to_a) = tokio::select! {
        met = meet => met?,
        failed = others => return failed,
    };
    greet(&mut to_b, &mut to_a).await?;
    greet(&mut to_a, &mut to_b).await
}

/// Connections that are gone, but that nobody told of, are ways as well: trying them must not look like
/// progress.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_is_missed_however_many_ways_to_it_are_said_to_be_there() -> Result<()> {
    let (cluster, balancer) = cluster(2).await?;
    let [one, two] = cluster.nodes() else { anyhow::bail!("two nodes") };
    let secret = TopicSecret::generate();
    let topic = TopicId(secret.topic());
    let mut a = Peer::enter(&balancer.url(), secret.topic(), member(&secret)).await?;
    let mut b = Peer::enter(&balancer.url(), secret.topic(), member(&secret)).await?;
    let (mut to_b, mut to_a) = (a.next().await?, b.next().await?);
    greet(&mut to_b, &mut to_a).await?;
    let bus = cluster.hub().bus();
    for real in bus.lookup(topic, 10).await.list {
        for n in 1..=2 {
            let generation = Generation(real.generation.0 + n);
            let ghost = Member { conn: ConnId(real.conn.0 ^ n), generation, ..real };
            bus.join(topic, Arrival { member: ghost, replaces: ConnId::NONE }, 10).await;
        }
    }
    cluster.hub().cut(one.id(), two.id());
    greet(&mut to_b, &mut to_a).await?;
    greet(&mut to_a, &mut to_b).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_a_node_that_reaches_everybody_moves_there() -> Result<()> {
    const PAIRS: usize = 6;
    let (cluster, balancer) = cluster(3).await?;
    let mut talk = Talk::begin(&balancer.url(), PAIRS, Duration::from_millis(50)).await?;
    let [one, two, whole] = cluster.nodes() else { anyhow::bail!("three nodes") };
    for degraded in [one, two] {
        // Or somebody finds the peer on the other degraded node first, and keeps that connection, too.
        balancer.remove(degraded.addr());
    }
    cluster.hub().cut(one.id(), two.id());
    talk.hear_everybody().await?;
    until(SEARCH, "one connection each", || balancer.open(None) == 2 * PAIRS).await?;
    assert!(balancer.open(Some(whole.addr())) > 0);
    talk.hear_everybody().await?;
    talk.end().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_for_nobody_holds_few_connections_and_ends_with_the_cut() -> Result<()> {
    let (cluster, balancer) = cluster(2).await?;
    cut(&cluster);
    let search = SearchPolicy {
        first: Duration::from_millis(100),
        longest: Duration::from_millis(200),
        ..Default::default()
    };
    let options = RelayOptions { search, ..Default::default() };
    let _alone = Peer::enter(&balancer.url(), derive_topic("nobody"), options).await?;
    let mut most = 0;
    until(SEARCH, "it looks again and again", || {
        most = most.max(balancer.open(None));
        balancer.accepted() > 10
    })
    .await?;
    // One that is closed may still be open at the balancer.
    assert!(most <= 4, "{most} connections at once");
    heal(&cluster);
    until(SEARCH, "further connections go away", || balancer.open(None) == 1).await?;
    let accepted = balancer.accepted();
    assert!(
        until(Duration::from_secs(2), "nobody searches", || balancer.accepted() > accepted).await.is_err(),
        "the search goes on"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wants_no_search_keeps_to_one_connection() -> Result<()> {
    let (cluster, balancer) = cluster(2).await?;
    cut(&cluster);
    let search = SearchPolicy { first: Duration::from_millis(50), connections: 1, ..Default::default() };
    let options = RelayOptions { search, ..Default::default() };
    let mut alone = Peer::enter(&balancer.url(), derive_topic("nobody"), options).await?;
    assert!(timeout(Duration::from_secs(1), alone.connections.recv()).await.is_err());
    assert_eq!(balancer.accepted(), 1);
    Ok(())
}

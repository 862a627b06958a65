//! What a cluster in trouble tells about members, twice, late or wrongly, must not disturb a conversation.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use culvert_client::{RelayConnection, TopicSecret};
use culvert_relay::bus::{Arrival, Bus};
use culvert_testkit::relay::Cluster;
use culvert_wire::{ConnId, Generation, Member, TopicId};
use tokio::time::timeout;

use crate::talk::{Peer, member};

/// Much less than any timer that would repair it by chance, the keepalive of 15 s above all.
const AT_ONCE: Duration = Duration::from_secs(8);

async fn both_ways(pair: &mut [RelayConnection; 2], what: &str) -> Result<()> {
    for (from, to) in [(0, 1), (1, 0)] {
        pair[from].send_bytes(Bytes::from(what.to_owned())).await?;
        let heard = timeout(AT_ONCE, pair[to].receive_bytes()).await;
        let heard = heard.with_context(|| format!("nothing came after: {what}"))??;
        assert_eq!(heard.as_deref(), Some(what.as_bytes()));
    }
    Ok(())
}

#[tokio::test]
async fn members_that_are_told_twice_late_or_wrongly_disturb_no_conversation() -> Result<()> {
    let cluster = Cluster::open(2).await?;
    let [one, two] = cluster.nodes() else { anyhow::bail!("two nodes") };
    let secret = TopicSecret::generate();
    let topic = TopicId(secret.topic());
    let mut a = Peer::enter(&one.url(), secret.topic(), member(&secret)).await?;
    let mut b = Peer::enter(&two.url(), secret.topic(), member(&secret)).await?;
    let mut pair = [a.next().await?, b.next().await?];
    both_ways(&mut pair, "all is well").await?;
    // A voice on the bus that says to all nodes what it likes.
    let bus = cluster.hub().bus();
    let members = bus.lookup(topic, 10).await.list;
    assert_eq!(members.len(), 2);
    let arrive = async |member: Member| {
        bus.join(topic, Arrival { member, replaces: ConnId::NONE }, 10).await;
    };
    for real in &members {
        arrive(*real).await;
        arrive(*real).await;
        both_ways(&mut pair, "told again").await?;
        // As after a node's lease lapsed and it came back under its number.
        bus.leave(topic, *real);
        arrive(*real).await;
        both_ways(&mut pair, "left and joined again").await?;
        let never = Member { conn: ConnId(real.conn.0 ^ 1), ..*real };
        bus.leave(topic, never);
        both_ways(&mut pair, "one left that never came").await?;
        let newer = Member { generation: Generation(real.generation.0 + 9), ..never };
        arrive(newer).await;
        both_ways(&mut pair, "a newer connection that is not there").await?;
        bus.leave(topic, *real);
        both_ways(&mut pair, "the real one left, they say").await?;
        arrive(*real).await;
        bus.leave(topic, newer);
        both_ways(&mut pair, "and is back").await?;
        let older = Member { generation: Generation(real.generation.0 - 1), ..never };
        arrive(older).await;
        both_ways(&mut pair, "an older one that is not there").await?;
        bus.leave(topic, older);
        bus.leave(topic, older);
        both_ways(&mut pair, "left twice").await?;
    }
    for peer in [&mut a, &mut b] {
        assert!(peer.connections.try_recv().is_err(), "a second conversation began");
    }
    for connection in &pair {
        let changes = connection.stats().path_changes;
        assert!(changes <= 40, "{changes} changes of the path");
    }
    Ok(())
}

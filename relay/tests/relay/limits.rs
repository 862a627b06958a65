//! Limits on connections: by source address, peer, tenant and node; on the members of a topic; and who
//! the source really is.

use bytes::Bytes;
use culvert_relay::bus::memory::Hub;
use culvert_relay::config::TenantScope;
use culvert_relay::quota::Rate;
use culvert_service_kit::Clock;
use culvert_testkit::relay::Embedded;
use culvert_testkit::{HelloOptions, Identity, RawError, RawOptions, RawPeer, raw};
use culvert_wire::{Close, ConnId, Frame, JoinRefusal, TopicId};
use tokio::io::AsyncWriteExt;

use crate::common::{TOPIC, node, pair_across, peer, peer_as, relay};

async fn hello(relay: &Embedded, options: &RawOptions, identity: &Identity) -> Result<RawPeer, RawError> {
    let mut peer = RawPeer::connect(relay.addr(), options).await?;
    peer.hello(&HelloOptions::new(identity)).await?;
    Ok(peer)
}

fn source(address: &str) -> RawOptions {
    RawOptions::plain("localhost").from(address.parse().unwrap())
}

#[tokio::test]
async fn one_source_address_has_only_so_many_connections_and_others_have_their_own() {
    let relay = relay(|config| config.limits.connections_per_source = 2).await;
    let identity = Identity::random().unwrap();
    let near = source("127.0.0.1");
    let first = hello(&relay, &near, &identity).await.unwrap();
    let _second = hello(&relay, &near, &identity).await.unwrap();
    assert!(hello(&relay, &near, &identity).await.err().unwrap().is_end());
    let _far = hello(&relay, &source("127.0.0.2"), &identity).await.unwrap();
    assert_eq!(relay.metrics().sum("culvert_relay_refused_total", &[("reason", "source")]), 1.0);
    first.close(Close::Done).await.unwrap();
    while hello(&relay, &near, &identity).await.is_err() {}
    relay.kill().await.unwrap();
}

#[tokio::test]
async fn one_source_address_opens_only_so_many_connections_a_second() {
    let relay = relay(|config| config.limits.handshakes_per_source = Rate { per_second: 1, burst: 3 }).await;
    let identity = Identity::random().unwrap();
    for _ in 0..3 {
        hello(&relay, &source("127.0.0.1"), &identity).await.unwrap();
    }
    // One more place a second comes back meanwhile; twenty attempts do not take twenty seconds.
    let mut refused = 0;
    for _ in 0..20 {
        refused += u32::from(hello(&relay, &source("127.0.0.1"), &identity).await.is_err());
    }
    assert!(refused > 0);
    hello(&relay, &source("127.0.0.9"), &identity).await.unwrap();
    relay.kill().await.unwrap();
}

#[tokio::test]
async fn one_peer_has_only_so_many_connections() {
    let relay = relay(|config| config.limits.connections_per_peer = 1).await;
    let (one, other) = (Identity::random().unwrap(), Identity::random().unwrap());
    let _first = peer_as(&relay, &one, 1).await;
    let error = hello(&relay, &source("127.0.0.1"), &one).await.err().unwrap();
    assert_eq!(error.close(), Some(Close::Overloaded), "{error:?}");
    let _other = peer_as(&relay, &other, 1).await;
    relay.kill().await.unwrap();
}

#[tokio::test]
async fn one_tenant_has_only_so_many_connections() {
    let relay = relay(|config| config.limits.connections_per_tenant = 1).await;
    let _first = peer_as(&relay, &Identity::random().unwrap(), 1).await;
    let error = hello(&relay, &source("127.0.0.1"), &Identity::random().unwrap()).await.err().unwrap();
    assert_eq!(error.close(), Some(Close::Overloaded), "{error:?}");
    let refused = |whose| relay.metrics().sum("culvert_relay_seats_refused_total", &[("whose", whose)]);
    assert_eq!((refused("tenant"), refused("peer")), (1.0, 0.0));
    relay.kill().await.unwrap();
}

#[tokio::test]
async fn whose_rate_pauses_a_connection_is_counted() {
    let rate = Rate { per_second: 2000, burst: 500 };
    type Of = fn(&mut culvert_relay::config::Limits) -> &mut Rate;
    let cases: [(&str, Of); 4] = [
        ("connection", |limits| &mut limits.connection_frames),
        ("source", |limits| &mut limits.source_frames),
        ("peer", |limits| &mut limits.peer_frames),
        ("tenant", |limits| &mut limits.tenant_frames),
    ];
    for (whose, limit) in cases {
        let relay = relay(|config| *limit(&mut config.limits) = rate).await;
        let mut peer = peer(&relay).await;
        for token in 0..1000 {
            peer.peer.feed(&Frame::Ping { token, padding: Bytes::new() }).await.unwrap();
        }
        peer.peer.sync(1000).await.unwrap();
        for other in ["connection", "source", "peer", "tenant"] {
            let paused = relay.metrics().sum("culvert_relay_throttled_total", &[("whose", other)]);
            assert_eq!(paused >= 1.0, other == whose, "the rate of a {whose} counts {paused} for a {other}");
        }
        relay.kill().await.unwrap();
    }
}

#[tokio::test]
async fn a_tenant_has_its_limits_on_every_node_unless_they_are_the_clusters() {
    let hub = Hub::new();
    let start = async |scope| {
        node(hub.bus(), Clock::system(), |config| {
            config.limits.connections_per_tenant = 3;
            config.limits.tenant_scope = scope;
        })
        .await
    };
    let (own, part) = (start(TenantScope::Node).await, start(TenantScope::Cluster).await);
    let connect = async |relay: &Embedded| {
        hello(relay, &source("127.0.0.1"), &Identity::random().unwrap()).await.map_err(|error| error.close())
    };
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(connect(&own).await.unwrap());
    }
    open.push(connect(&part).await.unwrap());
    assert_eq!(connect(&part).await.err(), Some(Some(Close::Overloaded)), "half of three");
    own.kill().await.unwrap();
    for _ in 0..2 {
        open.push(connect(&part).await.unwrap());
    }
    assert_eq!(connect(&part).await.err(), Some(Some(Close::Overloaded)), "alone again, all three");
    part.kill().await.unwrap();
}

/// Neither on the node that holds them all nor on one that holds none.
#[tokio::test]
async fn a_topic_has_only_so_many_members_wherever_they_are() {
    let hub = Hub::new();
    let start = async || node(hub.bus(), Clock::system(), |config| config.limits.members_per_topic = 2).await;
    let (left, right) = (start().await, start().await);
    let (mut a, b) = pair_across(&left, &right).await;
    for node in [&left, &right] {
        let mut third = peer(node).await;
        let refused = third.peer.join(TOPIC).await.unwrap_err();
        assert!(matches!(refused, RawError::Refused(JoinRefusal::Limited)), "{refused:?}");
        let came = a.until(|frame| matches!(frame, Frame::PeerJoined { .. })).await;
        assert!(matches!(came, Frame::PeerJoined { member, .. } if member.conn == third.conn));
        a.until(|frame| matches!(frame, Frame::PeerLeft { conn, .. } if *conn == third.conn)).await;
        third.join(TopicId([9; 32])).await;
    }
    a.join(TOPIC).await;
    drop(b);
    a.until(|frame| matches!(frame, Frame::PeerLeft { .. })).await;
    peer(&left).await.join(TOPIC).await;
    let memberships = |node: &Embedded| node.metrics().sum("culvert_relay_memberships", &[]);
    assert!(memberships(&left) >= 2.0 && memberships(&right) <= 1.0);
    left.kill().await.unwrap();
    right.kill().await.unwrap();
}

#[tokio::test]
async fn a_full_node_turns_newcomers_away_and_serves_the_others() {
    let relay = relay(|config| config.limits.connections = 1).await;
    let mut first = peer_as(&relay, &Identity::random().unwrap(), 1).await;
    let error = hello(&relay, &source("127.0.0.1"), &Identity::random().unwrap()).await.err().unwrap();
    assert!(error.is_end(), "{error:?}");
    first.peer.sync(1).await.unwrap();
    assert_eq!(relay.metrics().sum("culvert_relay_refused_total", &[("reason", "node_full")]), 1.0);
    assert_eq!(relay.metrics().sum("culvert_relay_connections_limit", &[]), 1.0);
    relay.kill().await.unwrap();
}

/// PROXY protocol v2 (haproxy's specification, section 2.2): TCP over IPv4 from this address.
fn proxy_header(source: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend_from_slice(&source);
    header.extend_from_slice(&[127, 0, 0, 1, 0x12, 0x34, 0x01, 0xbb]);
    header
}

async fn through_balancer(relay: &Embedded, client: [u8; 4]) -> Result<RawPeer, RawError> {
    let options = RawOptions::plain("localhost");
    let mut stream = raw::dial(relay.addr(), &options).await?;
    stream.write_all(&proxy_header(client)).await.map_err(RawError::Io)?;
    let mut peer = RawPeer::over(stream, &options).await?;
    peer.read_challenge().await?;
    peer.hello(&HelloOptions::new(&Identity::random().unwrap())).await?;
    Ok(peer)
}

#[tokio::test]
async fn behind_a_balancer_the_source_is_the_one_it_names_and_its_word_is_required() {
    let relay = relay(|config| {
        config.proxy_protocol_from = "127.0.0.1".parse().unwrap();
        config.limits.connections_per_source = 1;
    })
    .await;
    let _one = through_balancer(&relay, [192, 0, 2, 1]).await.unwrap();
    let _two = through_balancer(&relay, [192, 0, 2, 2]).await.unwrap();
    assert!(through_balancer(&relay, [192, 0, 2, 1]).await.err().unwrap().is_end());
    let plain = hello(&relay, &source("127.0.0.1"), &Identity::random().unwrap()).await;
    assert!(plain.err().unwrap().is_end(), "the balancer itself must send the header");
    assert_eq!(relay.metrics().sum("culvert_relay_refused_total", &[("reason", "proxy_protocol")]), 1.0);
    let direct = hello(&relay, &source("127.0.0.7"), &Identity::random().unwrap()).await;
    assert_ne!(direct.unwrap().challenge().nonce, [0; 32], "others are not asked for it");
    relay.kill().await.unwrap();
}

#[tokio::test]
async fn nobody_else_is_believed_about_an_address() {
    let relay = relay(|_| {}).await;
    let error = through_balancer(&relay, [192, 0, 2, 1]).await.err().unwrap();
    assert!(error.is_end() || matches!(error, RawError::Status(400)), "{error:?}");
    let mut honest = peer_as(&relay, &Identity::random().unwrap(), 1).await;
    assert_ne!(honest.conn, ConnId::NONE);
    honest.peer.sync(1).await.unwrap();
    relay.kill().await.unwrap();
}

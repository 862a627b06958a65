//! What the command line asks and tells.

use culvert_relay::admission::Revoked;
use culvert_relay::bus::redis::control::{Control, ControlError};
use culvert_relay::bus::redis::lease::Event;
use culvert_wire::PeerId;

use super::node::{Node, redis, settings};

#[tokio::test]
async fn the_status_lists_nodes_and_counts_what_is_revoked() {
    let redis = redis().await;
    let control = Control::new(&settings(&redis)).unwrap();
    let nobody = control.status().await.unwrap();
    assert_eq!((nobody.nodes.taken(), nobody.revocations), (0, 0));
    let (a, b) = (Node::start(&settings(&redis)).await, Node::start(&settings(&redis)).await);
    a.lease.set_degraded(true);
    a.lease.refresh().await;
    control.revoke(Revoked::Ticket("past".to_owned()), 1).await.unwrap();
    control.revoke(Revoked::Peer(PeerId([3; 32])), 4_000_000_000).await.unwrap();
    let status = control.status().await.unwrap();
    assert_eq!(status.revocations, 1);
    assert_eq!(status.nodes.live().count(), 2);
    for node in [&a, &b] {
        let (number, life) = node.own();
        let lease = &status.nodes.leases[&number];
        assert_eq!(lease.incarnation, life);
        assert_eq!((lease.about.connections, lease.about.memberships), (3, 4));
        assert!(lease.expires > status.nodes.now && lease.about.since > 1_600_000_000);
        assert_eq!(lease.about.version, env!("CARGO_PKG_VERSION"));
    }
    assert!(status.nodes.leases[&a.own().0].about.degraded.is_some());
    assert_eq!(status.redis.problems, Vec::<String>::new());
}

#[tokio::test]
async fn a_revocation_reaches_the_nodes_and_needs_a_redis_that_answers() {
    let mut redis = redis().await;
    let mut node = Node::start(&settings(&redis)).await;
    let control = Control::new(&settings(&redis)).unwrap();
    let peer = Revoked::Peer(PeerId([3; 32]));
    control.revoke(peer.clone(), 4_000_000_000).await.unwrap();
    let told = node.until(|event| matches!(event, Event::Revoked(_))).await;
    let Some(Event::Revoked(list)) = told.last() else { panic!() };
    assert_eq!(list.iter().collect::<Vec<_>>(), [(peer.clone(), 4_000_000_000)]);
    redis.kill().await.unwrap();
    let error = control.revoke(peer, 5_000_000_000).await.unwrap_err();
    assert!(matches!(error, ControlError::Reach(_) | ControlError::Redis(_)), "{error}");
    assert!(control.status().await.is_err());
}

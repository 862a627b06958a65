//! What every bus has to do, seen by peers on several nodes: one rule, one test, the same for all.
//!
//! A bus brings a [`World`]: where its nodes come from, and how what connects them is broken. A bug found
//! over one bus becomes a rule here, so that the others are asked as well.

#![allow(dead_code, reason = "some test programs ask only for a part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests: what fails here fails the test")]

pub(crate) mod faults;
pub(crate) mod loss;
pub(crate) mod members;
pub(crate) mod order;

use std::time::Duration;

use async_trait::async_trait;
use culvert_relay::Config;
use culvert_relay::admission::Revoked;
use culvert_testkit::relay::Embedded;
use culvert_wire::{Class, ConnId, Frame, Verdict};
use futures_util::FutureExt;

use crate::common::Peer;

/// Longest time for one rule, on a machine that is busy with other tests.
pub(crate) const LIMIT: Duration = Duration::from_secs(180);
/// Longest wait for something that another node has to notice: a lease that runs out, and then some.
const NOTICED: Duration = Duration::from_secs(60);

/// A cluster over one bus, for one test.
#[async_trait(?Send)]
pub(crate) trait World {
    /// One more node with this configuration, ready.
    async fn node_with(&self, config: Config) -> Embedded;

    /// Takes the way between this node and all others away: what is under way does not arrive.
    async fn cut(&self, node: &Embedded);

    /// Gives the way back.
    async fn heal(&self, node: &Embedded);

    /// Revokes until `until`, in seconds since 1970, on every node.
    async fn revoke(&self, revoked: Revoked, until: u64);

    /// Gives the node's number to somebody else, so that the node has to take another one.
    async fn fence(&self, node: &Embedded);

    /// Holds what the rule left behind against what the world asks of a bus beside the rules.
    async fn ended(&self) {}

    /// One more node with nothing special.
    async fn node(&self) -> Embedded {
        self.node_with(Embedded::config()).await
    }
}

/// One test per rule, each in a world of its own, which `$world` (an expression that is awaited) makes.
macro_rules! conformance {
    ($world:expr => $($module:ident: $($rule:ident),+;)+) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $rule() {
                let rule = async {
                    let world = $world;
                    $crate::conformance::$module::$rule(&world).await;
                    $crate::conformance::World::ended(&world).await;
                };
                let ended = tokio::time::timeout($crate::conformance::LIMIT, rule).await;
                ended.expect("the rule is tried in time");
            }
        )+)+
    };
    ($world:expr) => {
        conformance! { $world =>
            order:
                frames_between_two_nodes_keep_their_order_in_both_directions,
                a_broadcast_reaches_every_member_once_and_in_order_with_unicast,
                large_and_small_frames_arrive_untouched;
            members:
                of_two_that_join_at_the_same_time_at_least_one_sees_the_other,
                a_departure_is_told_behind_what_was_sent,
                a_lookup_spans_the_nodes_and_is_sampled,
                a_connection_that_replaces_another_is_announced_as_the_newest,
                a_node_that_goes_away_takes_its_members_along,
                what_was_revoked_is_out_on_every_node_and_on_later_ones;
            loss:
                frames_to_whoever_is_not_there_are_gone,
                frames_that_wait_for_a_receiver_that_ends_are_gone,
                a_receiver_that_does_not_read_costs_verdicts_and_flows_again_afterwards,
                a_flood_between_two_nodes_is_bounded_and_accounted_for;
            faults:
                a_node_that_is_cut_off_serves_its_own_and_says_so,
                what_was_sent_over_a_cut_is_delivered_or_reported_or_announced,
                a_node_that_lost_its_number_starts_over_under_another;
        }
    };
}
pub(crate) use conformance;

/// A configuration with something special.
pub(crate) fn config(set: impl FnOnce(&mut Config)) -> Config {
    let mut config = Embedded::config();
    set(&mut config);
    config
}

/// A frame that carries a number.
pub(crate) fn numbered(from: &Peer, to: ConnId, number: u32) -> Frame {
    large(from, to, number, 4)
}

/// A frame of so many bytes that carries a number.
pub(crate) fn large(from: &Peer, to: ConnId, number: u32, bytes: usize) -> Frame {
    let mut payload = vec![0; bytes];
    payload[..4].copy_from_slice(&number.to_be_bytes());
    Frame::Send { class: Class::Normal, handle: from.handle, to, payload: payload.into() }
}

/// The number that a payload carries.
pub(crate) fn number(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload[..4].try_into().unwrap())
}

/// What became of numbered frames from one peer to another.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// Delivered, in rising order.
    pub(crate) got: u64,
    /// With a verdict.
    pub(crate) reported: u64,
    /// Announced as perhaps lost.
    pub(crate) announced: u64,
    /// The last that was delivered.
    pub(crate) last: Option<u32>,
}

impl Account {
    /// Counts what has come to the receiver.
    pub(crate) fn receive(&mut self, receiver: &mut Peer, sender: ConnId) {
        while let Some(frame) = receiver.peer.recv().now_or_never() {
            match frame.unwrap() {
                Frame::Deliver { from, payload, .. } if from == sender => {
                    let this = number(&payload);
                    assert!(self.last < Some(this), "{this} after {:?}", self.last);
                    (self.last, self.got) = (Some(this), self.got + 1);
                }
                Frame::Gap { count, .. } => self.announced += u64::from(count),
                _ => {}
            }
        }
    }

    /// Counts the verdicts that have come to the sender, which must be among these.
    pub(crate) fn learn(&mut self, sender: &mut Peer, receiver: ConnId, verdicts: &[Verdict]) {
        while let Some(frame) = sender.peer.recv().now_or_never() {
            if let Frame::Undeliverable { to, verdict, count, .. } = frame.unwrap()
                && to == receiver
            {
                assert!(verdicts.contains(&verdict), "{verdict:?}");
                self.reported += u64::from(count);
            }
        }
    }

    /// Waits until every frame was delivered or has a verdict.
    pub(crate) async fn settle(&mut self, sender: &mut Peer, receiver: &mut Peer, sent: u64) {
        let wait = async {
            while self.got + self.reported != sent {
                tokio::time::sleep(Duration::from_millis(5)).await;
                self.receive(receiver, sender.conn);
                self.learn(sender, receiver.conn, &[Verdict::Full]);
            }
        };
        let settled = tokio::time::timeout(NOTICED, wait).await;
        assert!(settled.is_ok(), "of {sent} frames {self:?}");
    }
}

/// Waits until it holds, whatever another node needs for it.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(NOTICED, wait).await.is_ok(), "{what} does not come to hold");
}

/// Waits until everything that the nodes have read is delivered or has a verdict, to the frame.
pub(crate) async fn balances(nodes: &[&Embedded]) {
    let sum = |name: &str, labels: &[(&str, &str)]| -> f64 {
        nodes.iter().map(|node| node.metrics().sum(name, labels)).sum()
    };
    eventually("the balance", async || {
        let read = sum("culvert_relay_frames_received_total", &[("kind", "send")]);
        let delivered = sum("culvert_relay_frames_delivered_total", &[]);
        read == delivered + sum("culvert_relay_undeliverable_total", &[])
    })
    .await;
}

/// Ends nodes, so that their ends are part of the test.
pub(crate) async fn kill(nodes: impl IntoIterator<Item = Embedded>) {
    for node in nodes {
        node.kill().await.unwrap();
    }
}

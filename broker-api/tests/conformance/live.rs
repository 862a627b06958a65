//! What is true now: the rules of `culvert_broker_api::live::Live`, held in memory and in Redis alike.
//!
//! Redis stands for two replicas on one server, and once for two on a cluster. What only Redis can do, lose
//! everything or be replaced, is in [`faults`].

mod events;
mod faults;
mod once;
mod presence;
mod rates;
mod stage;

use stage::{Stage, within};

/// Runs each rule in memory and on a Redis of its own, and all of them on one cluster.
macro_rules! rules {
    ($($module:ident::$rule:ident),+ $(,)?) => {
        mod memory {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $rule() {
                within(async { $module::$rule(&mut Stage::memory()).await }).await;
            })+
        }
        mod redis {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $rule() {
                within(async { $module::$rule(&mut Stage::redis().await).await }).await;
            })+
        }
        #[tokio::test(flavor = "multi_thread")]
        async fn every_rule_holds_on_a_redis_cluster() {
            within(async {
                let cluster = culvert_testkit::redis::RedisCluster::start().await.unwrap();
                $({
                    let mut stage = Stage::cluster(&cluster, stringify!($rule)).await;
                    $module::$rule(&mut stage).await;
                })+
            })
            .await;
        }
    };
}

rules! {
    presence::a_user_turns_with_the_first_connection_and_with_the_last,
    presence::a_connection_that_is_known_already_is_replaced,
    presence::connections_are_given_oldest_first_with_all_that_is_known,
    presence::a_connection_ends_with_its_time_and_is_swept_by_one,
    presence::a_connection_that_is_renewed_stays_and_a_lost_one_is_entered_again,
    presence::whoever_is_online_is_told_apart_in_order,
    presence::users_with_odd_names_do_not_meet,
    events::every_replica_hears_a_user_turn_once,
    events::whatever_is_published_is_heard_as_it_was,
    once::a_value_is_kept_while_it_is_free_and_taken_once,
    once::a_kept_value_ends_with_its_time,
    once::a_nonce_is_new_once_wherever_it_is_used,
    once::a_memory_of_nonces_that_begins_asks_for_the_horizon_and_refuses_what_is_older,
    rates::a_bucket_gives_its_burst_and_then_says_how_long_to_wait,
    rates::several_buckets_give_all_or_none,
    rates::a_refund_fills_a_bucket_but_not_over_its_brim,
    rates::replicas_at_once_take_no_more_than_there_is,
}

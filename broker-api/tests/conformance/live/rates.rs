//! How often something may be done.

use std::time::Duration;

use culvert_broker_api::live::{Rate, Taken};
use futures_util::future::join_all;

use super::stage::{Stage, eventually};

fn bucket(name: &str, per_second: f64, burst: u32) -> (String, Rate) {
    (name.to_owned(), Rate { per_second, burst })
}

/// Fills so slowly that no test sees it.
fn slow(name: &str, burst: u32) -> (String, Rate) {
    bucket(name, 1e-4, burst)
}

pub(super) async fn a_bucket_gives_its_burst_and_then_says_how_long_to_wait(stage: &mut Stage) {
    let bucket = [bucket("b", 20.0, 3)];
    for _ in 0..3 {
        assert_eq!(stage.first().charge(&bucket, 1).await.unwrap(), Taken::Allowed);
    }
    let Taken::Wait(wait) = stage.last().charge(&bucket, 1).await.unwrap() else { panic!("a fourth one") };
    assert!(wait > Duration::ZERO && wait <= Duration::from_millis(50), "{wait:?}");
    let Taken::Wait(_) = stage.last().charge(&bucket, 4).await.unwrap() else { panic!("more than fits") };
    stage.clock.advance(wait);
    let live = stage.last();
    eventually("nothing comes", async || {
        (live.charge(&bucket, 1).await.unwrap() == Taken::Allowed).then_some(())
    })
    .await;
    // What never fills and holds nothing gives nothing.
    let never = [("never".to_owned(), Rate { per_second: 0.0, burst: 0 })];
    assert!(matches!(stage.first().charge(&never, 1).await.unwrap(), Taken::Wait(_)));
}

pub(super) async fn several_buckets_give_all_or_none(stage: &mut Stage) {
    let (wide, narrow) = (slow("wide", 3), slow("narrow", 1));
    assert_eq!(stage.first().charge(&[wide.clone(), narrow.clone()], 1).await.unwrap(), Taken::Allowed);
    for _ in 0..5 {
        let both = stage.last().charge(&[wide.clone(), narrow.clone()], 1).await.unwrap();
        assert!(matches!(both, Taken::Wait(_)));
    }
    assert_eq!(stage.first().charge(std::slice::from_ref(&wide), 2).await.unwrap(), Taken::Allowed);
    assert!(matches!(stage.last().charge(&[wide], 1).await.unwrap(), Taken::Wait(_)));
}

pub(super) async fn a_refund_fills_a_bucket_but_not_over_its_brim(stage: &mut Stage) {
    let bucket = [slow("b", 2)];
    assert_eq!(stage.first().charge(&bucket, 2).await.unwrap(), Taken::Allowed);
    stage.last().refund(&bucket, 1).await.unwrap();
    assert_eq!(stage.first().charge(&bucket, 1).await.unwrap(), Taken::Allowed);
    assert!(matches!(stage.first().charge(&bucket, 1).await.unwrap(), Taken::Wait(_)));
    stage.last().refund(&bucket, 100).await.unwrap();
    assert_eq!(stage.first().charge(&bucket, 2).await.unwrap(), Taken::Allowed);
    assert!(matches!(stage.first().charge(&bucket, 1).await.unwrap(), Taken::Wait(_)));
}

pub(super) async fn replicas_at_once_take_no_more_than_there_is(stage: &mut Stage) {
    let bucket = [slow("b", 10)];
    let charges = (0..40).map(|turn| stage.replicas[turn % stage.replicas.len()].charge(&bucket, 1));
    let taken = join_all(charges).await;
    assert_eq!(taken.into_iter().filter(|taken| *taken.as_ref().unwrap() == Taken::Allowed).count(), 10);
}

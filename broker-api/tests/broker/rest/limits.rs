//! How much may be done.

use culvert_broker_api::live::Rate;

use super::*;

async fn narrow() -> (Running, Clock) {
    let clock = Clock::manual(START);
    let broker = Running::sqlite_with(clock.clone(), |config| {
        config.limits.requests = Rate { per_second: 0.5, burst: 5 };
        config.limits.body_bytes = 4096;
    })
    .await;
    (broker, clock)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hole_1_b_7_who_asks_too_often_waits_as_long_as_told_and_costs_nothing() {
    let (broker, clock) = narrow().await;
    let (alice, bob) = (broker.signed_in("alice").await, broker.signed_in("bob").await);
    let ask = async |who: Option<&str>| {
        let request = Request::get("/api/users/me");
        broker.ask(who.into_iter().fold(request, Request::by)).await
    };
    for _ in 0..5 {
        ask(Some(&alice)).await.expect(200);
    }
    let refused = ask(Some(&alice)).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (429, "RATE_LIMITED"));
    assert_eq!(refused.header("retry-after"), Some("2"));
    assert!((broker.counted("culvert_broker_rate_limited_total", "") - 1.0).abs() < 1e-9);
    ask(Some(&bob)).await.expect(200);
    // Somebody unknown is counted by address, apart from users.
    for _ in 0..5 {
        assert_eq!(ask(None).await.code(), "AUTH_REQUIRED");
    }
    assert_eq!(ask(None).await.code(), "RATE_LIMITED");
    for free in ["/health", "/api/info", "/.well-known/jwks.json", "/openapi.json"] {
        assert_eq!(broker.ask(Request::get(free)).await.status.as_u16(), 200, "{free}");
    }
    clock.advance(Duration::from_secs(2));
    ask(Some(&alice)).await.expect(200);
    assert_eq!(ask(Some(&alice)).await.code(), "RATE_LIMITED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hole_1_b_7_a_body_that_is_too_large_is_refused() {
    let (broker, _) = narrow().await;
    let alice = broker.signed_in("alice").await;
    let mut large = share(json!({ "type": "public" }));
    large["description"] = "x".repeat(4096).into();
    let refused = broker.ask(Request::post("/api/shares", &large).by(&alice)).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (413, "TOO_LARGE"));
    let keyed = Request::post("/api/shares", &large).header("idempotency-key", "k").by(&alice);
    assert_eq!(broker.ask(keyed).await.code(), "TOO_LARGE");
    let signed = Request::post("/api/shares", &large).header("x-api-key", "rpa_x");
    assert_eq!(broker.ask(signed).await.code(), "TOO_LARGE");
}

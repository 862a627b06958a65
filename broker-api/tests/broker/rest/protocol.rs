//! HTTP itself: paths, methods, media types, broken JSON, origins, and what is for everybody.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_a_problem_too() {
    let (broker, _) = at_a_time().await;
    let missing = broker.ask(Request::get("/api/nonsense")).await;
    assert_eq!((missing.status.as_u16(), missing.code().as_str()), (404, "NOT_FOUND"));
    assert_eq!(missing.header("content-type"), Some("application/problem+json"));
    let problem = missing.json();
    assert_eq!((&problem["type"], &problem["title"]), (&json!("about:blank"), &json!("Not Found")));
    let method = broker.ask(Request::new(hyper::Method::PUT, "/api/info")).await;
    assert_eq!((method.status.as_u16(), method.code().as_str()), (405, "NOT_FOUND"));
    assert!(method.header("allow").unwrap().contains("GET"));
    let path = broker.ask(Request::get("/api/shares/%FF")).await;
    assert_eq!((path.status.as_u16(), path.code().as_str()), (400, "INVALID_INPUT"));
    let upgrade = broker.ask(Request::get("/ws")).await;
    assert!(upgrade.status.is_client_error() && !upgrade.code().is_empty(), "{upgrade:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_no_json_for_the_request_is_refused() {
    let (broker, _) = at_a_time().await;
    let alice = broker.signed_in("alice").await;
    let post = |body: Vec<u8>| {
        let request =
            Request::new(hyper::Method::POST, "/api/teams").header("content-type", "application/json");
        request.body(body).by(&alice)
    };
    let deep = "[".repeat(200_000);
    for bad in [
        &b""[..],
        b"{",
        b"null",
        b"[]",
        b"{}",
        b"{\"name\":7}",
        b"{\"name\":\"a\",\"name\":\"b\"}",
        b"{\"name\":\"a\"} x",
        b"{\"name\":\"\xff\"}",
        b"{\"name\":\"\\ud800\"}",
        deep.as_bytes(),
    ] {
        let refused = broker.ask(post(bad.to_vec())).await;
        let shown = String::from_utf8_lossy(&bad[..bad.len().min(40)]);
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (400, "PARSE_ERROR"), "{shown}");
    }
    for kind in ["text/plain", "application/x-www-form-urlencoded", "nonsense"] {
        let request = Request::new(hyper::Method::POST, "/api/teams").header("content-type", kind);
        let refused = broker.ask(request.body("{\"name\":\"a\"}").by(&alice)).await;
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (415, "PARSE_ERROR"), "{kind}");
    }
    let missing = Request::new(hyper::Method::POST, "/api/teams").body("{\"name\":\"a\"}").by(&alice);
    assert_eq!(broker.ask(missing).await.status.as_u16(), 415);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_proves_nothing_is_refused_even_where_none_is_needed() {
    let (broker, _) = at_a_time().await;
    let alice = broker.signed_in("alice").await;
    let token = published(&broker, &alice, json!({ "type": "public" })).await;
    for bad in ["cst_nonsense", "", "x"] {
        let refused = look_up(&broker, &token, Some(bad)).await;
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (401, "AUTH_FAILED"), "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_other_origins_may_call_only_when_they_are_configured() {
    let preflight = |origin: &str| {
        Request::new(hyper::Method::OPTIONS, "/api/shares")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,idempotency-key")
    };
    let (closed, _) = at_a_time().await;
    let answer = closed.ask(preflight("https://app.example")).await;
    assert_eq!(answer.header("access-control-allow-origin"), None);
    let open = Running::sqlite_with(Clock::system(), |config| {
        config.cors_origins = vec!["https://app.example".to_owned()];
    })
    .await;
    let allowed = open.ask(preflight("https://app.example")).await;
    assert_eq!(allowed.header("access-control-allow-origin"), Some("https://app.example"));
    assert!(allowed.header("access-control-allow-headers").unwrap().contains("idempotency-key"));
    assert_eq!(open.ask(preflight("https://evil.example")).await.header("access-control-allow-origin"), None);
    let answer = open.ask(Request::get("/api/info").header("origin", "https://app.example")).await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_may_read_information_and_the_description_of_the_api() {
    let (broker, _) = at_a_time().await;
    let info = broker.ask(Request::get("/api/info")).await.expect(200);
    assert_eq!((&info["institution"], &info["relays"]), (&json!("lab"), &json!(["wss://relay.example"])));
    assert_eq!((&info["limits"]["token"], &info["limits"]["description"]), (&json!(128), &json!(4096)));
    assert_eq!(info["ways"], json!(["account", "device", "credential"]));
    let document = broker.ask(Request::get("/openapi.json")).await;
    assert_eq!(String::from_utf8(document.body.to_vec()).unwrap(), culvert_broker_api::rest::openapi_json());
    let page = broker.ask(Request::get("/docs")).await;
    let policy = page.header("content-security-policy").unwrap().to_owned();
    assert!(policy.contains("default-src 'none'"), "{policy}");
    let html = String::from_utf8(page.body.to_vec()).unwrap();
    assert!(!html.contains("http://") && !html.contains("https://"), "the page needs nothing from elsewhere");
    for part in ["/docs/page.js", "/docs/page.css"] {
        assert!(html.contains(part));
        broker.ask(Request::get(part)).await.expect_ok();
    }
}

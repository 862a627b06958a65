//! Teams: members see them, admins change them, others do not know of them.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_team_is_made_filled_renamed_and_deleted() {
    let (broker, _) = at_a_time().await;
    let (alice, bob) = (broker.signed_in("alice").await, broker.signed_in("bob@lab.edu").await);
    let made = broker.ask(Request::post("/api/teams", &json!({ "name": "Lab" })).by(&alice)).await;
    let team = made.expect(201);
    let path = made.header("location").unwrap().to_owned();
    assert_eq!((&team["role"], made.header("etag")), (&json!("admin"), Some("\"1\"")));
    let member = format!("{path}/members/bob%40lab.edu");
    broker.ask(Request::put(&member, &json!({})).by(&alice)).await.expect(200);
    let members = broker.ask(Request::get(&format!("{path}/members")).by(&bob)).await.expect(200);
    assert_eq!(members["members"].as_array().unwrap().len(), 2);
    let bobs = broker.ask(Request::get("/api/teams").by(&bob)).await.expect(200);
    assert_eq!((&bobs["teams"][0]["id"], &bobs["teams"][0]["role"]), (&team["id"], &json!("member")));

    let same = broker.ask(Request::get(&path).by(&bob).header("if-none-match", "\"1\"")).await;
    assert_eq!(same.status.as_u16(), 304);
    let rename = || Request::new(hyper::Method::PATCH, &path).json(&json!({ "name": "New" }));
    assert_eq!(broker.ask(rename().by(&bob)).await.code(), "FORBIDDEN");
    let renamed = broker.ask(rename().by(&alice).header("if-match", "\"1\"")).await;
    assert_eq!((&renamed.expect(200)["name"], renamed.header("etag")), (&json!("New"), Some("\"2\"")));
    assert_eq!(broker.ask(rename().by(&alice).header("if-match", "\"1\"")).await.status.as_u16(), 412);

    let token = published(&broker, &alice, json!({ "type": "team", "team_id": team["id"] })).await;
    look_up(&broker, &token, Some(&bob)).await.expect(200);
    assert_eq!(broker.ask(Request::delete(&path).by(&bob)).await.code(), "FORBIDDEN");
    let stale = broker.ask(Request::delete(&path).by(&alice).header("if-match", "\"1\"")).await;
    assert_eq!(stale.status.as_u16(), 412);
    broker.ask(Request::delete(&path).by(&alice)).await.expect(204);
    assert_eq!(broker.ask(Request::get(&path).by(&alice)).await.code(), "NOT_FOUND");
    assert_eq!(look_up(&broker, &token, Some(&bob)).await.code(), "SHARE_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_elses_team_looks_like_none() {
    let (broker, _) = at_a_time().await;
    let (alice, eve) = (broker.signed_in("alice").await, broker.signed_in("eve").await);
    broker
        .ask(Request::post("/api/teams", &json!({ "id": "lab", "name": "Lab" })).by(&alice))
        .await
        .expect(201);
    let requests = |team: &str| {
        let path = format!("/api/teams/{team}");
        [
            Request::get(&path),
            Request::delete(&path),
            Request::new(hyper::Method::PATCH, &path).json(&json!({ "name": "mine" })),
            Request::get(&format!("{path}/members")),
            Request::put(&format!("{path}/members/eve"), &json!({ "role": "admin" })),
            Request::delete(&format!("{path}/members/alice")),
            Request::delete(&format!("{path}/members/eve")),
        ]
    };
    for (known, unknown) in requests("lab").into_iter().zip(requests("nowhere")) {
        let (known, unknown) = (broker.ask(known.by(&eve)).await, broker.ask(unknown.by(&eve)).await);
        assert_eq!((known.status, &known.body), (unknown.status, &unknown.body));
        assert_eq!((known.status.as_u16(), known.code().as_str()), (404, "NOT_FOUND"));
    }
    let taken = broker.ask(Request::post("/api/teams", &json!({ "id": "lab", "name": "x" })).by(&eve)).await;
    assert_eq!((taken.status.as_u16(), taken.code().as_str()), (409, "CONFLICT"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_team_keeps_an_admin_and_a_member_may_leave() {
    let (broker, _) = at_a_time().await;
    let (alice, bob) = (broker.signed_in("alice").await, broker.signed_in("bob").await);
    broker
        .ask(Request::post("/api/teams", &json!({ "id": "lab", "name": "Lab" })).by(&alice))
        .await
        .expect(201);
    broker.ask(Request::put("/api/teams/lab/members/bob", &json!({})).by(&alice)).await.expect(200);
    for last in [
        Request::delete("/api/teams/lab/members/alice"),
        Request::put("/api/teams/lab/members/alice", &json!({ "role": "member" })),
    ] {
        assert_eq!(broker.ask(last.by(&alice)).await.code(), "CONFLICT");
    }
    let nobody = Request::put("/api/teams/lab/members/nobody", &json!({})).by(&alice);
    assert_eq!(broker.ask(nobody).await.code(), "USER_NOT_FOUND");
    broker.ask(Request::delete("/api/teams/lab/members/bob").by(&bob)).await.expect(204);
    assert_eq!(broker.ask(Request::get("/api/teams/lab").by(&bob)).await.code(), "NOT_FOUND");
    let gone = broker.ask(Request::delete("/api/teams/lab/members/bob").by(&alice)).await;
    assert_eq!(gone.code(), "USER_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn administrators_see_all_teams_and_others_do_not() {
    let (broker, _) = at_a_time().await;
    let (alice, root) = (broker.signed_in("alice").await, admin(&broker).await);
    broker
        .ask(Request::post("/api/teams", &json!({ "id": "lab", "name": "Lab" })).by(&alice))
        .await
        .expect(201);
    assert_eq!(broker.ask(Request::get("/api/teams?all=true").by(&alice)).await.code(), "FORBIDDEN");
    let all = broker.ask(Request::get("/api/teams?all=true").by(&root)).await.expect(200);
    assert_eq!(all["teams"][0]["id"], "lab");
    broker.ask(Request::get("/api/teams/lab").by(&root)).await.expect(200);
    broker.ask(Request::delete("/api/teams/lab").by(&root)).await.expect(204);
}

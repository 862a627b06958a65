//! A database that goes away, hangs, or comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use culvert_broker_api::store::postgres::PostgresStore;
use culvert_broker_api::store::sqlite::SqliteStore;
use culvert_broker_api::store::{Access, NewTeam, Shares, Store, StoreError, TeamRole, Users};
use culvert_broker_wire::AccessPolicy;
use culvert_testkit::postgres::{PostgresPlan, PostgresServer};
use tokio::io::copy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::stage::{at, backup, collect, hash, page, pieces, share, user, within};

const PATIENCE: Duration = Duration::from_secs(2);

async fn server() -> (PostgresServer, String, Arc<dyn Store>) {
    let server = PostgresPlan::new().unwrap().start().await.unwrap();
    let url = server.create_database().await.unwrap();
    let store: Arc<dyn Store> = Arc::new(PostgresStore::connect(&url, 4, PATIENCE).unwrap());
    store.migrate(None).await.unwrap();
    (server, url, store)
}

fn is_unavailable<T>(outcome: &Result<T, StoreError>) -> bool {
    matches!(outcome, Err(StoreError::Unavailable(_)))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_postgres_is_killed_in_the_middle_of_transactions() {
    within(async {
        let (mut server, _, store) = server().await;
        store.admit(user("owner"), at(0)).await.unwrap();
        for round in 0..3 {
            let mut writers = JoinSet::new();
            for writer in 0..4 {
                let store = Arc::clone(&store);
                writers.spawn(async move {
                    let mut acknowledged = Vec::new();
                    for number in 0.. {
                        let id = format!("{round}-{writer}-{number}");
                        let team =
                            NewTeam { id: id.clone(), name: id.clone(), created_by: "owner".to_owned() };
                        match store.create_team(team, at(number)).await {
                            Ok(_) => acknowledged.push(id),
                            Err(StoreError::Unavailable(_)) => break,
                            Err(error) => panic!("{error:?}"),
                        }
                    }
                    acknowledged
                });
            }
            // Killed when all of it is in full swing.
            while store.team(&format!("{round}-0-9")).await.unwrap().is_none() {
                tokio::task::yield_now().await;
            }
            server.kill().await.unwrap();
            let acknowledged: Vec<_> = writers.join_all().await.into_iter().flatten().collect();
            assert!(is_unavailable(&store.team("any").await) && is_unavailable(&store.check().await));
            assert!(is_unavailable(&store.admit(user("late"), at(1)).await));
            server.start_again().await.unwrap();
            store.check().await.unwrap();
            for id in &acknowledged {
                assert!(store.team(id).await.unwrap().is_some(), "{id} was acknowledged");
                // All of the transaction, not a part.
                assert_eq!(store.role_in(id, "owner").await.unwrap(), Some(TeamRole::Admin));
            }
            assert!(acknowledged.len() >= 10);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_notices_that_postgres_was_restarted_between_two_requests() {
    within(async {
        let (mut server, _, store) = server().await;
        for round in 0..3 {
            store.admit(user("alice"), at(0)).await.unwrap();
            // All connections are open, and all of them are dead afterwards.
            let reads = (0..8).map(|_| store.user("alice"));
            futures_util::future::join_all(reads).await.into_iter().for_each(|user| drop(user.unwrap()));
            server.stop().await.unwrap();
            server.start_again().await.unwrap();
            if round % 2 == 0 {
                assert!(store.user("alice").await.unwrap().is_some());
            }
            store.admit(user(&format!("new {round}")), at(1)).await.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_hangs_is_unavailable_in_time_and_used_again_when_it_answers() {
    within(async {
        let (server, _, store) = server().await;
        store.admit(user("alice"), at(0)).await.unwrap();
        server.pause().unwrap();
        let begun = Instant::now();
        let (read, write) = tokio::join!(store.user("alice"), store.admit(user("bob"), at(1)));
        assert!(is_unavailable(&read) && is_unavailable(&write));
        assert!(begun.elapsed() < PATIENCE * 4, "{:?}", begun.elapsed());
        server.resume().unwrap();
        assert!(store.user("alice").await.unwrap().is_some());
        store.admit(user("carol"), at(1)).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_waits_for_a_lock_is_given_up_by_the_server_too() {
    within(async {
        use sqlx::{Connection, PgConnection, Row};
        let (_server, url, store) = server().await;
        store.admit(user("alice"), at(0)).await.unwrap();
        let mut other = PgConnection::connect(&url).await.unwrap();
        let mut lock = other.begin().await.unwrap();
        sqlx::raw_sql("SELECT 1 FROM users FOR UPDATE").execute(&mut *lock).await.unwrap();
        assert!(is_unavailable(&store.set_password("alice", Some("x".to_owned())).await));
        // Nothing waits for the lock any more, so that the change cannot be made later behind everybody's back.
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        let until = Instant::now() + PATIENCE * 5;
        while sqlx::query(waiting).fetch_one(&mut *lock).await.unwrap().get::<i64, _>(0) > 0 {
            assert!(Instant::now() < until, "the server still waits");
        }
        lock.rollback().await.unwrap();
        assert_eq!(store.user("alice").await.unwrap().unwrap().password_hash, None);
        assert!(store.set_password("alice", Some("y".to_owned())).await.unwrap());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_there_yet_is_waited_for() {
    within(async {
        let (mut server, _, _) = server().await;
        let url = server.create_database().await.unwrap();
        server.stop().await.unwrap();
        let store = PostgresStore::connect(&url, 2, PATIENCE).unwrap();
        assert!(is_unavailable(&store.migrate(None).await));
        let migrating = store.migrate(Some(Duration::from_secs(120)));
        let (migrated, started) = tokio::join!(migrating, server.start_again());
        started.unwrap();
        migrated.unwrap();
        store.check().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_under_way_survives_a_restart_or_is_never_seen() {
    within(async {
        let (mut server, _, store) = server().await;
        store.admit(user("alice"), at(0)).await.unwrap();
        let state = vec![3; 900 * 1024];
        let put = |bytes| store.put_backup("alice", backup(bytes), at(1));
        put(pieces(&state, 1 << 16)).await.unwrap();
        let (go_down, down) = tokio::sync::oneshot::channel();
        let (go_on, wait) = tokio::sync::oneshot::channel::<()>();
        use futures_util::{StreamExt, stream};
        let pause = stream::once(async move {
            go_down.send(()).unwrap();
            wait.await.unwrap();
            Ok(bytes::Bytes::from_static(&[7; 300 * 1024]))
        });
        let uploading = put(pieces(&[7; 600 * 1024], 1 << 16).chain(pause).boxed());
        let fault = async {
            down.await.unwrap();
            server.kill().await.unwrap();
            server.start_again().await.unwrap();
            go_on.send(()).unwrap();
        };
        let (outcome, ()) = tokio::join!(uploading, fault);
        let (meta, bytes) = store.backup("alice", None).await.unwrap().unwrap();
        let bytes = collect(bytes).await.unwrap();
        match outcome {
            Ok(stored) => assert_eq!((stored.version, meta.version, bytes), (2, 2, vec![7; 900 * 1024])),
            Err(StoreError::Unavailable(_)) => assert_eq!((meta.version, bytes), (1, state)),
            Err(error) => panic!("{error:?}"),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_given_up_in_the_middle_leaves_no_lock_behind() {
    within(async {
        let (_server, _, store) = server().await;
        store.admit(user("alice"), at(0)).await.unwrap();
        let mut finished = 0;
        for polls in 1..60 {
            let name = format!("share {polls}");
            let mut publishing =
                Box::pin(store.publish(share("alice", &name, AccessPolicy::public()), at(1)));
            for _ in 0..polls {
                let soon = timeout(Duration::from_micros(150), &mut publishing).await;
                if soon.is_ok() {
                    finished += 1;
                    break;
                }
            }
        }
        assert!(finished > 0, "some of them were not given up");
        // Waits for every lock that is left.
        assert!(store.delete_user("alice", at(2)).await.unwrap());
    })
    .await;
}

/// As it was made by the first DDALAB broker.
const FIRST_BROKER: &str = "
    CREATE TABLE shared_results (
        share_token TEXT PRIMARY KEY, owner_user_id TEXT NOT NULL, result_id TEXT NOT NULL, title TEXT NOT NULL,
        description TEXT, access_policy JSONB NOT NULL, created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
        revoked_at TIMESTAMPTZ);
    CREATE INDEX idx_shared_results_owner ON shared_results (owner_user_id) WHERE revoked_at IS NULL;
    CREATE TABLE user_backups (
        user_id TEXT PRIMARY KEY, data BYTEA NOT NULL, state_hash TEXT NOT NULL, size_bytes BIGINT NOT NULL,
        created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(), updated_at TIMESTAMPTZ NOT NULL DEFAULT NOW());
    INSERT INTO shared_results VALUES ('token', 'alice', 'result', 'title', NULL, '{}');
    INSERT INTO user_backups VALUES ('alice', 'data', 'hash', 4);";

#[tokio::test(flavor = "multi_thread")]
async fn the_database_of_the_first_broker_is_taken_over_and_its_tables_are_kept() {
    within(async {
        let server = PostgresServer::shared().await.unwrap();
        let url = server.create_database().await.unwrap();
        server.ask(&url, FIRST_BROKER).await.unwrap();
        let store = PostgresStore::connect(&url, 2, PATIENCE * 10).unwrap();
        store.migrate(None).await.unwrap();
        store.admit(user("alice"), at(0)).await.unwrap();
        store.publish(share("alice", "token", AccessPolicy::public()), at(1)).await.unwrap();
        let kept = "SELECT share_token, data FROM ddalab_shared_results, ddalab_user_backups";
        assert_eq!(server.ask(&url, kept).await.unwrap(), "token|\\x64617461");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_up_is_one_round_trip() {
    within(async {
        let (server, url, _) = server().await;
        let (proxy, trips) = counting(&server).await;
        let url = url.replace(&server.addr().to_string(), &proxy.1);
        let store = PostgresStore::connect(&url, 1, PATIENCE).unwrap();
        store.admit(user("alice"), at(0)).await.unwrap();
        store.publish(share("alice", "one", AccessPolicy::public()), at(1)).await.unwrap();
        // The first one prepares the statement.
        store.look_up(&hash("one"), Some("bob"), at(2)).await.unwrap();
        let before = trips.load(Ordering::SeqCst);
        for _ in 0..20 {
            let found = store.look_up(&hash("one"), Some("bob"), at(2)).await.unwrap();
            assert!(matches!(found, Some(Access::Granted(_))));
        }
        assert_eq!(trips.load(Ordering::SeqCst) - before, 20);
        drop(proxy);
    })
    .await;
}

/// A way to the server on which what clients send at a time is counted.
async fn counting(server: &PostgresServer) -> ((JoinSet<()>, String), Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, target) = (listener.local_addr().unwrap().to_string(), server.addr());
    let trips = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&trips);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            let counted = Arc::clone(&counted);
            connections.spawn(async move {
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = TcpStream::connect(target).await.unwrap().into_split();
                let there = async {
                    let mut buffer = vec![0; 1 << 16];
                    while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
                        counted.fetch_add(1, Ordering::SeqCst);
                        to_server.write_all(&buffer[..length]).await.unwrap();
                    }
                };
                tokio::select! { () = there => {}, _ = copy(&mut from_server, &mut to_client) => {} }
            });
        }
    });
    ((tasks, address), trips)
}

#[tokio::test(flavor = "multi_thread")]
async fn more_requests_than_connections_wait_for_each_other() {
    within(async {
        let (_server, url, _) = server().await;
        let store = PostgresStore::connect(&url, 2, PATIENCE * 10).unwrap();
        let ids: Vec<String> = (0..100).map(|number| format!("user {number}")).collect();
        let admissions = ids.iter().map(|id| store.admit(user(id), at(1)));
        for outcome in futures_util::future::join_all(admissions).await {
            outcome.unwrap();
        }
        assert_eq!(store.users(page(1000)).await.unwrap().items.len(), 100);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_another_program_has_locked_is_unavailable_in_time() {
    within(async {
        use sqlx::{ConnectOptions, Connection};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broker.db");
        let store = SqliteStore::open(&path, 2, PATIENCE).unwrap();
        store.migrate(None).await.unwrap();
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
        let mut other = options.connect().await.unwrap();
        let lock = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
        assert!(is_unavailable(&store.admit(user("alice"), at(1)).await));
        assert_eq!(store.user("alice").await.unwrap(), None, "reading goes on");
        lock.rollback().await.unwrap();
        store.admit(user("alice"), at(1)).await.unwrap();

        let nowhere = SqliteStore::open(&folder.path().join("no/such/folder.db"), 2, PATIENCE).unwrap();
        assert!(is_unavailable(&nowhere.check().await));
    })
    .await;
}

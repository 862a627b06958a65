//! What users who are connected and say nothing cost the broker's process.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use culvert_broker_api::store::Role;
use culvert_broker_api::store::postgres::PostgresStore;
use culvert_service_kit::Clock;
use culvert_testkit::broker::BrokerPlan;
use culvert_testkit::postgres::PostgresPlan;
use culvert_testkit::process::Program;
use culvert_testkit::redis::RedisPlan;
use culvert_testkit::report::measured;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::{DEADLINE, admit, session};

/// Users, and connections of each: as many as one may have.
const USERS: usize = 250;
const DEVICES: usize = 16;
/// What one of them may cost.
const MOST: u64 = 24 << 10;

/// A WebSocket whose user is registered, as nothing but its socket.
async fn registered(to: SocketAddr, user: &str, token: &str) -> TcpStream {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let upgrade = format!(
        "GET /ws HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\nconnection: upgrade\r\n\
         upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    );
    stream.write_all(upgrade.as_bytes()).await.unwrap();
    let register = format!(r#"{{"type":"register_user","user_id":"{user}"}}"#);
    // Text, masked with zeros.
    let mut frame = vec![0x81, 0x80 | u8::try_from(register.len()).unwrap(), 0, 0, 0, 0];
    frame.extend_from_slice(register.as_bytes());
    let mut came = Vec::new();
    let mut asked = false;
    while !String::from_utf8_lossy(&came).contains("connected\"") {
        let read =
            tokio::time::timeout(DEADLINE, stream.read_buf(&mut came)).await.expect("an answer in time");
        assert!(read.unwrap() > 0, "{}", String::from_utf8_lossy(&came));
        if !asked && came.windows(4).any(|end| end == b"\r\n\r\n") {
            stream.write_all(&frame).await.unwrap();
            asked = true;
        }
    }
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_users_cost_at_most_24_kib_each() {
    let postgres = PostgresPlan::new().unwrap().start().await.unwrap();
    let redis = RedisPlan::new().unwrap().start().await.unwrap();
    let url = postgres.create_database().await.unwrap();
    let program = Program::from(Path::new(env!("CARGO_BIN_EXE_culvert-broker-api")));
    let plan = BrokerPlan::postgres(program, &url).unwrap().redis(&redis.reach(), "memory");
    let broker = plan.set("request-rate", "10000/1s").start().await.unwrap();
    let store = PostgresStore::connect(&url, 4, Duration::from_secs(30)).unwrap();
    let mut users = Vec::new();
    for number in 0..USERS {
        let user = format!("user{number}");
        admit(&store, &Clock::system(), &user, Role::User).await;
        users.push((session(&store, &Clock::system(), &user).await, user));
    }
    let connect = async |of: &[(String, String)]| {
        join_all(of.iter().map(|(token, user)| registered(broker.addr(), user, token))).await
    };
    let mut sockets = Vec::new();
    let before = broker.resources().unwrap().resident;
    for _ in 0..DEVICES {
        sockets.extend(connect(&users).await);
    }
    let after = broker.resources().unwrap().resident;
    let each = after.saturating_sub(before) / u64::try_from(sockets.len()).unwrap();
    measured(&format!("broker: an idle WebSocket user costs {each} bytes resident"));
    assert!((1..=MOST).contains(&each), "{each} bytes each");
}

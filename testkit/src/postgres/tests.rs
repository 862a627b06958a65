//! The real server does what tests of a broker will ask of it.

use std::time::Duration;

use super::*;

#[tokio::test]
async fn a_server_that_was_killed_recovers_what_was_committed_on_the_same_port() {
    let mut server = PostgresPlan::new().unwrap().start().await.unwrap();
    let (addr, url) = (server.addr(), server.create_database().await.unwrap());
    server.ask(&url, "CREATE TABLE kept (word text); INSERT INTO kept VALUES ('a'), ('b')").await.unwrap();
    server.kill().await.unwrap();
    assert!(server.ask(&url, "SELECT 1").await.is_err() && server.pause().is_err());
    server.start_again().await.unwrap();
    assert_eq!(server.addr(), addr);
    assert_eq!(server.ask(&url, "SELECT word, 1 FROM kept ORDER BY word").await.unwrap(), "a|1\nb|1");
    server.stop().await.unwrap();
    server.start_again().await.unwrap();
    assert!(server.start_again().await.is_err(), "it runs");
    assert_eq!(server.ask(&url, "SELECT count(*) FROM kept").await.unwrap(), "2");
}

#[tokio::test]
async fn databases_of_a_shared_server_know_nothing_of_each_other() {
    let (one, two) = (PostgresServer::shared().await.unwrap(), PostgresServer::shared().await.unwrap());
    assert_eq!(one.addr(), two.addr());
    let (first, second) = (one.create_database().await.unwrap(), two.create_database().await.unwrap());
    assert_ne!(first, second);
    one.ask(&first, "CREATE TABLE mine ()").await.unwrap();
    assert!(two.ask(&second, "SELECT * FROM mine").await.is_err());
}

#[tokio::test]
async fn a_paused_server_answers_when_it_is_resumed() {
    let server = PostgresPlan::new().unwrap().start().await.unwrap();
    let url = server.create_database().await.unwrap();
    server.pause().unwrap();
    let mut asked = std::pin::pin!(server.ask(&url, "SELECT 1"));
    assert!(tokio::time::timeout(Duration::from_millis(150), &mut asked).await.is_err());
    server.resume().unwrap();
    assert_eq!(asked.await.unwrap(), "1");
}

//! A side that does not keep to the protocol.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::{NEVER, bytes, into, pair, tree_of};
use crate::transfer::message::{self, Control, Message};
use crate::transfer::path::MAX_NAME;
use crate::transfer::tree::Root;
use crate::transfer::*;
use crate::transport::Connection;

/// Plays a sender that says these things, each when the receiver asked for something.
async fn hostile(out: &Path, says: Vec<Control>) -> ReceiveError {
    let (mut left, mut right) = pair();
    let options = into(out);
    let silent = ignore();
    let sender = async move {
        for control in says {
            left.receive().await.unwrap();
            left.send(&message::encode(&control)).await.unwrap();
        }
        while let Ok(Some(bytes)) = left.receive().await {
            if let Message::Control(Control::Stop { reason }) = message::decode(&bytes).unwrap() {
                return Some(reason);
            }
        }
        None
    };
    let receiver = async {
        let received = receive(&mut right, &options, &silent, &NEVER).await;
        drop(right);
        received.unwrap_err()
    };
    let (told, error) = tokio::join!(sender, receiver);
    assert_eq!(told, Some(StopReason::Protocol), "the sender is told: {error}");
    error
}

fn offer(entries: u64) -> Control {
    let (id, name) = (Root([0; 32]), "x".to_owned());
    Control::Offer { version: 1, id, name, stream: false, entries, bytes: 100 }
}

fn page(paths: &[&[&str]]) -> Control {
    let file = |path: &&[&str]| message::Entry::File {
        path: path.iter().map(|c| (*c).to_owned()).collect(),
        size: 0,
        root: Root(*blake3::hash(b"").as_bytes()),
        executable: false,
        modified: None,
    };
    Control::Entries { first: 0, entries: paths.iter().map(file).collect(), more: false }
}

#[tokio::test]
async fn paths_that_leave_the_folder_end_the_transfer() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("out");
    let long = "a".repeat(MAX_NAME + 1);
    for path in [&["..", "evil"][..], &["/etc/evil"], &["a", "..", "..", "evil"], &[""], &[], &[&long]] {
        let error = hostile(&out, vec![offer(1), page(&[path])]).await;
        assert!(matches!(error, ReceiveError::Unsafe(_)), "{path:?}: {error}");
    }
    assert_eq!(tree_of(dir.path()).into_keys().collect::<Vec<_>>(), ["out"]);
}

#[tokio::test]
async fn a_sender_that_lists_more_than_it_announced_is_refused() {
    let out = TempDir::new().unwrap();
    let error = hostile(out.path(), vec![offer(1), page(&[&["a"], &["b"]])]).await;
    assert!(matches!(error, ReceiveError::Protocol(_)), "{error}");
    assert!(tree_of(out.path()).is_empty());
}

#[tokio::test]
async fn data_that_nobody_asked_for_is_refused() {
    let out = TempDir::new().unwrap();
    let (mut left, mut right) = pair();
    let options = into(out.path());
    let silent = ignore();
    let sender = async move {
        left.receive().await.unwrap();
        left.send(&message::encode(&offer(1))).await.unwrap();
        left.send(&message::piece_header(0, 0)).await.unwrap();
        while let Ok(Some(bytes)) = left.receive().await {
            if matches!(message::decode(&bytes), Ok(Message::Control(Control::Stop { .. }))) {
                break;
            }
        }
    };
    let ((), received) = tokio::join!(sender, receive(&mut right, &options, &silent, &NEVER));
    assert!(matches!(received, Err(ReceiveError::Protocol(_))), "{received:?}");
}

#[tokio::test]
async fn a_receiver_that_asks_for_what_is_not_there_is_refused() {
    let from = TempDir::new().unwrap();
    fs::write(from.path().join("x"), bytes(1000)).unwrap();
    let offer = Offer::paths(&[from.path().join("x")], ignore()).unwrap();
    let range = |entry, end| message::Range { entry, start: 0, end };
    for ranges in [vec![range(9, 10)], vec![range(0, 1001)]] {
        let (mut left, mut right) = pair();
        let silent = ignore();
        let receiver = async move {
            right.send(&message::encode(&Control::Hello { version: 1 })).await.unwrap();
            right.receive().await.unwrap();
            right.send(&message::encode(&Control::Page { from: 0 })).await.unwrap();
            right.receive().await.unwrap();
            right.send(&message::encode(&Control::Want { ranges, have: 0 })).await.unwrap();
            let answer = right.receive().await.unwrap().unwrap();
            assert!(matches!(
                message::decode(&answer),
                Ok(Message::Control(Control::Stop { reason: StopReason::Protocol }))
            ));
        };
        let (served, ()) = tokio::join!(offer.serve(&mut left, &silent, &NEVER), receiver);
        assert!(matches!(served, Err(SendError::Protocol(_))), "{served:?}");
    }
}

#[tokio::test]
async fn another_version_is_told_so_on_both_sides() {
    let from = TempDir::new().unwrap();
    fs::write(from.path().join("x"), "x").unwrap();
    let offer = Offer::paths(&[from.path().join("x")], ignore()).unwrap();
    let (mut left, mut right) = pair();
    right.tamper = Some(Box::new(|_| Some(message::encode(&Control::Hello { version: 2 }))));
    let out = TempDir::new().unwrap();
    let (options, silent) = (into(out.path()), ignore());
    let (served, received) =
        tokio::join!(offer.serve(&mut left, &silent, &NEVER), receive(&mut right, &options, &silent, &NEVER));
    assert!(matches!(served, Err(SendError::Version(2))), "{served:?}");
    assert!(matches!(received, Err(ReceiveError::Stopped(StopReason::Version))), "{received:?}");
}

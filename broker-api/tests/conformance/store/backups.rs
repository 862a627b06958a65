//! Backups.

use std::io;

use bytes::Bytes;
use culvert_broker_api::store::{BackupMeta, NewBackup, Precondition, Store, StoreError};
use futures_util::{StreamExt, stream};
use tokio::sync::oneshot;

use super::stage::{Stage, at, backup, collect, hash, hex, is_conflict, pieces};

async fn put(store: &dyn Store, state: &[u8], condition: Precondition) -> Result<BackupMeta, StoreError> {
    store.put_backup("alice", NewBackup { condition, ..backup(pieces(state, 1000)) }, at(1)).await
}

async fn read(store: &dyn Store, version: Option<i64>) -> Option<(BackupMeta, Vec<u8>)> {
    let (meta, bytes) = store.backup("alice", version).await.unwrap()?;
    Some((meta, collect(bytes).await.unwrap()))
}

fn sha256(state: &[u8]) -> String {
    hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, state).as_ref())
}

pub(super) async fn a_backup_comes_back_as_it_was(stage: &Stage) {
    let store = &*stage.store;
    stage.admit(&["alice"]).await;
    assert_eq!(store.backups("alice").await.unwrap(), []);
    assert!(store.backup("alice", None).await.unwrap().is_none());
    // Nothing, less than a piece, whole pieces, and pieces that come in larger ones.
    let sizes = [(0, 1), (1, 1), (256 * 1024, 999), (512 * 1024, 300 * 1024), ((1 << 20) + 1, 1 << 20)];
    for (version, (size, step)) in (1..).zip(sizes) {
        let state: Vec<u8> =
            (0..size).map(|byte: usize| byte.to_le_bytes()[0] ^ byte.to_le_bytes()[1]).collect();
        let announced = Some(sha256(&state).to_uppercase());
        let new = NewBackup { state_hash: announced, keep: 100, ..backup(pieces(&state, step)) };
        let stored = store.put_backup("alice", new, at(version)).await.unwrap();
        let version = i64::try_from(version).unwrap();
        let expected = BackupMeta {
            version,
            state_hash: sha256(&state),
            size_bytes: size as u64,
            created_at: at(version.unsigned_abs()),
        };
        assert_eq!(stored, expected);
        assert_eq!(read(store, None).await, Some((expected.clone(), state.clone())));
        assert_eq!(read(store, Some(version)).await, Some((expected, state)));
    }
    assert_eq!(store.backups("alice").await.unwrap().iter().map(|meta| meta.version).sum::<i64>(), 15);
    assert!(store.backup("alice", Some(6)).await.unwrap().is_none());
    assert!(store.backup("bob", None).await.unwrap().is_none());
    let ghost = store.put_backup("nobody", backup(pieces(b"x", 1)), at(1)).await;
    assert!(is_conflict(&ghost));
}

pub(super) async fn an_upload_is_invisible_until_it_is_whole(stage: &Stage) {
    stage.admit(&["alice"]).await;
    let (first, second) = (vec![1; 600 * 1024], vec![2; 10]);
    let (started, begun) = oneshot::channel();
    let (go_on, wait) = oneshot::channel::<()>();
    let head = Bytes::from(first.clone());
    let tail = Bytes::from(second.clone());
    let upload = stream::once(async move { Ok(head) }).chain(stream::once(async move {
        // Asked for more only when what came is stored.
        started.send(()).unwrap();
        wait.await.unwrap();
        Ok(tail)
    }));
    let new = NewBackup { condition: Precondition::Absent, ..backup(upload.boxed()) };
    let uploading = stage.store.put_backup("alice", new, at(1));
    let watching = async {
        begun.await.unwrap();
        let other = stage.replica();
        assert!(other.backup("alice", None).await.unwrap().is_none());
        assert_eq!(other.backups("alice").await.unwrap(), []);
        assert!(!other.delete_backups("alice", Precondition::None).await.unwrap());
        // An upload does not keep others from writing, however long it takes.
        other.seen("alice", at(2)).await.unwrap();
        go_on.send(()).unwrap();
    };
    let (stored, ()) = tokio::join!(uploading, watching);
    assert_eq!(stored.unwrap().version, 1);
    assert_eq!(read(&*stage.store, None).await.unwrap().1, [first, second].concat());
}

pub(super) async fn what_does_not_match_is_not_kept(stage: &Stage) {
    let store = &*stage.store;
    stage.admit(&["alice"]).await;
    let state = vec![5; 700 * 1024];
    let announced = Some(hex(&hash("something else")));
    let put = |state_hash, bytes, limit| {
        store.put_backup("alice", NewBackup { state_hash, limit, ..backup(bytes) }, at(1))
    };
    let outcome = put(announced, pieces(&state, 1 << 16), 1 << 20).await;
    assert!(matches!(outcome, Err(StoreError::HashMismatch)));
    let outcome = put(None, pieces(&state, 1 << 16), state.len() as u64 - 1).await;
    assert!(matches!(outcome, Err(StoreError::TooLarge { limit }) if limit == state.len() as u64 - 1));
    let broken = pieces(&state, 1 << 16).chain(stream::once(async { Err(io::Error::other("reset")) }));
    let outcome = put(None, broken.boxed(), 1 << 20).await;
    assert!(matches!(outcome, Err(StoreError::Interrupted(_))));
    assert_eq!(store.backups("alice").await.unwrap(), []);
    assert_eq!(left_over(stage).await, 0, "nothing of it stays");
    assert_eq!(put(None, pieces(&state, 1 << 16), state.len() as u64).await.unwrap().version, 1);
}

/// Pieces in the database.
async fn left_over(stage: &Stage) -> usize {
    let sql = "SELECT CAST(position AS text) AS detail FROM backup_chunks";
    stage.meddle(sql).await.unwrap().len()
}

pub(super) async fn versions_count_up_for_ever_and_the_oldest_go(stage: &Stage) {
    let store = &*stage.store;
    stage.admit(&["alice"]).await;
    for version in 1..=5_u8 {
        assert_eq!(put(store, &[version], Precondition::None).await.unwrap().version, i64::from(version));
    }
    let versions =
        async || store.backups("alice").await.unwrap().iter().map(|meta| meta.version).collect::<Vec<_>>();
    assert_eq!(versions().await, [5, 4, 3]);
    assert_eq!(read(store, Some(3)).await.unwrap().1, [3]);
    assert!(store.backup("alice", Some(2)).await.unwrap().is_none());

    assert!(is_conflict(&put(store, b"x", Precondition::Version(4)).await));
    assert!(is_conflict(&put(store, b"x", Precondition::Absent).await));
    assert_eq!(put(store, b"x", Precondition::Version(5)).await.unwrap().version, 6);
    assert!(is_conflict(&store.delete_backups("alice", Precondition::Version(5)).await));
    assert!(store.delete_backups("alice", Precondition::Version(6)).await.unwrap());
    assert!(!store.delete_backups("alice", Precondition::None).await.unwrap());
    assert_eq!((versions().await, left_over(stage).await), (vec![], 0));
    assert!(is_conflict(&put(store, b"x", Precondition::Version(6)).await));
    assert_eq!(put(store, b"x", Precondition::Absent).await.unwrap().version, 7, "never back");
}

pub(super) async fn of_two_devices_with_the_same_version_one_wins(stage: &Stage) {
    let other = stage.replica();
    stage.admit(&["alice"]).await;
    let mut version = put(&*stage.store, b"first", Precondition::Absent).await.unwrap().version;
    for _ in 0..10 {
        let same = Precondition::Version(version);
        let (one, two) = tokio::join!(put(&*stage.store, b"one", same), put(&*other, b"two", same));
        assert_eq!([is_conflict(&one), is_conflict(&two)].iter().filter(|lost| **lost).count(), 1);
        let state: &[u8] = if one.is_ok() { b"one" } else { b"two" };
        let (meta, bytes) = read(&*stage.store, None).await.unwrap();
        assert_eq!((meta.version, bytes.as_slice()), (version + 1, state));
        version += 1;
    }
}

pub(super) async fn a_backup_that_is_removed_while_it_is_read_ends_in_an_error(stage: &Stage) {
    let store = &*stage.store;
    stage.admit(&["alice"]).await;
    put(store, &vec![1; 600 * 1024], Precondition::None).await.unwrap();
    let (_, mut bytes) = store.backup("alice", None).await.unwrap().unwrap();
    assert_eq!(bytes.next().await.unwrap().unwrap().len(), 256 * 1024);
    store.delete_backups("alice", Precondition::None).await.unwrap();
    assert!(bytes.next().await.unwrap().is_err());
    assert!(bytes.next().await.is_none());

    // So does one whose bytes the database has changed.
    put(store, &vec![1; 300 * 1024], Precondition::None).await.unwrap();
    let spoil = if stage.is_postgres() {
        "UPDATE backup_chunks SET bytes = '\\x00'::bytea || substring(bytes FROM 2)"
    } else {
        "UPDATE backup_chunks SET bytes = CAST(x'00' || substr(bytes, 2) AS blob)"
    };
    stage.meddle(spoil).await.unwrap();
    let (_, bytes) = store.backup("alice", None).await.unwrap().unwrap();
    assert_eq!(collect(bytes).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
}

pub(super) async fn uploads_that_broke_off_are_swept_out(stage: &Stage) {
    let store = &*stage.store;
    stage.admit(&["alice"]).await;
    let hang = || pieces(&[1; 300 * 1024], 1 << 16).chain(stream::pending()).boxed();
    // Whoever waits for them is gone, as when a connection breaks.
    for _ in 0..8 {
        let upload = store.put_backup("alice", backup(hang()), at(1));
        let stored = async {
            while left_over(stage).await == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! { _ = upload => unreachable!("it hangs"), () = stored => {} }
    }
    let unfinished = left_over(stage).await;
    assert!((1..=4).contains(&unfinished), "{unfinished} uploads of one user are kept");
    assert_eq!(store.tidy(at(3600)).await.unwrap(), 0, "they may still be under way");
    assert!(store.tidy(at(2 + 24 * 3600)).await.unwrap() >= 1);
    assert_eq!(left_over(stage).await, 0);
}

//! How SQLite finds what the hot path asks for.

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Row};

use super::SqliteStore;
use super::dialect::MIGRATIONS;
use super::shares::{LOOK_UP, SHARED_WITH};
use crate::config::{Limits, Timing};

#[tokio::test]
async fn what_the_hot_path_asks_for_is_found_by_indexes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.db");
    let patience = Timing::default().backend;
    let store = SqliteStore::open(&path, Limits::default().database_connections, patience).unwrap();
    crate::store::Store::migrate(&store, None).await.unwrap();
    let mut wire = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    let [head, tail] = LOOK_UP;
    let look_up = format!("{head}VALUES ($1, $2, $3, $4), ($5, $6, $7, $8){tail}");
    for statement in [&look_up, SHARED_WITH] {
        let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
        let rows = sqlx::query(explain).fetch_all(&mut wire).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        // What is looked up, and parts of the second statement, which have found what they have by indexes.
        let parts = ["SCAN 2-ROW VALUES CLAUSE", "SCAN i", "SCAN t", "SCAN u"];
        let scans = plan.iter().any(|step| step.starts_with("SCAN") && !parts.contains(&step.as_str()));
        assert!(plan.iter().any(|step| step.contains("USING INDEX")) && !scans, "{plan:#?}");
    }
}

#[tokio::test]
async fn nobody_else_on_the_machine_reads_the_file_or_what_lies_beside_it() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let patience = Timing::default().backend;
    let store = SqliteStore::open(&folder.path().join("broker.db"), 2, patience).unwrap();
    crate::store::Store::migrate(&store, None).await.unwrap();
    crate::store::Store::check(&store).await.unwrap();
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap()).collect();
    assert!(files.len() > 1, "the log is there too");
    for file in files {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", file.path());
    }
}

#[tokio::test]
async fn connections_are_counted_as_busy_idle_and_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("broker.db"), 1, Timing::default().backend).unwrap();
    crate::store::Store::migrate(&store, None).await.unwrap();
    let counted = || {
        let connections = crate::store::Store::connections(&store);
        (connections.busy, connections.idle, connections.waiting, connections.most)
    };
    let lent = store.pool.begin().await.unwrap();
    assert_eq!(counted(), (1, 0, 0, 1));
    let mut waiting = std::pin::pin!(crate::store::Store::check(&store));
    assert!(futures_util::poll!(waiting.as_mut()).is_pending());
    assert_eq!(counted(), (1, 0, 1, 1));
    lent.end(Ok(())).await.unwrap();
    waiting.await.unwrap();
    assert_eq!(counted(), (0, 1, 0, 1));
}

#[test]
fn every_migration_of_the_folder_is_part_of_the_program() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations/sqlite");
    let name = |file: std::io::Result<std::fs::DirEntry>| file.unwrap().file_name().into_string().unwrap();
    let mut files: Vec<String> = std::fs::read_dir(folder).unwrap().map(name).collect();
    files.sort();
    let known = MIGRATIONS.iter().map(|(version, name, _)| format!("{version:04}_{name}.sql"));
    assert_eq!(files, known.collect::<Vec<_>>());
}

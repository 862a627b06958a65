//! A database to hold the rules against.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use culvert_broker_api::store::postgres::PostgresStore;
use culvert_broker_api::store::sqlite::SqliteStore;
use culvert_broker_api::store::{
    ByteStream, Device, NewBackup, NewShare, NewUser, PageRequest, Precondition, Role, Store, StoreError,
};
use culvert_broker_wire::{AccessPolicy, Timestamp};
use culvert_testkit::postgres::PostgresServer;
use culvert_wire::PeerId;
use futures_util::{StreamExt, stream};
use tempfile::TempDir;
use tokio::time::timeout;

/// The limit of every test.
const DEADLINE: Duration = Duration::from_secs(180);
/// Connections of each replica.
pub(super) const CONNECTIONS: u32 = 6;
/// How long a replica waits for its database: the tests of a whole machine run at once.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a test under its limit.
pub(super) async fn within<T>(test: impl Future<Output = T>) -> T {
    timeout(DEADLINE, test).await.expect("the test took too long")
}

enum Kind {
    Sqlite(TempDir),
    Postgres(Arc<PostgresServer>, String),
}

/// A database with its tables, and a replica that uses it.
pub(super) struct Stage {
    pub(super) store: Arc<dyn Store>,
    kind: Kind,
}

impl Stage {
    pub(super) async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kind = Kind::Sqlite(folder);
        Self::with_tables(kind).await
    }

    pub(super) async fn postgres() -> Self {
        let server = PostgresServer::shared().await.unwrap();
        let url = server.create_database().await.unwrap();
        Self::with_tables(Kind::Postgres(server, url)).await
    }

    async fn with_tables(kind: Kind) -> Self {
        let store = open(&kind);
        store.migrate(None).await.unwrap();
        Self { store, kind }
    }

    /// Another replica on the same database.
    pub(super) fn replica(&self) -> Arc<dyn Store> {
        open(&self.kind)
    }

    /// A replica on a new, empty database.
    pub(super) async fn empty(&self) -> Self {
        let kind = match &self.kind {
            Kind::Sqlite(_) => Kind::Sqlite(tempfile::tempdir().unwrap()),
            Kind::Postgres(server, _) => {
                Kind::Postgres(Arc::clone(server), server.create_database().await.unwrap())
            }
        };
        Self { store: open(&kind), kind }
    }

    /// What somebody has who stole the database: every byte of the file, or everything that the server knows.
    pub(super) async fn stolen(&self) -> Vec<u8> {
        match &self.kind {
            Kind::Sqlite(folder) => {
                let files = std::fs::read_dir(folder.path()).unwrap();
                files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
            }
            Kind::Postgres(server, url) => server.dump(url).await.unwrap().into_bytes(),
        }
    }

    /// Does something to the database behind the program's back: whether it let that happen.
    pub(super) async fn meddle(&self, sql: &'static str) -> Result<Vec<String>, sqlx::Error> {
        use sqlx::{Connection, Row};
        match &self.kind {
            Kind::Sqlite(folder) => {
                let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file(folder));
                let mut wire = sqlx::SqliteConnection::connect_with(&options).await?;
                let rows = sqlx::raw_sql(sql).fetch_all(&mut wire).await?;
                Ok(rows.iter().filter_map(|row| row.try_get("detail").ok()).collect())
            }
            Kind::Postgres(_, url) => {
                let mut wire = sqlx::PgConnection::connect(url).await?;
                let rows = sqlx::raw_sql(sql).fetch_all(&mut wire).await?;
                Ok(rows.iter().filter_map(|row| row.try_get(0).ok()).collect())
            }
        }
    }

    pub(super) fn is_postgres(&self) -> bool {
        matches!(self.kind, Kind::Postgres(..))
    }

    /// Users who may be owners and members.
    pub(super) async fn admit(&self, ids: &[&str]) {
        for id in ids {
            self.store.admit(user(id), at(0)).await.unwrap();
        }
    }
}

fn open(kind: &Kind) -> Arc<dyn Store> {
    match kind {
        Kind::Sqlite(folder) => Arc::new(SqliteStore::open(&file(folder), CONNECTIONS, PATIENCE).unwrap()),
        Kind::Postgres(_, url) => Arc::new(PostgresStore::connect(url, CONNECTIONS, PATIENCE).unwrap()),
    }
}

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("broker.db")
}

/// So many seconds after the beginning of the test, and some microseconds.
pub(super) fn at(seconds: u64) -> Timestamp {
    let micros = Timestamp::from_unix_seconds(1_800_000_000 + seconds).unix_micros() + 123_456;
    Timestamp::from_unix_micros(micros).unwrap()
}

pub(super) fn page(limit: u32) -> PageRequest {
    PageRequest { after: None, limit }
}

pub(super) fn user(id: &str) -> NewUser {
    NewUser { id: id.to_owned(), role: Role::User, password_hash: None, device: None }
}

pub(super) fn device(number: u16) -> Device {
    let mut key = [7; 32];
    key[..2].copy_from_slice(&number.to_be_bytes());
    Device {
        key: PeerId(key),
        name: format!("laptop {number}"),
        added_at: at(number.into()),
        last_used_at: None,
    }
}

/// A share of somebody with this name; its token's hash is made of the name.
pub(super) fn share(owner: &str, name: &str, policy: AccessPolicy) -> NewShare {
    NewShare {
        id: format!("id-{name}"),
        token_hash: hash(name),
        token_sealed: vec![1, 2, 3],
        owner: owner.to_owned(),
        result_id: format!("result of {name}"),
        title: format!("title of {name}"),
        description: None,
        created_at: at(0),
        policy,
    }
}

pub(super) fn hash(text: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes()).as_ref());
    hash
}

pub(super) fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// A state of at most 4 MiB, of which three versions are kept.
pub(super) fn backup(bytes: ByteStream) -> NewBackup {
    NewBackup { state_hash: None, condition: Precondition::None, bytes, limit: 4 << 20, keep: 3 }
}

/// Bytes on their way, in pieces of this size.
pub(super) fn pieces(bytes: &[u8], size: usize) -> ByteStream {
    let pieces: Vec<_> = bytes.chunks(size).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    stream::iter(pieces).boxed()
}

pub(super) async fn collect(mut bytes: ByteStream) -> std::io::Result<Vec<u8>> {
    let mut whole = Vec::new();
    while let Some(piece) = bytes.next().await {
        whole.extend_from_slice(&piece?);
    }
    Ok(whole)
}

pub(super) fn is_conflict<T>(outcome: &Result<T, StoreError>) -> bool {
    matches!(outcome, Err(StoreError::Conflict(_)))
}

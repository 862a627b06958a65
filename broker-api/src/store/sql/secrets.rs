//! Keys and values sealed with the broker's data key.

use async_trait::async_trait;
use culvert_broker_wire::Timestamp;

use super::pool::{Row, Transaction};
use super::statement::{Columns, Sql, broken};
use super::{Backend, StoreError, dialect};
use crate::store::{Secrets, SigningKey};

fn signing_key(row: &Row) -> Result<SigningKey, StoreError> {
    let mut columns = Columns::of(row);
    Ok(SigningKey {
        kid: columns.text()?,
        public: columns.bytes32()?,
        sealed: columns.bytes()?,
        created_at: columns.at()?,
        active_from: columns.at()?,
        retires_at: columns.at()?,
    })
}

#[async_trait]
impl Secrets for Backend {
    async fn signing_keys(&self, now: Timestamp) -> Result<Vec<SigningKey>, StoreError> {
        let sql = Sql::new(
            "SELECT kid, public, sealed, created_at, active_from, retires_at FROM signing_keys \
             WHERE retires_at > $1 ORDER BY created_at DESC, kid DESC",
        );
        self.pool.all(&sql.bind(now)).await?.iter().map(signing_key).collect()
    }

    async fn add_signing_key(&self, key: SigningKey, unless_after: Timestamp) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let outcome = add_signing_key(&mut transaction, &key, unless_after).await;
        transaction.end(outcome).await
    }

    async fn secret(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = Sql::new("SELECT value FROM secrets WHERE name = $1").bind(name);
        self.pool.first(&sql).await?.map(|row| Columns::of(&row).bytes()).transpose()
    }

    async fn keep_secret(&self, name: &str, value: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        let sql = Sql::new("INSERT INTO secrets (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING");
        self.pool.change(&sql.bind(name).bind(&value)).await?;
        self.secret(name).await?.ok_or_else(|| broken("a secret that nobody removes is gone"))
    }
}

async fn add_signing_key(
    transaction: &mut Transaction,
    key: &SigningKey,
    unless_after: Timestamp,
) -> Result<bool, StoreError> {
    dialect::lock_signing_keys(transaction).await?;
    let sql = Sql::new("SELECT 1 FROM signing_keys WHERE active_from > $1 LIMIT 1").bind(unless_after);
    if transaction.first(&sql).await?.is_some() {
        return Ok(false);
    }
    let sql = Sql::new(
        "INSERT INTO signing_keys (kid, public, sealed, created_at, active_from, retires_at) \
         VALUES ($1, $2, $3, $4, $5, $6)",
    );
    let sql = sql.bind(&key.kid).bind(&key.public).bind(&key.sealed);
    transaction.change(&sql.bind(key.created_at).bind(key.active_from).bind(key.retires_at)).await?;
    Ok(true)
}

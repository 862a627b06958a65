//! API credentials.

use async_trait::async_trait;
use culvert_broker_wire::Timestamp;

use super::pages::Wanted;
use super::pool::{Row, Transaction};
use super::statement::{Columns, Sql};
use super::{Backend, StoreError};
use crate::store::{ApiSecret, Credential, Credentials, Cursor, Page, PageRequest};

/// Secrets that live at a time: the one that is used, and the one that replaces it.
const MOST_SECRETS: usize = 2;
/// The row of `horizons` for keyed requests.
const HORIZON: &str = "keyed-requests";
const MINUTE: i64 = 60_000_000;

macro_rules! columns {
    () => {
        "c.api_key, c.user_id, c.name, c.created_at, c.last_used_at"
    };
}

macro_rules! secret_columns {
    () => {
        "s.api_key, s.id, s.sealed, s.created_at, s.expires_at"
    };
}

fn credential(row: &Row) -> Result<Credential, StoreError> {
    let mut columns = Columns::of(row);
    Ok(Credential {
        api_key: columns.text()?,
        user: columns.text()?,
        name: columns.text()?,
        created_at: columns.at()?,
        last_used_at: columns.at_or_none()?,
        secrets: Vec::new(),
    })
}

/// A secret, and whose.
fn secret(row: &Row) -> Result<(String, ApiSecret), StoreError> {
    let mut columns = Columns::of(row);
    let api_key = columns.text()?;
    let secret = ApiSecret {
        id: columns.text()?,
        sealed: columns.bytes()?,
        created_at: columns.at()?,
        expires_at: columns.at_or_none()?,
    };
    Ok((api_key, secret))
}

#[async_trait]
impl Credentials for Backend {
    async fn create_credential(&self, credential: Credential) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        let outcome = create(&mut transaction, &credential).await;
        transaction.end(outcome).await
    }

    async fn credential(&self, api_key: &str, now: Timestamp) -> Result<Option<Credential>, StoreError> {
        let sql = Sql::new(concat!(
            "SELECT ",
            columns!(),
            " FROM api_credentials c JOIN users u ON u.id = c.user_id \
              WHERE c.api_key = $1 AND c.revoked_at IS NULL AND u.status = 'active'"
        ));
        let Some(row) = self.pool.first(&sql.bind(api_key)).await? else { return Ok(None) };
        let sql = Sql::new(concat!(
            "SELECT ",
            secret_columns!(),
            " FROM api_secrets s WHERE s.api_key = $1 AND (s.expires_at IS NULL OR s.expires_at > $2) \
              ORDER BY s.created_at, s.id"
        ));
        let rows = self.pool.all(&sql.bind(api_key).bind(now)).await?;
        let secrets = rows.iter().map(|row| Ok(secret(row)?.1)).collect::<Result<_, StoreError>>()?;
        Ok(Some(Credential { secrets, ..credential(&row)? }))
    }

    async fn credentials_of(
        &self,
        user: &str,
        page: PageRequest,
        now: Timestamp,
    ) -> Result<Page<Credential>, StoreError> {
        let wanted = Wanted::of(page);
        let sql = Sql::new(concat!(
            "SELECT ",
            columns!(),
            " FROM api_credentials c WHERE c.user_id = $1 AND c.revoked_at IS NULL \
              AND (c.created_at, c.api_key) < ($2, $3) ORDER BY c.created_at DESC, c.api_key DESC LIMIT $4"
        ));
        let sql = sql.bind(user).bind(wanted.at).bind(wanted.id.clone()).bind(wanted.rows);
        let rows = self.pool.all(&sql).await?;
        let place =
            |credential: &Credential| Cursor { at: credential.created_at, id: credential.api_key.clone() };
        let mut page = wanted.page(&rows, credential, place)?;
        let (Some(first), Some(last)) = (page.items.first(), page.items.last()) else { return Ok(page) };
        let sql = Sql::new(concat!(
            "SELECT ",
            secret_columns!(),
            " FROM api_secrets s JOIN api_credentials c ON c.api_key = s.api_key \
              WHERE c.user_id = $1 AND c.revoked_at IS NULL AND (s.expires_at IS NULL OR s.expires_at > $2) \
              AND (c.created_at, c.api_key) <= ($3, $4) AND (c.created_at, c.api_key) >= ($5, $6) \
              ORDER BY s.created_at, s.id"
        ));
        let sql = sql.bind(user).bind(now).bind(first.created_at).bind(&first.api_key);
        let rows = self.pool.all(&sql.bind(last.created_at).bind(&last.api_key)).await?;
        for row in &rows {
            let (api_key, secret) = secret(row)?;
            if let Some(owner) = page.items.iter_mut().find(|credential| credential.api_key == api_key) {
                owner.secrets.push(secret);
            }
        }
        Ok(page)
    }

    async fn rotate(
        &self,
        user: &str,
        api_key: &str,
        secret: ApiSecret,
        old_until: Timestamp,
    ) -> Result<Option<Credential>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let outcome = rotate(&mut transaction, user, api_key, secret, old_until).await;
        transaction.end(outcome).await
    }

    async fn revoke_credential(&self, user: &str, api_key: &str, now: Timestamp) -> Result<bool, StoreError> {
        let sql = Sql::new(
            "UPDATE api_credentials SET revoked_at = $3 \
             WHERE api_key = $2 AND user_id = $1 AND revoked_at IS NULL",
        );
        Ok(self.pool.change(&sql.bind(user).bind(api_key).bind(now)).await? > 0)
    }

    async fn credential_used(&self, api_key: &str, at: Timestamp) -> Result<(), StoreError> {
        let minute = Timestamp::from_unix_micros(at.unix_micros().div_euclid(MINUTE) * MINUTE);
        let sql = Sql::new(
            "UPDATE api_credentials SET last_used_at = $2 \
             WHERE api_key = $1 AND (last_used_at IS NULL OR last_used_at < $2)",
        );
        self.pool.change(&sql.bind(api_key).bind(minute)).await.map(drop)
    }

    async fn raise_horizon(&self, to: u64) -> Result<u64, StoreError> {
        let to = i64::try_from(to).unwrap_or(i64::MAX);
        let sql = Sql::new(
            "INSERT INTO horizons (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE \
             SET value = CASE WHEN excluded.value > horizons.value THEN excluded.value ELSE horizons.value END \
             RETURNING value",
        );
        let rows = self.pool.change_returning(&sql.bind(HORIZON).bind(to)).await?;
        let raised = rows.first().map(|row| Columns::of(row).count()).transpose()?;
        Ok(raised.unwrap_or_default())
    }
}

async fn create(transaction: &mut Transaction, credential: &Credential) -> Result<(), StoreError> {
    let sql =
        Sql::new("INSERT INTO api_credentials (api_key, user_id, name, created_at) VALUES ($1, $2, $3, $4)");
    let sql = sql.bind(&credential.api_key).bind(&credential.user).bind(&credential.name);
    transaction.change(&sql.bind(credential.created_at)).await?;
    for secret in &credential.secrets {
        add_secret(transaction, &credential.api_key, secret).await?;
    }
    Ok(())
}

async fn add_secret(
    transaction: &mut Transaction,
    api_key: &str,
    secret: &ApiSecret,
) -> Result<(), StoreError> {
    let sql = Sql::new(
        "INSERT INTO api_secrets (id, api_key, sealed, created_at, expires_at) VALUES ($1, $2, $3, $4, $5)",
    );
    let sql = sql.bind(&secret.id).bind(api_key).bind(&secret.sealed);
    transaction.change(&sql.bind(secret.created_at).bind(secret.expires_at)).await.map(drop)
}

async fn rotate(
    transaction: &mut Transaction,
    user: &str,
    api_key: &str,
    new: ApiSecret,
    old_until: Timestamp,
) -> Result<Option<Credential>, StoreError> {
    let sql = Sql::new(locking!(
        concat!(
            "SELECT ",
            columns!(),
            " FROM api_credentials c WHERE c.api_key = $1 AND c.user_id = $2 AND c.revoked_at IS NULL"
        ),
        "FOR UPDATE"
    ));
    let Some(row) = transaction.first(&sql.bind(api_key).bind(user)).await? else { return Ok(None) };
    let sql = Sql::new(concat!(
        "SELECT ",
        secret_columns!(),
        " FROM api_secrets s WHERE s.api_key = $1 AND (s.expires_at IS NULL OR s.expires_at > $2) \
          ORDER BY s.created_at, s.id"
    ));
    let rows = transaction.all(&sql.bind(api_key).bind(new.created_at)).await?;
    let mut secrets: Vec<ApiSecret> =
        rows.iter().map(|row| Ok(secret(row)?.1)).collect::<Result<_, StoreError>>()?;
    if secrets.len() >= MOST_SECRETS {
        return Err(StoreError::Conflict(
            "the credential has two live secrets: wait until the old one has ended",
        ));
    }
    let sql = Sql::new(
        "UPDATE api_secrets SET expires_at = $2 WHERE api_key = $1 AND (expires_at IS NULL OR expires_at > $2)",
    );
    transaction.change(&sql.bind(api_key).bind(old_until)).await?;
    for old in &mut secrets {
        old.expires_at = Some(old.expires_at.map_or(old_until, |at| at.min(old_until)));
    }
    secrets.retain(|old| old.expires_at > Some(new.created_at));
    add_secret(transaction, api_key, &new).await?;
    secrets.push(new);
    Ok(Some(Credential { secrets, ..credential(&row)? }))
}

//! Answers to requests that may be repeated.

use async_trait::async_trait;
use culvert_broker_wire::Timestamp;

use super::statement::{Columns, Sql, broken};
use super::{Backend, StoreError};
use crate::store::{Claim, Idempotency, StoredAnswer};

/// Whoever claimed a key and did not answer for so long has broken off, in microseconds.
const BROKEN_OFF: i64 = 60_000_000;

#[async_trait]
impl Idempotency for Backend {
    async fn claim(
        &self,
        user: &str,
        key: &str,
        request: &[u8; 32],
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Claim, StoreError> {
        let stale = Timestamp::from_unix_micros(now.unix_micros().saturating_sub(BROKEN_OFF)).unwrap_or(now);
        // A claim takes over one that has ended, and one of the same request that broke off.
        let sql = Sql::new(
            "INSERT INTO idempotency_keys (user_id, key, request, claimed_at, kept_until) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (user_id, key) DO UPDATE SET request = excluded.request, \
                 claimed_at = excluded.claimed_at, kept_until = excluded.kept_until, status = NULL, \
                 headers = NULL, body = NULL \
             WHERE idempotency_keys.kept_until <= $4 OR (idempotency_keys.status IS NULL \
                 AND idempotency_keys.claimed_at <= $6 AND idempotency_keys.request = excluded.request)",
        );
        let sql = sql.bind(user).bind(key).bind(request).bind(now).bind(until).bind(stale);
        if self.pool.change(&sql).await? > 0 {
            return Ok(Claim::New);
        }
        let sql = Sql::new(
            "SELECT request, status, headers, body FROM idempotency_keys WHERE user_id = $1 AND key = $2",
        );
        // Given up between the two statements: whoever asks again has it.
        let Some(row) = self.pool.first(&sql.bind(user).bind(key)).await? else { return Ok(Claim::UnderWay) };
        let mut columns = Columns::of(&row);
        if columns.bytes32()? != *request {
            return Ok(Claim::Other);
        }
        let (status, headers) = (columns.number_or_none()?, columns.text_or_none()?);
        let (Some(status), Some(headers)) = (status, headers) else { return Ok(Claim::UnderWay) };
        Ok(Claim::Answered(StoredAnswer {
            status: u16::try_from(status).map_err(broken)?,
            headers: serde_json::from_str(&headers).map_err(broken)?,
            body: columns.bytes_or_none()?.unwrap_or_default(),
        }))
    }

    async fn answer(&self, user: &str, key: &str, answer: Option<StoredAnswer>) -> Result<(), StoreError> {
        let Some(answer) = answer else {
            let sql =
                Sql::new("DELETE FROM idempotency_keys WHERE user_id = $1 AND key = $2 AND status IS NULL");
            return self.pool.change(&sql.bind(user).bind(key)).await.map(drop);
        };
        let headers = serde_json::to_string(&answer.headers).map_err(broken)?;
        let sql = Sql::new(
            "UPDATE idempotency_keys SET status = $3, headers = $4, body = $5 \
             WHERE user_id = $1 AND key = $2 AND status IS NULL",
        );
        let sql = sql.bind(user).bind(key).bind(i64::from(answer.status)).bind(headers).bind(&answer.body);
        self.pool.change(&sql).await.map(drop)
    }
}

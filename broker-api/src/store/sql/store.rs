//! All of it together: whether it works, and what is swept out.

use std::time::Duration;

use async_trait::async_trait;
use culvert_broker_wire::Timestamp;

use super::statement::Sql;
use super::{Backend, StoreError, migrations};
use crate::store::{Connections, Store};

/// Rows of each kind that one call removes.
const AT_ONCE: i64 = 1000;
/// Uploads that broke off are removed with their pieces, of which there are up to 256 and more.
const UPLOADS_AT_ONCE: i64 = 8;
/// An upload that began so long ago has broken off, in microseconds.
const BROKEN_OFF: i64 = 24 * 3600 * 1_000_000;

#[async_trait]
impl Store for Backend {
    async fn check(&self) -> Result<(), StoreError> {
        migrations::check(&self.pool).await
    }

    fn connections(&self) -> Connections {
        self.pool.connections()
    }

    async fn migrate(&self, wait: Option<Duration>) -> Result<(), StoreError> {
        migrations::migrate(&self.pool, wait).await
    }

    async fn tidy(&self, now: Timestamp) -> Result<u64, StoreError> {
        let stale = Timestamp::from_unix_micros(now.unix_micros().saturating_sub(BROKEN_OFF)).unwrap_or(now);
        let ended: [(&'static str, Timestamp, i64); 5] = [
            (
                "DELETE FROM sessions WHERE hash IN ( \
                     SELECT hash FROM sessions WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)",
                now,
                AT_ONCE,
            ),
            (
                "DELETE FROM idempotency_keys WHERE (user_id, key) IN ( \
                     SELECT user_id, key FROM idempotency_keys WHERE kept_until <= $1 ORDER BY kept_until LIMIT $2)",
                now,
                AT_ONCE,
            ),
            (
                "DELETE FROM api_secrets WHERE id IN ( \
                     SELECT id FROM api_secrets WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)",
                now,
                AT_ONCE,
            ),
            (
                "DELETE FROM signing_keys WHERE kid IN ( \
                     SELECT kid FROM signing_keys WHERE retires_at <= $1 ORDER BY retires_at LIMIT $2)",
                now,
                AT_ONCE,
            ),
            (
                "DELETE FROM user_backups WHERE id IN ( \
                     SELECT id FROM user_backups WHERE version IS NULL AND created_at <= $1 \
                     ORDER BY created_at LIMIT $2)",
                stale,
                UPLOADS_AT_ONCE,
            ),
        ];
        let mut gone = 0;
        for (text, until, most) in ended {
            gone += self.pool.change(&Sql::new(text).bind(until).bind(most)).await?;
        }
        Ok(gone)
    }
}

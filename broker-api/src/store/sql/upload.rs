//! A backup on its way in: rows that nobody sees until they get a version.

use aws_lc_rs::digest::{Context, SHA256};
use bytes::{Bytes, BytesMut};
use culvert_broker_wire::Timestamp;
use data_encoding::HEXLOWER;
use futures_util::StreamExt;

use super::StoreError;
use super::pool::Pool;
use super::statement::Sql;
use crate::store::ByteStream;

/// One piece, of 256 KiB: what is in memory for each upload and each download.
const PIECE: usize = 256 * 1024;
/// Uploads of one user that may be under way; one more ends the oldest, which most likely broke off.
const AT_ONCE: i64 = 4;

/// An upload under way.
pub(super) struct Upload {
    id: String,
}

impl Upload {
    pub(super) async fn begin(pool: &Pool, user: &str, now: Timestamp) -> Result<Self, StoreError> {
        let sql = Sql::new(
            "DELETE FROM user_backups WHERE id IN (SELECT id FROM user_backups \
             WHERE user_id = $1 AND version IS NULL ORDER BY created_at DESC, id DESC LIMIT 1000 OFFSET $2)",
        );
        pool.change(&sql.bind(user).bind(AT_ONCE - 1)).await?;
        let mut random = [0; 16];
        rand::fill(&mut random);
        let id = HEXLOWER.encode(&random);
        let sql = Sql::new("INSERT INTO user_backups (id, user_id, created_at) VALUES ($1, $2, $3)");
        pool.change(&sql.bind(&id).bind(user).bind(now)).await?;
        Ok(Self { id })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Stores what comes; gives how many bytes came, and their SHA-256.
    pub(super) async fn receive(
        &self,
        pool: &Pool,
        mut bytes: ByteStream,
        limit: u64,
    ) -> Result<(u64, String), StoreError> {
        let (mut size, mut hash) = (0, Context::new(&SHA256));
        let (mut waiting, mut position) = (BytesMut::new(), 0);
        while let Some(piece) = bytes.next().await {
            let piece: Bytes = piece.map_err(StoreError::Interrupted)?;
            size += piece.len() as u64;
            if size > limit {
                return Err(StoreError::TooLarge { limit });
            }
            hash.update(&piece);
            // What comes may be larger than a piece.
            for part in piece.chunks(PIECE) {
                waiting.extend_from_slice(part);
                while waiting.len() >= PIECE {
                    self.store(pool, position, &waiting.split_to(PIECE)).await?;
                    position += 1;
                }
            }
        }
        if !waiting.is_empty() {
            self.store(pool, position, &waiting).await?;
        }
        Ok((size, HEXLOWER.encode(hash.finish().as_ref())))
    }

    async fn store(&self, pool: &Pool, position: i64, piece: &[u8]) -> Result<(), StoreError> {
        let sql = Sql::new("INSERT INTO backup_chunks (backup_id, position, bytes) VALUES ($1, $2, $3)");
        pool.change(&sql.bind(&self.id).bind(position).bind(piece)).await.map(drop)
    }

    /// Removes what came. If that fails too, the store is tidied later.
    pub(super) async fn forget(&self, pool: &Pool) {
        let sql = Sql::new("DELETE FROM user_backups WHERE id = $1 AND version IS NULL").bind(&self.id);
        if let Err(error) = pool.change(&sql).await {
            tracing::debug!(%error, "an upload that failed is removed later");
        }
    }
}

//! Sessions.

use async_trait::async_trait;
use culvert_broker_wire::Timestamp;
use culvert_wire::PeerId;

use super::statement::{Columns, Sql};
use super::{Backend, StoreError};
use crate::store::{Role, Session, SessionUser, Sessions, Way};

#[async_trait]
impl Sessions for Backend {
    async fn create_session(&self, session: Session) -> Result<(), StoreError> {
        let sql = Sql::new(
            "INSERT INTO sessions (hash, user_id, device, way, created_at, expires_at) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        );
        let sql = sql.bind(&session.hash).bind(&session.user).bind(session.device.as_ref().map(|key| &key.0));
        let sql = sql.bind(session.way.name()).bind(session.created_at).bind(session.expires_at);
        self.pool.change(&sql).await.map(drop)
    }

    async fn session(&self, hash: &[u8; 32], now: Timestamp) -> Result<Option<SessionUser>, StoreError> {
        let sql = Sql::new(
            "SELECT s.hash, s.user_id, s.device, s.way, s.created_at, s.expires_at, u.role \
             FROM sessions s JOIN users u ON u.id = s.user_id \
             WHERE s.hash = $1 AND s.expires_at > $2 AND u.status = 'active' AND NOT EXISTS ( \
                 SELECT 1 FROM devices d WHERE d.key = s.device AND d.revoked_at IS NOT NULL)",
        );
        let Some(row) = self.pool.first(&sql.bind(hash).bind(now)).await? else { return Ok(None) };
        let mut columns = Columns::of(&row);
        let session = Session {
            hash: columns.bytes32()?,
            user: columns.text()?,
            device: columns.bytes32_or_none()?.map(PeerId),
            way: columns.name(Way::named)?,
            created_at: columns.at()?,
            expires_at: columns.at()?,
        };
        Ok(Some(SessionUser { session, role: columns.name(Role::named)? }))
    }

    async fn end_session(&self, hash: &[u8; 32]) -> Result<bool, StoreError> {
        let sql = Sql::new("DELETE FROM sessions WHERE hash = $1").bind(hash);
        Ok(self.pool.change(&sql).await? > 0)
    }

    async fn end_sessions(&self, user: &str) -> Result<u64, StoreError> {
        self.pool.change(&Sql::new("DELETE FROM sessions WHERE user_id = $1").bind(user)).await
    }
}

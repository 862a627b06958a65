//! Users and their devices.

use async_trait::async_trait;
use culvert_broker_wire::Timestamp;
use culvert_wire::PeerId;

use super::pages::Wanted;
use super::pool::{Row, Transaction};
use super::statement::{Columns, Sql};
use super::{Backend, StoreError};
use crate::store::{Admitted, Cursor, Device, NewUser, Page, PageRequest, Role, Status, User, Users};

/// Devices of one user that are not revoked.
const MOST_DEVICES: i64 = 256;

macro_rules! columns {
    () => {
        "u.id, u.role, u.status, u.password_hash, u.created_at, u.last_seen"
    };
}

fn user(row: &Row) -> Result<User, StoreError> {
    let mut columns = Columns::of(row);
    Ok(User {
        id: columns.text()?,
        role: columns.name(Role::named)?,
        status: columns.name(Status::named)?,
        password_hash: columns.text_or_none()?,
        created_at: columns.at()?,
        last_seen: columns.at_or_none()?,
    })
}

fn device(row: &Row) -> Result<Device, StoreError> {
    let mut columns = Columns::of(row);
    Ok(Device {
        key: PeerId(columns.bytes32()?),
        name: columns.text()?,
        added_at: columns.at()?,
        last_used_at: columns.at_or_none()?,
    })
}

#[async_trait]
impl Users for Backend {
    async fn admit(&self, new: NewUser, now: Timestamp) -> Result<Admitted, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let outcome = admit(&mut transaction, &new, now).await;
        transaction.end(outcome).await
    }

    async fn user(&self, id: &str) -> Result<Option<User>, StoreError> {
        let sql = Sql::new(concat!("SELECT ", columns!(), " FROM users u WHERE u.id = $1")).bind(id);
        self.pool.first(&sql).await?.as_ref().map(user).transpose()
    }

    async fn users(&self, page: PageRequest) -> Result<Page<User>, StoreError> {
        let wanted = Wanted::of(page);
        let sql = Sql::new(concat!(
            "SELECT ",
            columns!(),
            " FROM users u WHERE (u.created_at, u.id) < ($1, $2) ORDER BY u.created_at DESC, u.id DESC LIMIT $3"
        ));
        let rows = self.pool.all(&sql.bind(wanted.at).bind(&wanted.id).bind(wanted.rows)).await?;
        wanted.page(&rows, user, |user| Cursor { at: user.created_at, id: user.id.clone() })
    }

    async fn set_password(&self, id: &str, hash: Option<String>) -> Result<bool, StoreError> {
        let sql =
            Sql::new("UPDATE users SET password_hash = $2 WHERE id = $1").bind(id).bind(hash.as_deref());
        Ok(self.pool.change(&sql).await? > 0)
    }

    async fn set_status(&self, id: &str, status: Status) -> Result<bool, StoreError> {
        let sql = Sql::new("UPDATE users SET status = $2 WHERE id = $1").bind(id).bind(status.name());
        Ok(self.pool.change(&sql).await? > 0)
    }

    async fn set_role(&self, id: &str, role: Role) -> Result<bool, StoreError> {
        let sql = Sql::new("UPDATE users SET role = $2 WHERE id = $1").bind(id).bind(role.name());
        Ok(self.pool.change(&sql).await? > 0)
    }

    async fn delete_user(&self, id: &str, now: Timestamp) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let outcome = delete(&mut transaction, id, now).await;
        transaction.end(outcome).await
    }

    async fn seen(&self, id: &str, at: Timestamp) -> Result<(), StoreError> {
        let sql = Sql::new(
            "UPDATE users SET last_seen = $2 WHERE id = $1 AND (last_seen IS NULL OR last_seen < $2)",
        );
        self.pool.change(&sql.bind(id).bind(at)).await.map(drop)
    }

    async fn devices(&self, user: &str) -> Result<Vec<Device>, StoreError> {
        let sql = Sql::new(
            "SELECT key, name, added_at, last_used_at FROM devices \
             WHERE user_id = $1 AND revoked_at IS NULL ORDER BY added_at, key LIMIT $2",
        );
        self.pool.all(&sql.bind(user).bind(MOST_DEVICES)).await?.iter().map(device).collect()
    }

    async fn user_of_device(&self, key: &PeerId) -> Result<Option<User>, StoreError> {
        let sql = Sql::new(concat!(
            "SELECT ",
            columns!(),
            " FROM devices d JOIN users u ON u.id = d.user_id WHERE d.key = $1 AND d.revoked_at IS NULL"
        ));
        self.pool.first(&sql.bind(&key.0)).await?.as_ref().map(user).transpose()
    }

    async fn add_device(&self, user: &str, device: Device) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        let outcome = add_device(&mut transaction, user, &device).await;
        transaction.end(outcome).await
    }

    async fn device_used(&self, key: &PeerId, at: Timestamp) -> Result<(), StoreError> {
        let sql = Sql::new(
            "UPDATE devices SET last_used_at = $2 WHERE key = $1 AND (last_used_at IS NULL OR last_used_at < $2)",
        );
        self.pool.change(&sql.bind(&key.0).bind(at)).await.map(drop)
    }

    async fn revoke_device(&self, user: &str, key: &PeerId, now: Timestamp) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let outcome = revoke_device(&mut transaction, user, key, now).await;
        transaction.end(outcome).await
    }

    async fn related(&self, user: &str, now: Timestamp, limit: u32) -> Result<Vec<String>, StoreError> {
        let sql = Sql::new(
            "SELECT u.id FROM users u JOIN ( \
                 SELECT other.user_id FROM team_members mine \
                     JOIN team_members other ON other.team_id = mine.team_id WHERE mine.user_id = $1 \
                 UNION SELECT named.user_id FROM shared_results s JOIN share_users named ON named.share_id = s.id \
                     WHERE s.owner_user_id = $1 AND s.revoked_at IS NULL \
                         AND (s.expires_at IS NULL OR s.expires_at > $2) \
                 UNION SELECT s.owner_user_id FROM share_users named JOIN shared_results s ON s.id = named.share_id \
                     WHERE named.user_id = $1 AND s.revoked_at IS NULL \
                         AND (s.expires_at IS NULL OR s.expires_at > $2) \
             ) related ON related.user_id = u.id WHERE u.id <> $1 ORDER BY u.id LIMIT $3",
        );
        let rows = self.pool.all(&sql.bind(user).bind(now).bind(limit)).await?;
        rows.iter().map(|row| Columns::of(row).text()).collect()
    }
}

async fn admit(transaction: &mut Transaction, new: &NewUser, now: Timestamp) -> Result<Admitted, StoreError> {
    let sql = Sql::new(
        "INSERT INTO users (id, role, status, password_hash, created_at) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (id) DO NOTHING",
    );
    let sql = sql.bind(&new.id).bind(new.role.name()).bind(Status::Active.name());
    let inserted = transaction.change(&sql.bind(new.password_hash.as_deref()).bind(now)).await?;
    if inserted == 0 {
        let sql = Sql::new(concat!("SELECT ", columns!(), " FROM users u WHERE u.id = $1")).bind(&new.id);
        // Gone between the two statements: whoever removed it was later than this admission.
        let there =
            transaction.first(&sql).await?.ok_or(StoreError::Conflict("the user is being removed"))?;
        return Ok(Admitted::Exists(user(&there)?));
    }
    if let Some(device) = &new.device {
        bind_device(transaction, &new.id, device).await?;
    }
    Ok(Admitted::New)
}

async fn bind_device(transaction: &mut Transaction, user: &str, device: &Device) -> Result<(), StoreError> {
    let sql = Sql::new(
        "INSERT INTO devices (key, user_id, name, added_at, last_used_at) VALUES ($1, $2, $3, $4, $5)",
    );
    let sql = sql.bind(&device.key.0).bind(user).bind(&device.name);
    transaction.change(&sql.bind(device.added_at).bind(device.last_used_at)).await.map(drop)
}

async fn add_device(transaction: &mut Transaction, user: &str, device: &Device) -> Result<(), StoreError> {
    let sql = Sql::new(locking!("SELECT 1 FROM users WHERE id = $1", "FOR UPDATE")).bind(user);
    if transaction.first(&sql).await?.is_none() {
        return Err(StoreError::Conflict(super::errors::NO_USER));
    }
    let sql = Sql::new("SELECT count(*) FROM devices WHERE user_id = $1 AND revoked_at IS NULL").bind(user);
    let count = transaction.first(&sql).await?.map(|row| Columns::of(&row).number()).transpose()?;
    if count >= Some(MOST_DEVICES) {
        return Err(StoreError::Conflict("the user has too many devices: revoke one first"));
    }
    bind_device(transaction, user, device).await
}

async fn revoke_device(
    transaction: &mut Transaction,
    user: &str,
    key: &PeerId,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let sql =
        Sql::new("UPDATE devices SET revoked_at = $3 WHERE user_id = $1 AND key = $2 AND revoked_at IS NULL");
    let revoked = transaction.change(&sql.bind(user).bind(&key.0).bind(now)).await?;
    let sql = Sql::new("DELETE FROM sessions WHERE user_id = $1 AND device = $2");
    transaction.change(&sql.bind(user).bind(&key.0)).await?;
    Ok(revoked > 0)
}

/// What is theirs goes by the foreign keys; what has none follows here.
async fn delete(transaction: &mut Transaction, id: &str, now: Timestamp) -> Result<bool, StoreError> {
    if transaction.change(&Sql::new("DELETE FROM users WHERE id = $1").bind(id)).await? == 0 {
        return Ok(false);
    }
    let sql = Sql::new(
        "UPDATE shared_results SET revoked_at = $2, updated_at = $2, version = version + 1 \
         WHERE owner_user_id = $1 AND revoked_at IS NULL",
    );
    transaction.change(&sql.bind(id).bind(now)).await?;
    // The next one with this id is somebody else.
    transaction.change(&Sql::new("DELETE FROM share_users WHERE user_id = $1").bind(id)).await?;
    transaction.change(&Sql::new("DELETE FROM idempotency_keys WHERE user_id = $1").bind(id)).await?;
    Ok(true)
}

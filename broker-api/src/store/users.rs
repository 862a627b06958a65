//! Users and their devices.

use async_trait::async_trait;
use culvert_broker_wire::Timestamp;
use culvert_wire::PeerId;

use super::{Page, PageRequest, StoreError};

/// What a user may do beside what is theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Nothing.
    User,
    /// Administers users, teams, credentials and revocations, and reads the audit log.
    Admin,
}

/// Whether a user may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Yes.
    Active,
    /// No, until an administrator says so; nothing of theirs is removed.
    Suspended,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Their id, as they chose it: opaque, compared byte by byte.
    pub id: String,
    /// What they may do.
    pub role: Role,
    /// Whether they may come in.
    pub status: Status,
    /// Argon2id of their account's password, as a PHC string; `None` without an account.
    pub password_hash: Option<String>,
    /// When they were admitted.
    pub created_at: Timestamp,
    /// When they were last online.
    pub last_seen: Option<Timestamp>,
}

/// A user to be admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewUser {
    /// Their id.
    pub id: String,
    /// What they may do.
    pub role: Role,
    /// Argon2id of their account's password, as a PHC string.
    pub password_hash: Option<String>,
    /// The device that the id is bound to.
    pub device: Option<Device>,
}

/// A device of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its key, which proves it.
    pub key: PeerId,
    /// What it is called in lists.
    pub name: String,
    /// When it was bound.
    pub added_at: Timestamp,
    /// When it was last used to come in.
    pub last_used_at: Option<Timestamp>,
}

/// What became of an admission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admitted {
    /// The id was free and is bound now.
    New,
    /// Somebody has it already; nothing was changed.
    Exists(User),
}

/// Users and their devices.
#[async_trait]
pub trait Users: Send + Sync {
    /// Binds an id that is free, together with its device; of two at once, one wins.
    async fn admit(&self, user: NewUser, now: Timestamp) -> Result<Admitted, StoreError>;
    /// The user with this id.
    async fn user(&self, id: &str) -> Result<Option<User>, StoreError>;
    /// All users.
    async fn users(&self, page: PageRequest) -> Result<Page<User>, StoreError>;
    /// Sets or removes the account's password; false if there is no such user.
    async fn set_password(&self, id: &str, hash: Option<String>) -> Result<bool, StoreError>;
    /// Sets the status; false if there is no such user.
    async fn set_status(&self, id: &str, status: Status) -> Result<bool, StoreError>;
    /// Sets the role; false if there is no such user.
    async fn set_role(&self, id: &str, role: Role) -> Result<bool, StoreError>;
    /// Removes a user with devices, sessions, credentials, backups and memberships, revokes their shares, and
    /// takes their name out of other policies: the next one with this id is somebody else. The id stays taken
    /// in the audit log only. A team may be left without an admin. False if there is no such user.
    async fn delete_user(&self, id: &str, now: Timestamp) -> Result<bool, StoreError>;
    /// Notes that the user was online.
    async fn seen(&self, id: &str, at: Timestamp) -> Result<(), StoreError>;
    /// The devices of a user that are not revoked, oldest first; at most 256.
    async fn devices(&self, user: &str) -> Result<Vec<Device>, StoreError>;
    /// The user that an unrevoked device is bound to.
    async fn user_of_device(&self, key: &PeerId) -> Result<Option<User>, StoreError>;
    /// Binds one more device; a conflict if the key is bound to anybody or was revoked, or the user has 256.
    async fn add_device(&self, user: &str, device: Device) -> Result<(), StoreError>;
    /// Notes that the device was used.
    async fn device_used(&self, key: &PeerId, at: Timestamp) -> Result<(), StoreError>;
    /// Revokes a device for good and ends its sessions; false if the user has no such device.
    async fn revoke_device(&self, user: &str, key: &PeerId, now: Timestamp) -> Result<bool, StoreError>;
    /// Whether any two of these users share a team, or one has a share that names the other: who is told
    /// about whose presence. Gives all users that are related to `user`, at most `limit`.
    async fn related(&self, user: &str, now: Timestamp, limit: u32) -> Result<Vec<String>, StoreError>;
}

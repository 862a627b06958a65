//! Backups of users' states: opaque bytes, which clients encrypt.
//!
//! Large ones come and go as streams over REST; small ones fit into messages of the WebSocket.

use bytes::Bytes;
use culvert_broker_wire::ErrorCode;
use culvert_broker_wire::limits::MAX_MESSAGE;
use culvert_broker_wire::message::BackupInfo;
use data_encoding::BASE64;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;

use super::audit;
use crate::core::{Caller, Core, Refusal};
use crate::store::{AuditAction, BackupMeta, ByteStream, NewBackup, Precondition, StoreError};

/// Bytes of a backup that fit into a message: base64 makes four out of three, and the rest of the message
/// needs room too.
pub const SMALL: u64 = (MAX_MESSAGE as u64 - 4096) / 4 * 3;

/// Whether the caller's latest backup is this state; then it need not be sent.
///
/// # Errors
/// `BACKUP_NOT_FOUND` if it is another one, or there is none; `INVALID_INPUT`.
pub async fn announced(core: &Core, caller: &Caller, state_hash: &str) -> Result<BackupInfo, Refusal> {
    let state_hash = hash(state_hash)?;
    let latest = core.store.backups(&caller.user).await?.into_iter().next();
    let latest = latest.filter(|latest| latest.state_hash == state_hash);
    latest.map(info).ok_or_else(|| {
        let text = "this state is not stored; send it as `data`, or with PUT /api/backups/me";
        Refusal::new(ErrorCode::BackupNotFound, text)
    })
}

/// Stores a state that came within a message.
///
/// # Errors
/// As [`store`]; `INVALID_INPUT` if it is not base64.
pub async fn store_small(
    core: &Core,
    caller: &Caller,
    state_hash: &str,
    data: &str,
    replaces: Option<i64>,
) -> Result<BackupInfo, Refusal> {
    let wrong = |_| Refusal::new(ErrorCode::InvalidInput, "`data` must be base64 with padding");
    let bytes = Bytes::from(BASE64.decode(data.as_bytes()).map_err(wrong)?);
    let condition = replaces.map_or(Precondition::None, Precondition::Version);
    let bytes = stream::iter([Ok(bytes)]).boxed();
    store(core, caller, Some(state_hash), condition, bytes).await.map(info)
}

/// The caller's latest state, with its bytes when they fit into a message.
///
/// # Errors
/// `BACKUP_NOT_FOUND`.
pub async fn restore_small(core: &Core, caller: &Caller) -> Result<BackupInfo, Refusal> {
    let (meta, bytes) = read(core, caller, None).await?;
    let fits = meta.size_bytes <= SMALL;
    let mut info = info(meta);
    if fits {
        let bytes = bytes.try_fold(Vec::new(), async |mut all, piece| {
            all.extend_from_slice(&piece);
            Ok(all)
        });
        let bytes = bytes.await.map_err(|error| {
            tracing::warn!(%error, "a backup broke off while it was read");
            Refusal::unavailable()
        })?;
        info.data = Some(BASE64.encode(&bytes));
    }
    Ok(info)
}

/// Stores a state as the caller's next version.
///
/// # Errors
/// `TOO_LARGE`, `INVALID_INPUT` if the bytes have another hash, `PRECONDITION_FAILED` if another device was
/// faster, `BACKUP_ERROR` if the bytes broke off.
pub async fn store(
    core: &Core,
    caller: &Caller,
    state_hash: Option<&str>,
    condition: Precondition,
    bytes: ByteStream,
) -> Result<BackupMeta, Refusal> {
    let state_hash = state_hash.map(hash).transpose()?;
    let (limit, keep) = (core.config.limits.backup_bytes, core.config.limits.backup_versions);
    let new = NewBackup { state_hash, condition, bytes, limit, keep };
    let meta = core.store.put_backup(&caller.user, new, core.now()).await.map_err(conflict_is_stale)?;
    let detail = json!({ "state_hash": meta.state_hash, "size_bytes": meta.size_bytes });
    audit::done(core, caller, AuditAction::BackupStored, &meta.version.to_string(), detail).await?;
    Ok(meta)
}

/// A version of the caller's states, or the latest, and its bytes.
///
/// # Errors
/// `BACKUP_NOT_FOUND`.
pub async fn read(
    core: &Core,
    caller: &Caller,
    version: Option<i64>,
) -> Result<(BackupMeta, ByteStream), Refusal> {
    let (meta, bytes) = core.store.backup(&caller.user, version).await?.ok_or_else(not_found)?;
    audit::done(core, caller, AuditAction::BackupRead, &meta.version.to_string(), json!({})).await?;
    Ok((meta, bytes))
}

/// The versions of the caller's states, newest first.
///
/// # Errors
/// The database is not available.
pub async fn versions(core: &Core, caller: &Caller) -> Result<Vec<BackupInfo>, Refusal> {
    Ok(core.store.backups(&caller.user).await?.into_iter().map(info).collect())
}

/// Removes all versions of the caller's states.
///
/// # Errors
/// `BACKUP_NOT_FOUND` if there are none, `PRECONDITION_FAILED`.
pub async fn delete(core: &Core, caller: &Caller, condition: Precondition) -> Result<(), Refusal> {
    let removed = core.store.delete_backups(&caller.user, condition).await.map_err(conflict_is_stale)?;
    if !removed {
        return Err(not_found());
    }
    audit::done(core, caller, AuditAction::BackupDeleted, "all", json!({})).await
}

/// A backup as clients see it, without its bytes.
pub fn info(meta: BackupMeta) -> BackupInfo {
    let BackupMeta { version, state_hash, size_bytes, created_at } = meta;
    BackupInfo { version, state_hash, size_bytes, created_at, data: None }
}

fn not_found() -> Refusal {
    Refusal::new(ErrorCode::BackupNotFound, "there is no backup, or none of that version")
}

fn conflict_is_stale(error: StoreError) -> Refusal {
    match error {
        StoreError::Conflict(_) => {
            let text = "another device stored a state meanwhile; read it, and store yours over its version";
            Refusal::new(ErrorCode::PreconditionFailed, text)
        }
        error => error.into(),
    }
}

fn hash(text: &str) -> Result<String, Refusal> {
    let fits = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let wrong = "`state_hash` must be a SHA-256 in 64 hexadecimal digits";
    if fits { Ok(text.to_ascii_lowercase()) } else { Err(Refusal::new(ErrorCode::InvalidInput, wrong)) }
}

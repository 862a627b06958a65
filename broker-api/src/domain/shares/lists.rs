//! Lists of shares, and who asked for one.

use culvert_broker_wire::message::ShareSummary;

use super::{cursor, not_found, token_context};
use crate::core::{Caller, Core, Refusal};
use crate::domain::{check, page};
use crate::store::{Access, AuditAction, AuditEntry, AuditFilter, Page, Share};

/// A part of a list, and where it goes on.
pub type Listed<T> = (Vec<T>, Option<String>);

/// The caller's own shares, newest first, with their tokens.
///
/// # Errors
/// `INVALID_INPUT` for a cursor or limit that cannot be.
pub async fn list_mine(
    core: &Core,
    caller: &Caller,
    cursor_text: Option<&str>,
    limit: u32,
) -> Result<Listed<ShareSummary>, Refusal> {
    let found = core.store.shares_of(&caller.user, page(cursor_text, limit)?).await?;
    let items = found.items.into_iter().map(|share| summary(core, share)).collect();
    Ok((items, cursor(found.next)))
}

/// Shares of others that name the caller, one of their teams or the institution, newest first, without
/// their tokens.
///
/// # Errors
/// `INVALID_INPUT` for a cursor or limit that cannot be.
pub async fn list_shared_with_me(
    core: &Core,
    caller: &Caller,
    cursor_text: Option<&str>,
    limit: u32,
) -> Result<Listed<ShareSummary>, Refusal> {
    let found = core.store.shared_with(&caller.user, page(cursor_text, limit)?, core.now()).await?;
    Ok((found.items.iter().map(summary_for_others).collect(), cursor(found.next)))
}

/// Who asked for the caller's own share, newest first: granted and denied.
///
/// # Errors
/// `SHARE_NOT_FOUND` unless the caller owns it; `INVALID_INPUT`.
pub async fn accesses(
    core: &Core,
    caller: &Caller,
    token: &str,
    cursor_text: Option<&str>,
    limit: u32,
) -> Result<Page<AuditEntry>, Refusal> {
    let token = check::known_token(token)?;
    let page = page(cursor_text, limit)?;
    let found = core.store.look_up(&token.hash(), Some(&caller.user), core.now()).await?;
    let Some(Access::Owner(share)) = found else { return Err(not_found()) };
    let action = Some(AuditAction::ShareRequested);
    let filter = AuditFilter { action, subject: Some(share.id), ..AuditFilter::default() };
    Ok(core.store.entries(filter, page).await?)
}

/// A share as its owner sees it in lists.
pub fn summary(core: &Core, share: Share) -> ShareSummary {
    let token = core.sealer.open(&token_context(&share.token_hash), &share.token_sealed);
    let token = token.ok().and_then(|text| String::from_utf8(text.to_vec()).ok());
    if token.is_none() {
        tracing::error!(share = share.id, "a share's token does not open; is its data key still configured?");
    }
    ShareSummary { token, downloads: Some(share.downloads), ..summary_for_others(&share) }
}

/// A share as others see it in lists and events: without its token.
pub(crate) fn summary_for_others(share: &Share) -> ShareSummary {
    ShareSummary {
        id: share.id.clone(),
        token: None,
        published_at: share.published_at,
        downloads: None,
        metadata: super::look_up::metadata(share.clone()),
    }
}

//! Asking for a share: the hottest request of the broker.

use std::net::Ipv4Addr;

use culvert_broker_wire::grant::AUDIENCE;
use culvert_broker_wire::{
    Audience, ErrorCode, GrantClaims, Permission, ShareInfo, ShareMetadata, ShareToken, Timestamp,
};
use serde_json::json;
use url::{Host, Url};

use super::{hash_text, not_found, random_id};
use crate::core::{Caller, Core, Refusal, Visitor};
use crate::domain::{audit, check};
use crate::live;
use crate::store::{Access, AuditAction, LookUp, Share};

/// What somebody asks a share for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// A grant to download, if the policy permits it; counts as a download unless the owner asks.
    Grant,
    /// Only what it is; counts as nothing.
    View,
}

/// A share that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What and where.
    pub info: ShareInfo,
    /// Its version, for its owner.
    pub version: Option<i64>,
}

/// Gives a share, with a grant to download if the policy permits it.
///
/// # Errors
/// As [`look_up`].
pub async fn request(
    core: &Core,
    caller: Option<&Caller>,
    visitor: Visitor,
    token: &str,
) -> Result<ShareInfo, Refusal> {
    look_up(core, caller, visitor, token, Wanted::Grant).await.map(|found| found.info)
}

/// Gives a share to whom its policy names. What is given is written down before.
///
/// # Errors
/// `SHARE_NOT_FOUND`, or `ACCESS_DENIED` to users who hold a token that cannot be guessed.
pub async fn look_up(
    core: &Core,
    caller: Option<&Caller>,
    visitor: Visitor,
    token: &str,
    wanted: Wanted,
) -> Result<Found, Refusal> {
    let token = check::known_token(token)?;
    let now = core.now();
    let user = caller.map(|caller| caller.user.as_str());
    let deny = async |share: Option<&Share>, reason: &str| {
        core.metrics.denials.increment(1);
        let subject = share.map(|share| share.id.as_str());
        let detail = json!({ "reason": reason, "token_sha256": hash_text(&token) });
        audit::denied(core, caller, visitor, AuditAction::ShareRequested, subject, detail).await;
        if share.is_some() && caller.is_some() && token.is_private() {
            Refusal::new(ErrorCode::AccessDenied, "this share is not for you, has ended or is used up")
        } else {
            not_found()
        }
    };
    let wanted_share = LookUp { token_hash: token.hash(), viewer: user.map(str::to_owned) };
    let (share, owner, presences) = match core.desk.look_up(wanted_share).await? {
        Some((Access::Owner(share), presences)) => (share, true, presences),
        Some((Access::Granted(share), presences)) => (share, false, presences),
        Some((Access::Denied(share), _)) => return Err(deny(Some(&share), why(&share, now)).await),
        None => return Err(deny(None, "unknown").await),
    };
    let download =
        wanted == Wanted::Grant && (owner || share.policy.permissions.contains(&Permission::Download));
    let counts = download && !owner;
    // Where the number is limited, it is taken before anything is given; where it is not, it is counted
    // together with what others download at the same time.
    let limited = share.policy.max_downloads.is_some();
    if counts && limited && !core.store.count_download(&share.id).await? {
        return Err(deny(Some(&share), "used up").await);
    }
    let (grant, jti) = match download {
        true => sign(core, caller, &token, &share, now).map(|(grant, jti)| (Some(grant), Some(jti)))?,
        false => (None, None),
    };
    // Named by the policy, so related to the owner; for a public share nobody is.
    let related = owner || (user.is_some() && share.policy.audience != Audience::Public);
    let last_seen = match related && presences.is_empty() {
        true => core.store.user(&share.owner).await?.and_then(|owner| owner.last_seen),
        false => None,
    };
    let detail = json!({ "grant": jti });
    audit::granted(core, caller, visitor, &share.id, detail, counts && !limited).await?;
    core.metrics.grants.increment(u64::from(download));
    let result_id = share.result_id.clone();
    let version = owner.then_some(share.version);
    let metadata = metadata(share);
    let (download_url, relays) = (String::new(), Vec::new());
    let mut info = ShareInfo { metadata, download_url, owner_online: false, grant, relays, last_seen };
    live::reachable(&presences, &mut info, &result_id);
    if caller.is_none() && is_local(&info.download_url) {
        // Of no use to a stranger, and none of their business.
        info.download_url.clear();
    }
    Ok(Found { info, version })
}

/// Whether a URL means something only in its owner's own network.
fn is_local(url: &str) -> bool {
    match Url::parse(url).ok().as_ref().and_then(Url::host) {
        Some(Host::Domain(name)) => !name.contains('.') || name.ends_with(".local"),
        Some(Host::Ipv4(address)) => {
            address.is_private() || address.is_loopback() || address.is_link_local() || is_shared(address)
        }
        Some(Host::Ipv6(address)) => {
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        }
        None => false,
    }
}

/// Whether an address is shared by the customers of a provider (RFC 6598, 100.64.0.0/10).
fn is_shared(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    first == 100 && (64..128).contains(&second)
}

/// Signs a grant that ends with the share at the latest; gives its id as well.
fn sign(
    core: &Core,
    caller: Option<&Caller>,
    token: &ShareToken,
    share: &Share,
    now: Timestamp,
) -> Result<(String, String), Refusal> {
    let iat = now.unix_seconds();
    let end = iat.saturating_add(core.config.timing.grant.as_secs());
    let claims = GrantClaims {
        iss: core.config.public_url.clone(),
        aud: AUDIENCE.to_owned(),
        sub: caller.map(|caller| caller.user.clone()),
        cnf: caller.and_then(|caller| caller.device),
        owner: share.owner.clone(),
        result_id: share.result_id.clone(),
        share: hash_text(token),
        iat,
        exp: share.policy.expires_at.map_or(end, |expiry| end.min(expiry.unix_seconds())).max(iat + 1),
        jti: random_id(),
    };
    Ok((core.keys.grant(&claims)?, claims.jti))
}

/// Why a policy says no, for the audit log.
fn why(share: &Share, now: Timestamp) -> &'static str {
    if share.policy.expires_at.is_some_and(|expiry| expiry <= now) {
        "expired"
    } else if share.policy.max_downloads.is_some_and(|most| share.downloads >= most) {
        "used up"
    } else {
        "not in the audience"
    }
}

/// What a share is, as others get to know it.
pub(super) fn metadata(share: Share) -> ShareMetadata {
    ShareMetadata {
        owner_user_id: share.owner,
        result_id: share.result_id,
        title: share.title,
        description: share.description,
        created_at: share.created_at,
        access_policy: share.policy,
    }
}

//! By a device's key: an Ed25519 signature over a challenge that is used once.

use std::time::Duration;

use async_trait::async_trait;
use culvert_broker_wire::auth::DeviceProof;
use data_encoding::BASE64URL_NOPAD;
use url::Url;

use super::{Entrance, Presented, Provider, wrong};
use crate::config::Config;
use crate::core::{Caller, Core, Refusal, Visitor};
use crate::store::{Status, User, Way};

/// How long a challenge waits for its signature.
pub(super) const CHALLENGE_TTL: Duration = Duration::from_secs(60);
/// Characters of a challenge: 32 bytes in base64url.
const CHALLENGE_CHARS: usize = 43;

/// A challenge, kept until it is used or its time is over.
pub(super) async fn challenge(core: &Core) -> Result<String, Refusal> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes);
    let challenge = BASE64URL_NOPAD.encode(&bytes);
    core.live.keep(&key(&challenge), b"", CHALLENGE_TTL).await?;
    Ok(challenge)
}

fn key(challenge: &str) -> String {
    format!("challenge:{challenge}")
}

/// The names by which clients reach this broker: a proof for another host was made for another broker.
pub(super) fn names(config: &Config) -> Vec<String> {
    let url = Url::parse(&config.public_url).ok();
    let host = url.as_ref().and_then(Url::host_str).map(str::to_owned);
    host.into_iter().chain(config.names.iter().cloned()).map(|name| plain(&name)).collect()
}

/// A host as it is compared: lowercase, an IPv6 address without brackets, no dot at the end.
fn plain(host: &str) -> String {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// Whether this proof is signed for this user and for this broker. Says nothing about its challenge.
pub(super) fn is_for(core: &Core, user: &str, proof: &DeviceProof) -> bool {
    core.identity.names.contains(&plain(&proof.host)) && proof.is_signed_for(user)
}

/// Checks a proof over one of our challenges, which is used up by that.
pub(super) async fn check(core: &Core, user: &str, proof: &DeviceProof) -> Result<(), Refusal> {
    if proof.challenge.len() != CHALLENGE_CHARS || !is_for(core, user, proof) {
        return Err(wrong());
    }
    core.live.take(&key(&proof.challenge)).await?.map(drop).ok_or_else(wrong)
}

/// The user with this id, if the proven device is theirs and they may come in.
pub(super) async fn owner(core: &Core, user: &str, proof: &DeviceProof) -> Result<User, Refusal> {
    let owner = core.store.user_of_device(&proof.key).await?;
    let owner = owner.filter(|owner| owner.id == user && owner.status == Status::Active).ok_or_else(wrong)?;
    if let Err(error) = core.store.device_used(&proof.key, core.now()).await {
        tracing::warn!(%error, "when a device was last used could not be noted");
    }
    Ok(owner)
}

/// A device that is bound to its user.
pub(super) struct Devices;

#[async_trait]
impl Provider for Devices {
    fn entrance(&self) -> Entrance {
        Entrance::Device
    }

    async fn identify(
        &self,
        core: &Core,
        visitor: Visitor,
        presented: &Presented<'_>,
    ) -> Result<Option<Caller>, Refusal> {
        let Presented::Device { user, proof } = presented else { return Ok(None) };
        check(core, user, proof).await?;
        let User { id, role, .. } = owner(core, user, proof).await?;
        let device = Some(proof.key);
        Ok(Some(Caller { user: id, role, way: Way::Device, device, session: None, api_key: None, visitor }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_compared_as_names() {
        assert_eq!(plain("Broker.Example.ORG."), "broker.example.org");
        assert_eq!(plain("[2001:DB8::1]"), plain("2001:db8::1"));
    }
}

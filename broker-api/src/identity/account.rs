//! By the password of an account.

use async_trait::async_trait;

use super::{Entrance, Presented, Provider, wrong};
use crate::core::{Caller, Core, Refusal, Visitor};
use crate::store::{Status, Way};

/// Accounts: users with a password of their own.
pub(super) struct Accounts;

#[async_trait]
impl Provider for Accounts {
    fn entrance(&self) -> Entrance {
        Entrance::Account
    }

    async fn identify(
        &self,
        core: &Core,
        visitor: Visitor,
        presented: &Presented<'_>,
    ) -> Result<Option<Caller>, Refusal> {
        let Presented::Password { user, password, .. } = presented else { return Ok(None) };
        let user = core.store.user(user).await?;
        let hash = user.as_ref().and_then(|user| user.password_hash.as_deref());
        let right = core.identity.hasher.verify(password, hash).await?;
        let user = user.filter(|user| right && user.status == Status::Active).ok_or_else(wrong)?;
        let (user, role) = (user.id, user.role);
        Ok(Some(Caller {
            user,
            role,
            way: Way::Account,
            device: None,
            session: None,
            api_key: None,
            visitor,
        }))
    }
}

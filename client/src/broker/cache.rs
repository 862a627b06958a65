//! Shares that were looked up before, for when the broker cannot be asked.
//!
//! What comes from here is marked as stale and opens nothing: it has no grant, and the owner counts as
//! offline. Tokens are not kept, only their hashes.

use std::collections::HashMap;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use culvert_broker_wire::{ShareInfo, ShareToken, Timestamp};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::error::SyncError;
use super::files;

/// Shares that are remembered; the one that was looked up longest ago goes first.
const MOST: usize = 200;

/// What the broker says about a share, or said when it was last asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedResultInfo {
    /// What it says.
    #[serde(flatten)]
    pub info: ShareInfo,
    /// When it said so.
    pub as_of: Timestamp,
    /// Whether it could not be asked just now. The owner then counts as offline, and there is no grant.
    #[serde(default)]
    pub is_stale: bool,
}

impl Deref for SharedResultInfo {
    type Target = ShareInfo;

    fn deref(&self) -> &ShareInfo {
        &self.info
    }
}

/// Remembered shares by the hash of their tokens.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    shares: HashMap<String, SharedResultInfo>,
    file: Option<PathBuf>,
}

impl Cache {
    /// What an earlier process remembered. A file that cannot be used is as good as none.
    pub(crate) fn load(file: Option<PathBuf>) -> Self {
        let read = file.as_deref().map(files::read);
        let shares = match read.transpose() {
            Ok(shares) => shares.flatten().unwrap_or_default(),
            Err(error) => {
                tracing::warn!(%error, "remembered shares are forgotten");
                HashMap::new()
            }
        };
        Self { shares, file }
    }

    /// Remembers what the broker said.
    pub(crate) fn put(
        &mut self,
        token: &ShareToken,
        info: &ShareInfo,
        now: Timestamp,
    ) -> Result<(), SyncError> {
        let info = ShareInfo {
            grant: None,
            relays: Vec::new(),
            download_url: String::new(),
            owner_online: false,
            ..info.clone()
        };
        self.shares.insert(key(token), SharedResultInfo { info, as_of: now, is_stale: true });
        if self.shares.len() > MOST {
            let oldest = self.shares.iter().min_by_key(|(_, share)| share.as_of).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| self.shares.remove(&oldest));
        }
        self.save()
    }

    /// Forgets a share that the broker does not know any more, or refuses.
    pub(crate) fn remove(&mut self, token: &ShareToken) -> Result<(), SyncError> {
        if self.shares.remove(&key(token)).is_some() { self.save() } else { Ok(()) }
    }

    pub(crate) fn get(&self, token: &ShareToken) -> Option<SharedResultInfo> {
        self.shares.get(&key(token)).cloned()
    }

    fn save(&self) -> Result<(), SyncError> {
        self.file.as_deref().map_or(Ok(()), |path| files::write(path, &self.shares))
    }
}

/// Where the remembered shares of a user of a broker are.
pub(crate) fn file_in(folder: &Path, broker: &str, user: &str) -> PathBuf {
    folder.join(format!("shares-{}.json", files::name_for(broker, user)))
}

fn key(token: &ShareToken) -> String {
    HEXLOWER.encode(&token.hash())
}

#[cfg(test)]
mod tests {
    use culvert_broker_wire::{AccessPolicy, ShareMetadata};

    use super::*;

    fn info() -> ShareInfo {
        ShareInfo {
            metadata: ShareMetadata {
                owner_user_id: "alice".into(),
                result_id: "r".into(),
                title: "t".into(),
                description: None,
                created_at: Timestamp::from_unix_seconds(1),
                access_policy: AccessPolicy::public(),
            },
            download_url: "http://owner/api/results/r".into(),
            owner_online: true,
            grant: Some("secret".into()),
            relays: Vec::new(),
            last_seen: None,
        }
    }

    #[test]
    fn what_is_remembered_is_stale_opens_nothing_and_names_no_token() {
        let dir = tempfile::tempdir().unwrap();
        let file = file_in(dir.path(), "b", "u");
        let token = ShareToken::generate();
        Cache::load(Some(file.clone())).put(&token, &info(), Timestamp::from_unix_seconds(5)).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(!text.contains(token.as_str()) && !text.contains("secret") && !text.contains("owner/api"));
        let mut cache = Cache::load(Some(file.clone()));
        let share = cache.get(&token).unwrap();
        assert!(share.is_stale && !share.owner_online && share.grant.is_none());
        assert_eq!((share.metadata.title.as_str(), share.as_of.unix_seconds()), ("t", 5));
        cache.remove(&token).unwrap();
        assert!(Cache::load(Some(file)).get(&token).is_none());
    }

    #[test]
    fn it_does_not_grow_without_end_and_the_oldest_goes_first() {
        let mut cache = Cache::default();
        let first = ShareToken::generate();
        cache.put(&first, &info(), Timestamp::from_unix_seconds(1)).unwrap();
        for n in 0..MOST as u64 {
            cache.put(&ShareToken::generate(), &info(), Timestamp::from_unix_seconds(2 + n)).unwrap();
        }
        assert_eq!(cache.shares.len(), MOST);
        assert!(cache.get(&first).is_none());
    }
}

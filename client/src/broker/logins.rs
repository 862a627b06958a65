//! What `culvert login` leaves in the user's data folder, so that every program of the user is logged in.

use std::path::PathBuf;
use std::time::Duration;

use culvert_broker_wire::Timestamp;
use etcetera::BaseStrategy as _;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::address::BrokerUrl;
use super::client::now;
use super::credentials::Credentials;
use super::error::SyncError;
use super::files;

/// A login at a broker.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// Where.
    pub broker_url: String,
    /// Who.
    pub user_id: String,
    /// `cst_…`
    pub session_token: String,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The broker's key in logins by the institution's password; another one later is an impostor's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_key: Option<String>,
}

/// The logins of this user; the last one is what commands use unless they are told otherwise.
#[derive(Debug)]
pub struct Logins {
    file: PathBuf,
    logins: Vec<Login>,
}

/// Logins that are kept; the oldest goes first.
const MOST: usize = 32;

impl Logins {
    /// Those in the user's data folder (`culvert/logins.json` below `XDG_DATA_HOME`, or what the system has
    /// instead). Blocks.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn of_this_user() -> Result<Self, SyncError> {
        Self::in_folder_or_default(None)
    }

    /// Those in a folder. Blocks.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Result<Self, SyncError> {
        let file = folder.into().join("logins.json");
        let logins = files::read(&file)?.unwrap_or_default();
        Ok(Self { file, logins })
    }

    pub(crate) fn in_folder_or_default(folder: Option<PathBuf>) -> Result<Self, SyncError> {
        let home = || Some(etcetera::choose_base_strategy().ok()?.data_dir().join("culvert"));
        match folder.or_else(home) {
            Some(folder) => Self::in_folder(folder),
            // Without a home there are no logins.
            None => Ok(Self { file: PathBuf::from("logins.json"), logins: Vec::new() }),
        }
    }

    /// The login that counts.
    pub fn current(&self) -> Option<&Login> {
        self.logins.last()
    }

    /// The login of a user at a broker.
    pub fn find(&self, broker: &BrokerUrl, user_id: &str) -> Option<&Login> {
        self.logins.iter().rev().find(|login| login.is_of(broker, user_id))
    }

    /// The last login of those that fit.
    pub fn latest(&self, fits: impl Fn(&Login) -> bool) -> Option<&Login> {
        self.logins.iter().rev().find(|login| fits(login))
    }

    /// Keeps a login; it is the one that counts from now on. Blocks.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep(&mut self, login: Login) -> Result<(), SyncError> {
        let broker: BrokerUrl = login.broker_url.parse()?;
        self.logins.retain(|kept| !kept.is_of(&broker, &login.user_id));
        self.logins.push(login);
        let surplus = self.logins.len().saturating_sub(MOST);
        self.logins.drain(..surplus);
        files::write(&self.file, &self.logins)
    }

    /// Keeps a login that was renewed, in its old place: the login that counts is the same as before. One that was
    /// forgotten meanwhile stays forgotten. Blocks.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn renew(&mut self, login: Login) -> Result<(), SyncError> {
        let broker: BrokerUrl = login.broker_url.parse()?;
        let Some(kept) = self.logins.iter_mut().rev().find(|kept| kept.is_of(&broker, &login.user_id)) else {
            return Ok(());
        };
        *kept = login;
        files::write(&self.file, &self.logins)
    }

    /// Forgets a login. Blocks.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn forget(&mut self, broker: &BrokerUrl, user_id: &str) -> Result<(), SyncError> {
        self.logins.retain(|kept| !kept.is_of(broker, user_id));
        files::write(&self.file, &self.logins)
    }

    /// What a client of this user shows the broker.
    pub(crate) fn credentials(&self, broker: &BrokerUrl, user_id: &str) -> Result<Credentials, SyncError> {
        Ok(self.find(broker, user_id).map_or(Credentials::None, Login::credentials))
    }
}

impl Login {
    /// What to show the broker.
    pub fn credentials(&self) -> Credentials {
        Credentials::Session(Zeroizing::new(self.session_token.clone()))
    }

    /// Where it is a login.
    ///
    /// # Errors
    /// The file was changed by something else.
    pub fn broker(&self) -> Result<BrokerUrl, SyncError> {
        Ok(self.broker_url.parse()?)
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        self.ends_within(Duration::ZERO)
    }

    /// Whether it has ended after this time, if it is known when it ends.
    pub fn ends_within(&self, time: Duration) -> bool {
        let by = now().unix_seconds().saturating_add(time.as_secs());
        self.expires_at.is_some_and(|end| end.unix_seconds() <= by)
    }

    fn is_of(&self, broker: &BrokerUrl, user_id: &str) -> bool {
        self.user_id == user_id && self.broker_url.parse::<BrokerUrl>().is_ok_and(|url| url == *broker)
    }
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("broker_url", &self.broker_url).field("user_id", &self.user_id).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(user: &str, token: &str) -> Login {
        Login {
            broker_url: "https://broker.example".into(),
            user_id: user.into(),
            session_token: token.into(),
            expires_at: None,
            broker_key: None,
        }
    }

    #[test]
    fn a_login_is_kept_privately_and_found_by_broker_and_user() {
        let dir = tempfile::tempdir().unwrap();
        let mut logins = Logins::in_folder(dir.path()).unwrap();
        logins.keep(login("alice", "cst_1")).unwrap();
        logins.keep(login("bob", "cst_2")).unwrap();
        logins.keep(login("alice", "cst_3")).unwrap();
        let file = dir.path().join("logins.json");
        let mut logins = Logins::in_folder(dir.path()).unwrap();
        logins.renew(login("bob", "cst_4")).unwrap();
        logins.renew(login("carol", "cst_5")).unwrap();
        let logins = Logins::in_folder(dir.path()).unwrap();
        let broker = "wss://broker.example/ws".parse().unwrap();
        assert_eq!(logins.find(&broker, "alice").unwrap().session_token, "cst_3");
        assert_eq!(logins.find(&broker, "bob").unwrap().session_token, "cst_4");
        assert_eq!(logins.current().unwrap().user_id, "alice");
        assert!(logins.find(&"wss://other.example/ws".parse().unwrap(), "alice").is_none());
        assert!(matches!(logins.credentials(&broker, "carol").unwrap(), Credentials::None));
        assert!(!format!("{logins:?}").contains("cst_"));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        std::fs::write(&file, "x").unwrap();
        assert!(Logins::in_folder(dir.path()).is_err());
    }
}

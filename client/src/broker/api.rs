//! The REST calls that a client needs besides the WebSocket: logins, relay tickets, what a broker is.

use std::sync::Arc;
use std::time::Duration;

use culvert_broker_wire::auth::DeviceProof;
use culvert_broker_wire::login::{
    AccountLogin, Challenge, DeviceList, DeviceLogin, NewDevice, Password, SessionGiven,
};
use culvert_broker_wire::{ErrorCode, Timestamp};
use culvert_wire::{PeerId, TopicId};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::address::BrokerUrl;
use super::client::{SyncClient, now};
use super::credentials::prove_device;
use super::error::SyncError;
use super::http::Http;
use super::logins::Login;
use crate::dial::Dialer;
use crate::identity::Identity;
use crate::options::RelayOptions;

/// A broker's REST interface, without an identity.
#[derive(Debug, Clone)]
pub struct BrokerApi {
    url: BrokerUrl,
    http: Http,
}

#[derive(Debug, Serialize)]
struct TicketRequest {
    peer_id: PeerId,
    topics: Vec<TopicId>,
}

#[derive(Debug, Deserialize)]
struct TicketGiven {
    ticket: String,
}

impl BrokerApi {
    /// The interface of the broker at `url`, by the proxy and trust of `options`. Nothing is dialled yet.
    ///
    /// # Errors
    /// The URL is in clear text and must not be, or proxy and trust cannot be settled.
    pub async fn new(
        url: BrokerUrl,
        options: &RelayOptions,
        allow_plain_text: bool,
        limit: Duration,
    ) -> Result<Self, SyncError> {
        let url = url.checked(allow_plain_text)?;
        let (server, options) = (url.server().clone(), options.clone());
        let dialer = tokio::task::spawn_blocking(move || Dialer::new(&server, &options)).await;
        let dialer = Arc::new(dialer.map_err(|error| SyncError::Protocol(error.to_string()))??);
        Ok(Self { http: Http::new(url.clone(), dialer, limit), url })
    }

    /// Logs in with an account's password.
    ///
    /// # Errors
    /// The broker refuses, or cannot be asked.
    pub async fn login_account(&self, user_id: &str, password: &str) -> Result<Login, SyncError> {
        let body = AccountLogin { user_id: user_id.to_owned(), password: Password(password.to_owned()) };
        let given = self.http.post("/api/auth/login", None, &body).await?;
        Ok(self.login(given))
    }

    /// Logs in with an account's password and binds a device to the account, if it is not bound yet, so that
    /// grants to download are good for this device alone.
    ///
    /// # Errors
    /// The broker refuses, or cannot be asked.
    pub async fn login_account_on(
        &self,
        user_id: &str,
        password: &str,
        device: &Identity,
        device_name: &str,
    ) -> Result<Login, SyncError> {
        let login = self.login_account(user_id, password).await?;
        let session = Some(login.session_token.as_str());
        let known: DeviceList = self.http.get("/api/users/me/devices", session).await?;
        if !known.devices.iter().any(|known| known.key == device.peer_id()) {
            let proof = self.prove(user_id, device).await?;
            let new = NewDevice { device: proof, name: device_name.to_owned() };
            let _: serde_json::Value = self.http.post("/api/users/me/devices", session, &new).await?;
        }
        let bound = self.login_device(user_id, device).await?;
        self.logout(&login).await?;
        Ok(bound)
    }

    /// Logs in with a device's key that is bound to the user.
    ///
    /// # Errors
    /// The broker refuses, or cannot be asked.
    pub async fn login_device(&self, user_id: &str, identity: &Identity) -> Result<Login, SyncError> {
        let device = self.prove(user_id, identity).await?;
        let body = DeviceLogin { user_id: user_id.to_owned(), device };
        let given = self.http.post("/api/auth/device", None, &body).await?;
        Ok(self.login(given))
    }

    /// A device's proof over a fresh challenge.
    async fn prove(&self, user_id: &str, device: &Identity) -> Result<DeviceProof, SyncError> {
        let Challenge { challenge, .. } =
            self.http.post("/api/auth/challenge", None, &serde_json::json!({})).await?;
        Ok(prove_device(device, user_id, self.url.host(), &challenge))
    }

    /// Whether this is the account's password. The broker is asked and counts wrong guesses; nothing that
    /// passwords could be tried against is ever given out.
    ///
    /// # Errors
    /// The broker cannot be asked, or asks to wait.
    pub async fn verify_password(&self, user_id: &str, password: &str) -> Result<bool, SyncError> {
        match self.login_account(user_id, password).await {
            Ok(login) => {
                self.logout(&login).await?;
                Ok(true)
            }
            Err(error) if error.code() == Some(ErrorCode::AuthFailed) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Ends a session.
    ///
    /// # Errors
    /// The broker cannot be asked.
    pub async fn logout(&self, login: &Login) -> Result<(), SyncError> {
        self.http.post_for_nothing("/api/auth/logout", Some(&login.session_token)).await
    }

    /// A ticket for the institution's relays, bound to a key of the login's user and to these topics.
    ///
    /// # Errors
    /// The broker refuses, or cannot be asked.
    pub async fn relay_ticket(
        &self,
        login: &Login,
        peer_id: PeerId,
        topics: Vec<TopicId>,
    ) -> Result<String, SyncError> {
        relay_ticket(&self.http, Some(&login.session_token), peer_id, topics).await
    }

    pub(crate) fn http(&self) -> &Http {
        &self.http
    }

    pub(crate) fn host(&self) -> &str {
        self.url.host()
    }

    pub(crate) fn login(&self, given: SessionGiven) -> Login {
        let end = now().unix_seconds().saturating_add(given.expires_in_seconds);
        Login {
            broker_url: self.url.to_string(),
            user_id: given.user_id,
            session_token: given.session_token,
            expires_at: Some(Timestamp::from_unix_seconds(end)),
            broker_key: None,
        }
    }
}

impl SyncClient {
    /// A ticket for the institution's relays, bound to a key of this user and to these topics.
    ///
    /// # Errors
    /// The broker refuses, cannot be asked, or the client has no session to ask with.
    pub async fn relay_ticket(&self, peer_id: PeerId, topics: Vec<TopicId>) -> Result<String, SyncError> {
        let session = self.bearer();
        relay_ticket(self.http(), session.as_deref().map(String::as_str), peer_id, topics).await
    }
}

async fn relay_ticket(
    http: &Http,
    session: Option<&str>,
    peer_id: PeerId,
    topics: Vec<TopicId>,
) -> Result<String, SyncError> {
    let given: TicketGiven =
        http.post("/api/relay-tickets", session, &TicketRequest { peer_id, topics }).await?;
    Ok(given.ticket)
}

/// As [`BrokerApi::verify_password`], by the proxy and trust of the environment.
///
/// # Errors
/// As for [`BrokerApi::verify_password`].
pub async fn verify_password(broker_url: &str, user_id: &str, password: &str) -> Result<bool, SyncError> {
    let limit = Duration::from_secs(30);
    let api = BrokerApi::new(broker_url.parse()?, &RelayOptions::default(), false, limit).await?;
    api.verify_password(user_id, &Zeroizing::new(password.to_owned())).await
}

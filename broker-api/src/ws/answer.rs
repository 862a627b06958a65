//! Messages of a client, and what the broker says to them.

use culvert_broker_wire::limits::{MAX_ENDPOINT, MAX_REQUEST_ID, MAX_TITLE};
use culvert_broker_wire::message::{ClientMessage, Envelope, RegisterUser, ShareSummary};
use culvert_broker_wire::{ErrorCode, ServerMessage};
use serde::Deserialize;
use tokio::time::timeout;

use super::connection::Connection;
use crate::core::{Caller, Core, Refusal};
use crate::domain::{self, USUAL_PAGE, backups, shares};
use crate::identity;
use crate::live::Presence;

/// What kind of message it was: a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `get_challenge`.
    GetChallenge,
    /// `register_user`.
    RegisterUser,
    /// `heartbeat`.
    Heartbeat,
    /// `disconnect`.
    Disconnect,
    /// `publish_share`.
    PublishShare,
    /// `request_share`.
    RequestShare,
    /// `revoke_share`.
    RevokeShare,
    /// `list_my_shares`.
    ListMyShares,
    /// `list_shared_with_me`.
    ListSharedWithMe,
    /// `backup_state`.
    BackupState,
    /// `restore_state`.
    RestoreState,
    /// No message.
    Unreadable,
    /// Over the rate, so nobody looked.
    Refused,
}

impl Kind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[
        Self::GetChallenge,
        Self::RegisterUser,
        Self::Heartbeat,
        Self::Disconnect,
        Self::PublishShare,
        Self::RequestShare,
        Self::RevokeShare,
        Self::ListMyShares,
        Self::ListSharedWithMe,
        Self::BackupState,
        Self::RestoreState,
        Self::Unreadable,
        Self::Refused,
    ];

    /// The label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::GetChallenge => "get_challenge",
            Self::RegisterUser => "register_user",
            Self::Heartbeat => "heartbeat",
            Self::Disconnect => "disconnect",
            Self::PublishShare => "publish_share",
            Self::RequestShare => "request_share",
            Self::RevokeShare => "revoke_share",
            Self::ListMyShares => "list_my_shares",
            Self::ListSharedWithMe => "list_shared_with_me",
            Self::BackupState => "backup_state",
            Self::RestoreState => "restore_state",
            Self::Unreadable => "unreadable",
            Self::Refused => "refused",
        }
    }

    fn of(message: &ClientMessage) -> Self {
        match message {
            ClientMessage::GetChallenge => Self::GetChallenge,
            ClientMessage::RegisterUser(_) => Self::RegisterUser,
            ClientMessage::Heartbeat { .. } => Self::Heartbeat,
            ClientMessage::Disconnect { .. } => Self::Disconnect,
            ClientMessage::PublishShare { .. } => Self::PublishShare,
            ClientMessage::RequestShare { .. } => Self::RequestShare,
            ClientMessage::RevokeShare { .. } => Self::RevokeShare,
            ClientMessage::ListMyShares { .. } => Self::ListMyShares,
            ClientMessage::ListSharedWithMe { .. } => Self::ListSharedWithMe,
            ClientMessage::BackupState { .. } => Self::BackupState,
            ClientMessage::RestoreState { .. } => Self::RestoreState,
        }
    }
}

impl Connection {
    /// What is said to a text. Whatever it is, the connection stays.
    pub(super) async fn answer(&mut self, text: &str) -> Envelope<ServerMessage> {
        let (request_id, handled) = match serde_json::from_str::<Envelope<ClientMessage>>(text) {
            Err(error) => {
                self.core.metrics.messages[Kind::Unreadable].increment(1);
                (request_id(text), Err(unreadable(&error)))
            }
            Ok(Envelope { request_id: Some(id), .. }) if id.len() > MAX_REQUEST_ID => {
                self.core.metrics.messages[Kind::Unreadable].increment(1);
                let text = format!("`request_id` may have {MAX_REQUEST_ID} bytes");
                (None, Err(Refusal::new(ErrorCode::InvalidInput, text)))
            }
            Ok(Envelope { request_id, message }) => {
                self.core.metrics.messages[Kind::of(&message)].increment(1);
                let limit = self.core.config.timing.request;
                let handled = timeout(limit, self.handle(message)).await;
                (request_id, handled.unwrap_or_else(|_| Err(Refusal::unavailable())))
            }
        };
        let message = handled.unwrap_or_else(|refusal| ServerMessage::error(refusal.code, refusal.message));
        Envelope { request_id, message }
    }

    async fn handle(&mut self, message: ClientMessage) -> Result<ServerMessage, Refusal> {
        let core = std::sync::Arc::clone(&self.core);
        let core = core.as_ref();
        match message {
            ClientMessage::GetChallenge => {
                let challenge = identity::challenge(core).await?;
                Ok(ServerMessage::Challenge { challenge })
            }
            ClientMessage::RegisterUser(register) => self.register(*register).await,
            ClientMessage::Heartbeat { user_id } => {
                domain::check_claim(core, self.caller()?, &user_id).await?;
                if !self.online {
                    let text = "nobody is registered on this connection; send register_user";
                    return Err(Refusal::new(ErrorCode::UserNotFound, text));
                }
                Ok(ServerMessage::ack())
            }
            ClientMessage::Disconnect { user_id } => {
                domain::check_claim(core, self.caller()?, &user_id).await?;
                self.leave().await;
                Ok(ServerMessage::ack())
            }
            ClientMessage::PublishShare { token, metadata } => {
                shares::publish(core, self.caller()?, &token, metadata).await?;
                Ok(ServerMessage::ack())
            }
            ClientMessage::RequestShare { token, requester_id } => {
                let caller = self.caller()?;
                domain::check_claim(core, caller, &requester_id).await?;
                let info = shares::request(core, Some(caller), self.visitor, &token).await?;
                Ok(ServerMessage::ShareInfo { info: Box::new(info) })
            }
            ClientMessage::RevokeShare { token } => {
                shares::revoke(core, self.caller()?, &token).await?;
                Ok(ServerMessage::ack())
            }
            ClientMessage::ListMyShares { user_id, cursor } => {
                let caller = self.claimed(core, user_id.as_deref()).await?;
                Ok(list(shares::list_mine(core, caller, cursor.as_deref(), USUAL_PAGE).await?))
            }
            ClientMessage::ListSharedWithMe { user_id, cursor } => {
                let caller = self.claimed(core, user_id.as_deref()).await?;
                Ok(list(shares::list_shared_with_me(core, caller, cursor.as_deref(), USUAL_PAGE).await?))
            }
            ClientMessage::BackupState { user_id, state_hash, data, replaces } => {
                let caller = self.claimed(core, Some(&user_id)).await?;
                let info = match data {
                    Some(data) => backups::store_small(core, caller, &state_hash, &data, replaces).await?,
                    None => backups::announced(core, caller, &state_hash).await?,
                };
                Ok(ServerMessage::BackupInfo(info))
            }
            ClientMessage::RestoreState { user_id } => {
                let caller = self.claimed(core, Some(&user_id)).await?;
                Ok(ServerMessage::BackupInfo(backups::restore_small(core, caller).await?))
            }
        }
    }

    fn caller(&self) -> Result<&Caller, Refusal> {
        let text = "say who you are first: register_user, or Authorization at the upgrade";
        self.caller.as_ref().ok_or_else(|| Refusal::new(ErrorCode::AuthRequired, text))
    }

    /// Who is there, who may say so but claim nobody else.
    async fn claimed(&self, core: &Core, claimed: Option<&str>) -> Result<&Caller, Refusal> {
        let caller = self.caller()?;
        if let Some(claimed) = claimed {
            domain::check_claim(core, caller, claimed).await?;
        }
        Ok(caller)
    }

    async fn register(&mut self, register: RegisterUser) -> Result<ServerMessage, Refusal> {
        check(&register)?;
        let core = std::sync::Arc::clone(&self.core);
        let caller = identity::register(&core, self.visitor, self.caller.as_ref(), &register).await?;
        let user = caller.user.clone();
        if !self.is_from(caller) {
            return Err(super::full());
        }
        let most = usize::try_from(core.config.limits.connections_per_user).unwrap_or(usize::MAX);
        if !self.online && core.live.presences(&user).await?.len() >= most {
            return Err(super::full());
        }
        let RegisterUser { endpoint, device_name, relay, .. } = register;
        let presence = Presence {
            connection: self.id.clone(),
            user: user.clone(),
            device: device_name,
            endpoint,
            relay,
            since: core.now(),
        };
        self.online = false;
        core.sockets.keeper.arrive(&core, presence).await?;
        self.online = true;
        Ok(ServerMessage::Connected {
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
            institution: core.config.institution.clone(),
            user_id: user,
            heartbeat_timeout_seconds: core.config.timing.heartbeat_timeout.as_secs(),
            relays: core.config.relays.clone(),
        })
    }
}

fn list((items, next_cursor): (Vec<ShareSummary>, Option<String>)) -> ServerMessage {
    let shares = items.iter().filter_map(|share| share.token.clone()).collect();
    ServerMessage::ShareList { shares, items, next_cursor }
}

/// Refuses ways to a user that others could not go, or should not be sent.
fn check(register: &RegisterUser) -> Result<(), Refusal> {
    let wrong = |text: String| Err(Refusal::new(ErrorCode::InvalidInput, text));
    let plain = |url: &str| url.len() <= MAX_ENDPOINT && url.bytes().all(|byte| byte.is_ascii_graphic());
    let starts = |url: &str, schemes: [&str; 2]| {
        schemes.iter().any(|scheme| url.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()))
    };
    let endpoint = &register.endpoint;
    let reachable = plain(endpoint) && starts(endpoint, ["http://", "https://"]);
    if !endpoint.is_empty() && !reachable {
        return wrong(format!(
            "`endpoint` must be empty or an http:// or https:// URL of at most {MAX_ENDPOINT}"
        ));
    }
    if let Some(relay) = &register.relay
        && !(plain(&relay.url) && starts(&relay.url, ["ws://", "wss://"]))
    {
        return wrong(format!("`relay.url` must be a wss:// or ws:// URL of at most {MAX_ENDPOINT} bytes"));
    }
    if let Some(name) = &register.device_name
        && (name.len() > MAX_TITLE || name.chars().any(char::is_control))
    {
        return wrong(format!("`device_name` may have {MAX_TITLE} bytes and no control characters"));
    }
    Ok(())
}

fn unreadable(error: &serde_json::Error) -> Refusal {
    let text = if error.is_data() {
        "no message: the type is unknown, or a field is missing, doubled or of the wrong type"
    } else {
        "the text is not JSON, or is nested too deeply"
    };
    Refusal::new(ErrorCode::ParseError, text)
}

/// What a message that was not looked at, or makes no sense, is to be recognised by, if it says so.
pub(super) fn request_id(text: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct OnlyId {
        request_id: Option<String>,
    }
    let id = serde_json::from_str::<OnlyId>(text).ok()?.request_id?;
    (id.len() <= MAX_REQUEST_ID).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(endpoint: &str) -> RegisterUser {
        RegisterUser {
            user_id: "alice".to_owned(),
            endpoint: endpoint.to_owned(),
            password: None,
            session_token: None,
            device: None,
            device_name: None,
            relay: None,
        }
    }

    #[test]
    fn an_endpoint_is_a_web_address_or_nothing() {
        for good in ["", "http://192.168.1.50:3001", "https://a.example/x"] {
            assert!(check(&register(good)).is_ok(), "{good}");
        }
        let long = format!("http://{}", "x".repeat(MAX_ENDPOINT));
        for bad in ["javascript:alert(1)", "file:///etc/passwd", "http://", "http://a b", "http://a\0", &long]
        {
            assert!(check(&register(bad)).is_err(), "{bad}");
        }
        let named = RegisterUser { device_name: Some("x".repeat(MAX_TITLE + 1)), ..register("") };
        assert!(check(&named).is_err());
    }

    #[test]
    fn a_request_id_is_found_in_messages_that_make_no_sense() {
        assert_eq!(request_id(r#"{"type":"nonsense","request_id":"7"}"#).as_deref(), Some("7"));
        for none in ["", "[1]", "{}", r#"{"request_id":7}"#, r#"{"request_id":"a","request_id":"b"}"#] {
            assert_eq!(request_id(none), None, "{none}");
        }
        assert_eq!(request_id(&format!(r#"{{"request_id":"{}"}}"#, "x".repeat(129))), None);
    }
}

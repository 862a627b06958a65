//! The JSON messages of the WebSocket.
//!
//! One message per text frame, told apart by `type`. A client may put a `request_id` of up to
//! [`MAX_REQUEST_ID`](crate::limits::MAX_REQUEST_ID) bytes into any message; the answer to it carries the
//! same one. Answers come in the order of the requests; `share_event` and `presence_event` come between
//! them, without a `request_id`. Fields that a side does not know are ignored.

use culvert_wire::{PeerId, TopicId};
use serde::{Deserialize, Serialize};

use crate::auth::DeviceProof;
use crate::code::ErrorCode;
use crate::policy::AccessPolicy;
use crate::stamp::Timestamp;

/// A message with what its answer is recognised by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope<M> {
    /// Chosen by the client, echoed by the broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The message itself.
    #[serde(flatten)]
    pub message: M,
}

/// What a client says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientMessage {
    /// Asks for a challenge to sign in `register_user`. Answer: `challenge`.
    GetChallenge,
    /// Says who is there, unless the upgrade did, and that they are online. Answer: `connected`.
    RegisterUser(Box<RegisterUser>),
    /// Still there. Answer: `ack`, or `USER_NOT_FOUND` before `register_user`.
    Heartbeat {
        /// Who says so; must be the connection's user.
        user_id: String,
    },
    /// Goes offline; the connection stays. Answer: `ack`.
    Disconnect {
        /// Who says so; must be the connection's user.
        user_id: String,
    },
    /// Publishes a share, or changes one's own. Answer: `ack`.
    PublishShare {
        /// Its token.
        token: String,
        /// What it is.
        metadata: ShareMetadata,
    },
    /// Asks for a share. Answer: `share_info`.
    RequestShare {
        /// Its token.
        token: String,
        /// Who asks; must be the connection's user.
        requester_id: String,
    },
    /// Ends one's own share for good. Answer: `ack`.
    RevokeShare {
        /// Its token.
        token: String,
    },
    /// Lists the tokens of one's own shares. Answer: `share_list`.
    ListMyShares {
        /// Who asks; must be the connection's user when given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user_id: Option<String>,
        /// Where the list goes on, from the answer before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
    },
    /// Lists shares of others that name the user, one of their teams or the institution. Answer: `share_list`.
    ListSharedWithMe {
        /// Who asks; must be the connection's user when given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user_id: Option<String>,
        /// Where the list goes on, from the answer before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
    },
    /// Stores a state, or asks whether this one is stored. Answer: `backup_info`.
    ///
    /// With `data` it is stored; without, the answer is `BACKUP_NOT_FOUND` unless the latest backup has
    /// this hash, and the client then uploads it (`PUT /api/backups/me`).
    BackupState {
        /// Whose; must be the connection's user.
        user_id: String,
        /// SHA-256 of the bytes, lowercase hexadecimal.
        state_hash: String,
        /// The bytes in base64, for states that fit into a message.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        data: Option<String>,
        /// The version that this one replaces; another latest version is a conflict.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replaces: Option<i64>,
    },
    /// Asks for the latest backup. Answer: `backup_info`, with the bytes when they fit into a message.
    RestoreState {
        /// Whose; must be the connection's user.
        user_id: String,
    },
}

/// Who is there and how others reach them.
///
/// Proven by one of: the upgrade's `Authorization`, `session_token`, `device`, or `password` (over TLS only).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterUser {
    /// Who.
    pub user_id: String,
    /// Where their own server answers; empty if it has no address that others could use.
    #[serde(default)]
    pub endpoint: String,
    /// The account's password, or the institution's, which only admits and needs `device` beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// From a login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token: Option<String>,
    /// Proof of a device's key over a challenge of this connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceProof>,
    /// What the device is called in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_name: Option<String>,
    /// Where their server answers through a relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<RelayAddress>,
}

/// Where a peer answers through a relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RelayAddress {
    /// The relay, `wss://…`.
    pub url: String,
    /// The topic it waits in.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub topic: TopicId,
    /// Its key, which its session proves.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub peer_id: PeerId,
}

/// What the broker says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerMessage {
    /// Done.
    Ack {
        /// Always null; what it answers is in `request_id`.
        message_id: Option<String>,
    },
    /// Refused; the connection stays, unless what follows is a close.
    Error {
        /// A sentence that says what to do.
        message: String,
        /// Stable.
        code: ErrorCode,
    },
    /// To be signed in `register_user`, once, within a minute.
    Challenge {
        /// Base64url.
        challenge: String,
    },
    /// The user is registered and online.
    Connected {
        /// Version of the broker.
        server_version: String,
        /// Name of the institution.
        institution: String,
        /// Who is registered.
        user_id: String,
        /// Silence after which they count as offline, in seconds.
        heartbeat_timeout_seconds: u64,
        /// The relays of this institution, the first to be preferred.
        #[serde(default)]
        relays: Vec<String>,
    },
    /// A share that the requester may use.
    ShareInfo {
        /// What and where.
        info: Box<ShareInfo>,
    },
    /// Tokens of shares, newest first.
    ShareList {
        /// Tokens; those of others are not shown, so a list of those has none.
        shares: Vec<String>,
        /// The shares themselves.
        items: Vec<ShareSummary>,
        /// Where the list goes on; absent at its end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_cursor: Option<String>,
    },
    /// A backup that is stored.
    BackupInfo(BackupInfo),
    /// A share that the user may see has changed.
    ShareEvent(ShareEvent),
    /// Somebody who shares a team or a share with the user came or went.
    PresenceEvent(PresenceEvent),
}

impl ServerMessage {
    /// The usual answer.
    pub fn ack() -> Self {
        Self::Ack { message_id: None }
    }

    /// A refusal.
    pub fn error(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::Error { message: message.into(), code }
    }
}

/// What a share is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ShareMetadata {
    /// Whose it is; must be the user who publishes it.
    pub owner_user_id: String,
    /// What the owner's server knows it by.
    pub result_id: String,
    /// For people.
    pub title: String,
    /// For people, longer.
    #[serde(default)]
    pub description: Option<String>,
    /// When the result was made, as its owner says.
    pub created_at: Timestamp,
    /// Who may use it.
    pub access_policy: AccessPolicy,
}

/// What somebody who may use a share gets to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ShareInfo {
    /// What it is.
    pub metadata: ShareMetadata,
    /// Where the owner's own server has it; empty when the owner is offline or has no such address.
    pub download_url: String,
    /// Whether one of the owner's devices is online.
    pub owner_online: bool,
    /// For the owner's server: proves that the broker lets the requester download; see
    /// [`GrantClaims`](crate::grant::GrantClaims). Absent without the permission to download.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    /// Where the owner answers through a relay, one for each device that does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relays: Vec<RelayAddress>,
    /// When the owner was last seen, for those who may know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
}

/// A share in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ShareSummary {
    /// The share's id, which is not its token and opens nothing by itself.
    pub id: String,
    /// What opens it; in lists of one's own shares only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// What it is.
    pub metadata: ShareMetadata,
    /// When it was published.
    pub published_at: Timestamp,
    /// Grants to download given out so far; in lists of one's own shares only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downloads: Option<u32>,
}

/// A stored backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BackupInfo {
    /// Counts up with every stored state of a user.
    pub version: i64,
    /// SHA-256 of the bytes, lowercase hexadecimal.
    pub state_hash: String,
    /// How many bytes.
    pub size_bytes: u64,
    /// When it was stored.
    pub created_at: Timestamp,
    /// The bytes in base64: in answers to `restore_state`, when they fit into a message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
}

/// A share has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareEvent {
    /// What happened.
    pub event: ShareChange,
    /// Which share.
    pub share: ShareSummary,
}

/// What can happen to a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShareChange {
    /// It is new.
    Published,
    /// Title, description or policy changed.
    Updated,
    /// It is over, or the user is no longer among those who may use it.
    Revoked,
}

/// Somebody came or went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceEvent {
    /// Who.
    pub user_id: String,
    /// Whether any of their devices is online now.
    pub online: bool,
    /// When they were last seen.
    pub last_seen: Timestamp,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: serde_json::Value) -> Result<Envelope<ClientMessage>, serde_json::Error> {
        serde_json::from_str(&value.to_string())
    }

    #[test]
    fn messages_of_the_first_protocol_are_read() {
        let register = json!({"type":"register_user","user_id":"alice@institution.edu",
            "endpoint":"http://192.168.1.50:3001"});
        let ClientMessage::RegisterUser(register) = read(register).unwrap().message else { panic!() };
        assert_eq!(register.endpoint, "http://192.168.1.50:3001");
        let publish = json!({"type":"publish_share","token":"abc123xyz","metadata":{
            "owner_user_id":"alice@institution.edu","result_id":"result-uuid","title":"My DDA Analysis",
            "description":"EEG analysis from experiment X","created_at":"2025-10-03T12:00:00Z",
            "access_policy":{"type":"public"}}});
        assert!(matches!(read(publish).unwrap().message, ClientMessage::PublishShare { .. }));
        for (name, rest) in [
            ("heartbeat", json!({"user_id":"a"})),
            ("disconnect", json!({"user_id":"a"})),
            ("request_share", json!({"token":"t","requester_id":"b"})),
            ("revoke_share", json!({"token":"t"})),
            ("backup_state", json!({"user_id":"a","state_hash":"00"})),
            ("restore_state", json!({"user_id":"a"})),
            ("list_my_shares", json!({"user_id":"a"})),
            ("list_shared_with_me", json!({})),
        ] {
            let mut message = rest;
            message["type"] = name.into();
            message["request_id"] = "7".into();
            let read = read(message).unwrap();
            assert_eq!(read.request_id.as_deref(), Some("7"), "{name}");
        }
    }

    #[test]
    fn answers_have_the_shape_of_the_first_protocol() {
        let write = |message| serde_json::to_value(Envelope { request_id: None, message }).unwrap();
        assert_eq!(write(ServerMessage::ack()), json!({"type":"ack","message_id":null}));
        assert_eq!(
            write(ServerMessage::error(ErrorCode::ShareNotFound, "no such share")),
            json!({"type":"error","message":"no such share","code":"SHARE_NOT_FOUND"})
        );
    }

    #[test]
    fn a_message_with_a_field_that_is_missing_doubled_or_of_the_wrong_type_is_refused() {
        for bad in [
            r#"{"type":"heartbeat"}"#,
            r#"{"type":"heartbeat","user_id":7}"#,
            r#"{"type":"heartbeat","user_id":"a","user_id":"b"}"#,
            r#"{"type":"nonsense"}"#,
            r#"{"user_id":"a"}"#,
            r#"[1]"#,
            r#"{"type":"ack","message_id":null}"#,
        ] {
            assert!(serde_json::from_str::<Envelope<ClientMessage>>(bad).is_err(), "{bad}");
        }
    }
}

//! Bodies of the requests by which clients log in: `/api/auth/…` and `/api/users/me/devices`.

use std::fmt;

use culvert_wire::PeerId;
use serde::{Deserialize, Serialize};

use crate::auth::DeviceProof;
use crate::stamp::Timestamp;

/// A password on its way; `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// `POST /api/auth/login`: by an account's password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AccountLogin {
    /// Who.
    pub user_id: String,
    /// The account's password.
    pub password: Password,
}

/// `POST /api/auth/opaque/start`: begins a login with the institution's password (RFC 9807).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OpaqueStart {
    /// `CredentialRequest` (KE1), base64url.
    pub credential_request: String,
}

/// Answer to [`OpaqueStart`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OpaqueStarted {
    /// Names this login in [`OpaqueFinish`], once, within a minute.
    pub login_id: String,
    /// `CredentialResponse` (KE2), base64url.
    pub credential_response: String,
}

/// `POST /api/auth/opaque/finish`: proves that the password was right, and which device it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OpaqueFinish {
    /// From [`OpaqueStarted`].
    pub login_id: String,
    /// Who. If nobody has this id yet, it is bound to the device.
    pub user_id: String,
    /// `CredentialFinalization` (KE3), base64url.
    pub credential_finalization: String,
    /// Proof over [`device_challenge`](crate::opaque::device_challenge).
    pub device: DeviceProof,
    /// What the device is called in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_name: Option<String>,
}

/// Answer to `POST /api/auth/challenge`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Challenge {
    /// To be signed in a [`DeviceProof`], once.
    pub challenge: String,
    /// Until when, from now.
    pub expires_in_seconds: u64,
}

/// `POST /api/auth/device`: by a device that is bound to the user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceLogin {
    /// Who.
    pub user_id: String,
    /// Proof over a [`Challenge`].
    pub device: DeviceProof,
}

/// What a login gives out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionGiven {
    /// For `Authorization: Bearer …`, and `session_token` of `register_user`.
    pub session_token: String,
    /// Whose.
    pub user_id: String,
    /// Until when, from now.
    pub expires_in_seconds: u64,
}

impl fmt::Debug for SessionGiven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionGiven").field("user_id", &self.user_id).finish_non_exhaustive()
    }
}

/// Answer to `GET /api/auth/session`: who is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WhoAmI {
    /// Who.
    pub user_id: String,
    /// Whether they administer the broker.
    pub admin: bool,
    /// How they proved it: `institution`, `account`, `device` or `credential`.
    pub way: String,
    /// The device that proved itself, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub device: Option<PeerId>,
}

/// `POST /api/auth/password`: sets one's own account's password and ends all of one's sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewPassword {
    /// The one so far; absent only if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_password: Option<Password>,
    /// At least [`MIN_PASSWORD`](crate::auth::MIN_PASSWORD) bytes.
    pub new_password: Password,
}

/// `POST /api/users/me/devices`: binds one more device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewDevice {
    /// Proof of the new device's key over a [`Challenge`].
    pub device: DeviceProof,
    /// What it is called in lists.
    #[serde(default)]
    pub name: String,
}

/// A device of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceInfo {
    /// Its key.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub key: PeerId,
    /// What it is called.
    pub name: String,
    /// When it was bound.
    pub added_at: Timestamp,
    /// When it last came in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Timestamp>,
}

/// Answer to `GET /api/users/me/devices`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceList {
    /// Those that are not revoked, oldest first.
    pub devices: Vec<DeviceInfo>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_and_no_token_is_shown_by_debug() {
        let login = AccountLogin { user_id: "alice".into(), password: Password("hunter22".into()) };
        assert!(!format!("{login:?}").contains("hunter22"));
        assert_eq!(serde_json::to_value(&login).unwrap()["password"], "hunter22");
        let given =
            SessionGiven { session_token: "cst_x".into(), user_id: "a".into(), expires_in_seconds: 1 };
        assert!(!format!("{given:?}").contains("cst_x"));
    }
}

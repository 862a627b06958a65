//! How a client proves to a broker who is there.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use culvert_broker_wire::auth::{
    API_KEY_HEADER, DeviceProof, EMAIL_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, device_transcript,
    signature,
};
use data_encoding::BASE64URL_NOPAD;
use zeroize::Zeroizing;

use crate::identity::Identity;

/// Why the broker should believe a client. `Debug` shows no secret.
#[derive(Clone, Default)]
pub enum Credentials {
    /// No reason: the broker says what it wants to see.
    #[default]
    None,
    /// The token of a login, shown at the upgrade.
    Session(Zeroizing<String>),
    /// The account's password, sent inside TLS.
    Password(Zeroizing<String>),
    /// A device's key, which signs a challenge of the broker and never travels.
    Device(Identity),
    /// API credentials, which sign the upgrade; the secret never travels.
    Api {
        /// The e-mail address or user id they belong to.
        email: String,
        /// `rpa_…`
        key: String,
        /// `rps_…`
        secret: Zeroizing<String>,
    },
}

impl Credentials {
    /// Headers for the upgrade.
    pub(crate) fn headers(&self) -> Vec<(&'static str, Zeroizing<String>)> {
        match self {
            Self::Session(token) => vec![("Authorization", Zeroizing::new(format!("Bearer {}", **token)))],
            Self::Api { email, key, secret } => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                let signed = signature(secret, now, email, key, b"");
                [
                    (API_KEY_HEADER, key.clone()),
                    (EMAIL_HEADER, email.clone()),
                    (TIMESTAMP_HEADER, now.to_string()),
                    (SIGNATURE_HEADER, signed),
                ]
                .map(|(name, value)| (name, Zeroizing::new(value)))
                .into()
            }
            Self::None | Self::Password(_) | Self::Device(_) => Vec::new(),
        }
    }

    /// The password for `register_user`.
    pub(crate) fn password(&self) -> Option<String> {
        match self {
            Self::Password(password) => Some(password.to_string()),
            _ => None,
        }
    }

    /// The device that signs a challenge.
    pub(crate) fn device(&self) -> Option<&Identity> {
        match self {
            Self::Device(identity) => Some(identity),
            _ => None,
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Session(_) => "Session(***)",
            Self::Password(_) => "Password(***)",
            Self::Device(_) => "Device(..)",
            Self::Api { .. } => "Api(***)",
        })
    }
}

/// A device's answer to a challenge of the broker at `host`.
pub fn prove_device(identity: &Identity, user_id: &str, host: &str, challenge: &str) -> DeviceProof {
    let key = identity.peer_id();
    let signed = identity.sign(&device_transcript(&key, user_id, host, challenge));
    DeviceProof {
        key,
        challenge: challenge.to_owned(),
        host: host.to_owned(),
        signature: BASE64URL_NOPAD.encode(&signed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_proves_itself_to_one_host_for_one_user() {
        let proof = prove_device(&Identity::from_seed(&[7; 32]), "alice", "broker.example", "c");
        assert!(proof.is_signed_for("alice") && !proof.is_signed_for("bob"));
        assert!(!DeviceProof { host: "evil.example".into(), ..proof }.is_signed_for("alice"));
    }

    #[test]
    fn credentials_print_no_secret() {
        let secret = || Zeroizing::new("hunter2".to_owned());
        for credentials in [
            Credentials::Session(secret()),
            Credentials::Password(secret()),
            Credentials::Api { email: "hunter2".into(), key: "hunter2".into(), secret: secret() },
        ] {
            assert!(!format!("{credentials:?}").contains("hunter2"));
        }
    }
}

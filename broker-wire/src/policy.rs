//! Who may use a share, and what for.

use serde::{Deserialize, Serialize};

use crate::stamp::Timestamp;

/// Who may use a share, for what, until when and how often.
///
/// The three forms of the first protocol, `{"type":"public"}`, `{"type":"team","team_id":…}` and
/// `{"type":"users","user_ids":[…]}`, are complete; everything else is optional.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AccessPolicy {
    /// Who.
    #[serde(flatten)]
    pub audience: Audience,
    /// What for.
    #[serde(default = "Permission::usual")]
    pub permissions: Vec<Permission>,
    /// Until when; absent means until it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// How many grants to download are given out in all; absent means any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_downloads: Option<u32>,
}

impl AccessPolicy {
    /// For these, to view and download, without an end.
    pub fn of(audience: Audience) -> Self {
        Self { audience, permissions: Permission::usual(), expires_at: None, max_downloads: None }
    }

    /// For everybody who has the token.
    pub fn public() -> Self {
        Self::of(Audience::Public)
    }
}

/// Who may use a share. Its owner always may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Audience {
    /// Everybody who has the token.
    Public,
    /// The members of a team of the broker.
    Team {
        /// Which.
        team_id: String,
    },
    /// These users.
    Users {
        /// Who; at most [`MAX_POLICY_USERS`](crate::limits::MAX_POLICY_USERS).
        user_ids: Vec<String>,
    },
    /// Every user of the broker.
    Institution {
        /// The broker's own name when given; another one is refused.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        institution_id: Option<String>,
    },
}

/// What a share may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// Seeing what it is.
    View,
    /// Fetching the result from its owner.
    Download,
    /// Passing it on under a share of one's own.
    Reshare,
}

impl Permission {
    /// What a policy that does not say otherwise permits.
    pub fn usual() -> Vec<Self> {
        vec![Self::View, Self::Download]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<AccessPolicy, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn the_forms_of_the_first_protocol_are_read() {
        assert_eq!(read(r#"{"type":"public"}"#).unwrap(), AccessPolicy::public());
        let team = read(r#"{"type":"team","team_id":"lab"}"#).unwrap();
        assert_eq!(team.audience, Audience::Team { team_id: "lab".to_owned() });
        let users = read(r#"{"type":"users","user_ids":["a","b"]}"#).unwrap();
        assert_eq!(users.audience, Audience::Users { user_ids: vec!["a".to_owned(), "b".to_owned()] });
    }

    #[test]
    fn limits_are_read_and_nonsense_is_refused() {
        let text = r#"{"type":"institution","permissions":["view"],"max_downloads":3}"#;
        let policy = read(text).unwrap();
        assert_eq!((policy.permissions, policy.max_downloads), (vec![Permission::View], Some(3)));
        for bad in [
            "{}",
            r#"{"type":"everybody"}"#,
            r#"{"type":"team"}"#,
            r#"{"type":"team","team_id":"a","team_id":"b"}"#,
            r#"{"type":"public","type":"team","team_id":"a"}"#,
            r#"{"type":"public","max_downloads":-1}"#,
            r#"{"type":"public","permissions":"view"}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}

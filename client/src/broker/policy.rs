//! Who may use a share, as applications say it.

use culvert_broker_wire::policy::Audience;
use culvert_broker_wire::{Permission, Timestamp};
use serde::{Deserialize, Serialize};

/// Who may use a share. Limits are added by [`AccessPolicy::until`] and
/// [`AccessPolicy::at_most`]; everything the protocol can say fits into [`AccessPolicy::Exactly`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "culvert_broker_wire::AccessPolicy", into = "culvert_broker_wire::AccessPolicy")]
pub enum AccessPolicy {
    /// Everybody who has the token.
    Public,
    /// The members of a team of the broker.
    Team {
        /// Which.
        team_id: String,
    },
    /// These users.
    Users {
        /// Who.
        user_ids: Vec<String>,
    },
    /// Every user of the broker.
    Institution,
    /// As the protocol has it.
    Exactly(culvert_broker_wire::AccessPolicy),
}

impl AccessPolicy {
    /// The same until a moment.
    #[must_use]
    pub fn until(self, moment: Timestamp) -> Self {
        let mut policy: culvert_broker_wire::AccessPolicy = self.into();
        policy.expires_at = Some(moment);
        Self::Exactly(policy)
    }

    /// The same for so many downloads in all.
    #[must_use]
    pub fn at_most(self, downloads: u32) -> Self {
        let mut policy: culvert_broker_wire::AccessPolicy = self.into();
        policy.max_downloads = Some(downloads);
        Self::Exactly(policy)
    }

    /// The same for these uses only.
    #[must_use]
    pub fn only_to(self, permissions: Vec<Permission>) -> Self {
        let mut policy: culvert_broker_wire::AccessPolicy = self.into();
        policy.permissions = permissions;
        Self::Exactly(policy)
    }
}

impl From<AccessPolicy> for culvert_broker_wire::AccessPolicy {
    fn from(policy: AccessPolicy) -> Self {
        Self::of(match policy {
            AccessPolicy::Public => Audience::Public,
            AccessPolicy::Team { team_id } => Audience::Team { team_id },
            AccessPolicy::Users { user_ids } => Audience::Users { user_ids },
            AccessPolicy::Institution => Audience::Institution { institution_id: None },
            AccessPolicy::Exactly(policy) => return policy,
        })
    }
}

impl From<culvert_broker_wire::AccessPolicy> for AccessPolicy {
    fn from(policy: culvert_broker_wire::AccessPolicy) -> Self {
        let simple = match &policy.audience {
            Audience::Public => Self::Public,
            Audience::Team { team_id } => Self::Team { team_id: team_id.clone() },
            Audience::Users { user_ids } => Self::Users { user_ids: user_ids.clone() },
            Audience::Institution { .. } => Self::Institution,
        };
        if culvert_broker_wire::AccessPolicy::from(simple.clone()) == policy {
            simple
        } else {
            Self::Exactly(policy)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_forms_of_the_first_protocol_are_written_and_read_back() {
        let cases = [
            (AccessPolicy::Public, json!({"type": "public"})),
            (AccessPolicy::Team { team_id: "lab".into() }, json!({"type": "team", "team_id": "lab"})),
            (
                AccessPolicy::Users { user_ids: vec!["a".into(), "b".into()] },
                json!({"type": "users", "user_ids": ["a", "b"]}),
            ),
            (AccessPolicy::Institution, json!({"type": "institution"})),
        ];
        for (policy, form) in cases {
            assert_eq!(serde_json::from_value::<AccessPolicy>(form.clone()).unwrap(), policy);
            let mut written = serde_json::to_value(&policy).unwrap();
            assert_eq!(written["permissions"], json!(["view", "download"]));
            written.as_object_mut().unwrap().remove("permissions");
            assert_eq!(written, form);
        }
    }

    #[test]
    fn limits_survive() {
        let moment = Timestamp::from_unix_seconds(2_000_000_000);
        let policy = AccessPolicy::Institution.until(moment).at_most(3);
        let written = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<AccessPolicy>(&written).unwrap(), policy);
        let exactly: culvert_broker_wire::AccessPolicy = policy.into();
        assert_eq!((exactly.expires_at, exactly.max_downloads), (Some(moment), Some(3)));
    }
}

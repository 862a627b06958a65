//! Who may have a share, as it is typed.

use std::str::FromStr;

use culvert_client::broker::{AccessPolicy, Audience as Known};

/// Who may have a share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Audience {
    Public,
    Institution,
    Team(String),
    Users(Vec<String>),
}

impl FromStr for Audience {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "write public, institution, team:ID, or users:NAME,NAME";
        match text.split_once(':') {
            None if text == "public" => Ok(Self::Public),
            None if text == "institution" => Ok(Self::Institution),
            Some(("team", id)) if !id.is_empty() => Ok(Self::Team(id.to_owned())),
            Some(("users" | "user", names)) => {
                let names: Vec<_> = names.split(',').map(|name| name.trim().to_owned()).collect();
                if names.iter().any(String::is_empty) { Err(wrong) } else { Ok(Self::Users(names)) }
            }
            _ => Err(wrong),
        }
    }
}

impl From<Audience> for AccessPolicy {
    fn from(audience: Audience) -> Self {
        match audience {
            Audience::Public => Self::Public,
            Audience::Institution => Self::Institution,
            Audience::Team(team_id) => Self::Team { team_id },
            Audience::Users(user_ids) => Self::Users { user_ids },
        }
    }
}

/// As it is shown in lists.
pub(crate) fn describe(audience: &Known) -> String {
    match audience {
        Known::Public => "public".to_owned(),
        Known::Institution { .. } => "institution".to_owned(),
        Known::Team { team_id } => format!("team:{team_id}"),
        Known::Users { user_ids } => format!("users:{}", user_ids.join(",")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_audience_is_read_as_it_is_shown() {
        for text in ["public", "institution", "team:lab", "users:bob,carol@example.org"] {
            let audience: Audience = text.parse().unwrap();
            let policy: AccessPolicy = audience.into();
            let exactly: culvert_client::broker::ExactPolicy = policy.into();
            assert_eq!(describe(&exactly.audience), text);
        }
        for bad in ["", "everybody", "team:", "team", "users:", "users:a,,b", "public:x"] {
            assert!(bad.parse::<Audience>().is_err(), "{bad}");
        }
    }
}

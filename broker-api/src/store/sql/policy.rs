//! A policy as columns of its share.

use std::collections::HashSet;

use culvert_broker_wire::{AccessPolicy, Audience, Permission};

use super::StoreError;
use super::statement::{Columns, Sql, broken};

/// The policy in the next columns.
pub(super) fn read(columns: &mut Columns<'_>) -> Result<AccessPolicy, StoreError> {
    let (audience, team, institution) = (columns.text()?, columns.text_or_none()?, columns.text_or_none()?);
    let (permissions, expires_at) = (columns.number()?, columns.at_or_none()?);
    let max_downloads = columns.number_or_none()?.map(u32::try_from).transpose().map_err(broken)?;
    let users = columns.text_or_none()?.unwrap_or_default();
    let audience = match (audience.as_str(), team) {
        ("public", _) => Audience::Public,
        ("institution", _) => Audience::Institution { institution_id: institution },
        ("team", Some(team_id)) => Audience::Team { team_id },
        ("users", _) => Audience::Users { user_ids: from_netstrings(&users)? },
        _ => return Err(broken("an audience that is none")),
    };
    let permissions =
        BITS.iter().filter(|(bit, _)| permissions & bit != 0).map(|(_, permission)| *permission);
    Ok(AccessPolicy { audience, permissions: permissions.collect(), expires_at, max_downloads })
}

const BITS: [(i64, Permission); 3] =
    [(1, Permission::View), (2, Permission::Download), (4, Permission::Reshare)];

/// A policy as it will be read: permissions in their order, everything once.
pub(super) fn normal(mut policy: AccessPolicy) -> AccessPolicy {
    policy.permissions.sort_unstable();
    policy.permissions.dedup();
    if let Audience::Users { user_ids } = &mut policy.audience {
        let mut seen = HashSet::new();
        user_ids.retain(|user| seen.insert(user.clone()));
    }
    policy
}

/// `5:alice3:bob`, where the numbers are bytes.
fn from_netstrings(mut text: &str) -> Result<Vec<String>, StoreError> {
    let mut strings = Vec::new();
    while !text.is_empty() {
        let cut = text.split_once(':').and_then(|(length, rest)| rest.split_at_checked(length.parse().ok()?));
        let (string, rest) = cut.ok_or_else(|| broken("a list of users that is none"))?;
        strings.push(string.to_owned());
        text = rest;
    }
    Ok(strings)
}

/// The columns of a policy, in the order of the statements that write them.
pub(super) fn bind<'q>(sql: Sql<'q>, policy: &'q AccessPolicy) -> Sql<'q> {
    let (audience, team, institution) = match &policy.audience {
        Audience::Public => ("public", None, None),
        Audience::Users { .. } => ("users", None, None),
        Audience::Team { team_id } => ("team", Some(team_id.as_str()), None),
        Audience::Institution { institution_id } => ("institution", None, institution_id.as_deref()),
    };
    let bits = BITS.iter().filter(|(_, permission)| policy.permissions.contains(permission));
    let sql = sql.bind(audience).bind(team).bind(institution).bind(bits.map(|(bit, _)| bit).sum::<i64>());
    sql.bind(policy.expires_at).bind(policy.max_downloads)
}

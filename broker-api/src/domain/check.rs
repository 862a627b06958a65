//! What may be written: lengths and forms of fields, the same over WebSocket and REST.

use culvert_broker_wire::limits::{MAX_DESCRIPTION, MAX_POLICY_USERS, MAX_RESULT_ID, MAX_TITLE, MAX_USER_ID};
use culvert_broker_wire::{AccessPolicy, Audience, ErrorCode, Permission, ShareToken};

use crate::core::Refusal;

/// A text that names something: 1 to `max` bytes, no control characters.
///
/// # Errors
/// `INVALID_INPUT`, naming the field.
pub fn id(field: &str, text: &str, max: usize) -> Result<(), Refusal> {
    let fits = (1..=max).contains(&text.len()) && !text.chars().any(char::is_control);
    let wrong = || format!("`{field}` must have 1 to {max} bytes and no control characters");
    if fits { Ok(()) } else { Err(Refusal::new(ErrorCode::InvalidInput, wrong())) }
}

/// The id of a user.
///
/// # Errors
/// `INVALID_INPUT`, naming the field.
pub fn user_id(field: &str, text: &str) -> Result<(), Refusal> {
    id(field, text, MAX_USER_ID)
}

/// The id of a result, which becomes a segment of a URL's path.
///
/// # Errors
/// `INVALID_INPUT`.
pub fn result_id(text: &str) -> Result<(), Refusal> {
    if matches!(text, "." | "..") {
        return Err(Refusal::new(
            ErrorCode::InvalidInput,
            "result_id must not be . or .., which mean folders",
        ));
    }
    id("result_id", text, MAX_RESULT_ID)
}

/// A title or name.
///
/// # Errors
/// `INVALID_INPUT`, naming the field.
pub fn title(field: &str, text: &str) -> Result<(), Refusal> {
    id(field, text, MAX_TITLE)
}

/// A description: up to [`MAX_DESCRIPTION`] bytes, lines allowed, no NUL, which Postgres cannot keep.
///
/// # Errors
/// `INVALID_INPUT`.
pub fn description(text: Option<&str>) -> Result<(), Refusal> {
    let fits = text.is_none_or(|text| text.len() <= MAX_DESCRIPTION && !text.contains('\0'));
    let wrong = || format!("`description` must have at most {MAX_DESCRIPTION} bytes, and no NUL");
    if fits { Ok(()) } else { Err(Refusal::new(ErrorCode::InvalidInput, wrong())) }
}

/// A token as it was asked for; one that cannot be a token names no share.
///
/// # Errors
/// `SHARE_NOT_FOUND`.
pub fn known_token(text: &str) -> Result<ShareToken, Refusal> {
    text.parse().map_err(|_| super::shares::not_found())
}

/// A policy: complete, of a bounded size, with something permitted; brought into its one written form.
///
/// # Errors
/// `INVALID_INPUT`.
pub fn policy(institution: &str, policy: &mut AccessPolicy) -> Result<(), Refusal> {
    let wrong = |text: String| Err(Refusal::new(ErrorCode::InvalidInput, text));
    match &mut policy.audience {
        Audience::Public => {}
        Audience::Team { team_id } => id("team_id", team_id, MAX_USER_ID)?,
        Audience::Users { user_ids } => {
            if !(1..=MAX_POLICY_USERS).contains(&user_ids.len()) {
                return wrong(format!("`user_ids` must have 1 to {MAX_POLICY_USERS} entries"));
            }
            user_ids.iter().try_for_each(|user| user_id("user_ids", user))?;
            user_ids.sort_unstable();
            user_ids.dedup();
        }
        Audience::Institution { institution_id } => {
            if institution_id.as_deref().is_some_and(|named| named != institution) {
                return wrong("`institution_id` names another institution than this broker's".to_owned());
            }
            *institution_id = None;
        }
    }
    if policy.permissions.is_empty() {
        return wrong("`permissions` must name at least one; leave it out for the usual ones".to_owned());
    }
    // Who may download or pass on may see what it is.
    policy.permissions.push(Permission::View);
    policy.permissions.sort_unstable();
    policy.permissions.dedup();
    if policy.max_downloads == Some(0) || policy.max_downloads.is_some_and(|count| count > i32::MAX as u32) {
        return wrong(format!("`max_downloads` must be from 1 to {}; leave it out for any number", i32::MAX));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_brought_into_one_form() {
        let users =
            |ids: &[&str]| Audience::Users { user_ids: ids.iter().map(|&id| id.to_owned()).collect() };
        let mut given = AccessPolicy::of(users(&["b", "a", "b"]));
        given.permissions = vec![Permission::Download, Permission::Download];
        policy("lab", &mut given).unwrap();
        assert_eq!(given, AccessPolicy::of(users(&["a", "b"])));
        let mut own = AccessPolicy::of(Audience::Institution { institution_id: Some("lab".to_owned()) });
        policy("lab", &mut own).unwrap();
        assert_eq!(own.audience, Audience::Institution { institution_id: None });
    }

    #[test]
    fn a_policy_that_nobody_could_use_or_that_means_somebody_else_is_refused() {
        let users = |count: usize| Audience::Users { user_ids: vec!["a".to_owned(); count] };
        let other = Audience::Institution { institution_id: Some("other".to_owned()) };
        for audience in
            [users(0), users(MAX_POLICY_USERS + 1), other, Audience::Team { team_id: String::new() }]
        {
            let mut bad = AccessPolicy::of(audience);
            assert_eq!(policy("lab", &mut bad).unwrap_err().code, ErrorCode::InvalidInput);
        }
        let mut none = AccessPolicy { permissions: Vec::new(), ..AccessPolicy::public() };
        assert!(policy("lab", &mut none).is_err());
        let mut never = AccessPolicy { max_downloads: Some(0), ..AccessPolicy::public() };
        assert!(policy("lab", &mut never).is_err());
    }

    #[test]
    fn texts_have_lengths_and_no_control_characters() {
        assert!(user_id("user_id", "alice@institution.edu").is_ok());
        for bad in ["", "a\0b", "a\nb", &"x".repeat(MAX_USER_ID + 1)] {
            assert!(user_id("user_id", bad).unwrap_err().message.contains("`user_id`"));
        }
        assert!(description(Some("two\nlines")).is_ok() && description(None).is_ok());
        assert!(description(Some(&"x".repeat(MAX_DESCRIPTION + 1))).is_err());
        assert!(description(Some("a\0")).is_err());
    }
}

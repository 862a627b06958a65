//! What lasts: the rules of `culvert_broker_api::store`, held in SQLite and in PostgreSQL alike.
//!
//! Every rule gets a database of its own. What only a server can do, vanish and come back, is in [`faults`].

mod audit;
mod backups;
mod credentials;
mod faults;
mod keeping;
mod sessions;
mod shares;
mod stage;
mod tables;
mod teams;
mod users;

use stage::{Stage, within};

/// Runs each rule on both databases.
macro_rules! rules {
    ($($module:ident::$rule:ident),+ $(,)?) => {
        mod sqlite {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $rule() {
                within(async { $module::$rule(&Stage::sqlite().await).await }).await;
            })+
        }
        mod postgres {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $rule() {
                within(async { $module::$rule(&Stage::postgres().await).await }).await;
            })+
        }
    };
}

rules! {
    users::an_id_is_bound_once_together_with_its_device,
    users::of_two_admissions_at_once_one_wins,
    users::a_device_is_bound_to_one_user_and_never_again_after_its_revocation,
    users::a_user_has_at_most_256_devices,
    users::what_is_known_of_a_user_can_be_changed,
    users::a_removed_user_leaves_nothing_but_revoked_shares,
    users::those_who_share_a_team_or_a_share_are_related,
    users::lists_are_read_in_pages_while_they_grow,
    sessions::a_session_holds_until_it_ends,
    sessions::a_session_ends_with_its_device_and_its_user,
    shares::a_share_is_found_as_it_was_published,
    shares::publishing_again_changes_what_is_ones_own,
    shares::republishing_somebody_elses_token_is_refused,
    shares::a_revoked_share_is_gone_for_good,
    shares::a_policy_says_who_may_use_a_share,
    shares::several_look_ups_are_answered_each_for_its_viewer_and_in_their_order,
    shares::nobody_but_the_owner_uses_a_share_after_its_end,
    shares::downloads_never_exceed_their_number_whoever_asks_at_once,
    shares::downloads_are_counted_together,
    shares::of_two_publications_of_a_token_at_once_one_wins,
    shares::a_change_says_what_was_and_counts_the_version,
    shares::what_is_shared_with_somebody_is_listed_newest_first,
    shares::a_team_that_is_deleted_takes_its_shares_with_it,
    shares::a_policy_for_a_team_needs_a_team_that_the_owner_is_in,
    teams::a_team_is_made_renamed_and_deleted,
    teams::a_team_with_members_keeps_an_admin,
    teams::two_admins_who_leave_at_once_do_not_both_leave,
    teams::the_teams_of_a_user_come_with_their_role,
    backups::a_backup_comes_back_as_it_was,
    backups::an_upload_is_invisible_until_it_is_whole,
    backups::what_does_not_match_is_not_kept,
    backups::versions_count_up_for_ever_and_the_oldest_go,
    backups::of_two_devices_with_the_same_version_one_wins,
    backups::a_backup_that_is_removed_while_it_is_read_ends_in_an_error,
    backups::uploads_that_broke_off_are_swept_out,
    credentials::a_credential_is_found_while_it_holds,
    credentials::secrets_are_rotated_two_at_a_time,
    credentials::credentials_are_listed_with_their_secrets,
    credentials::the_horizon_only_rises,
    keeping::the_first_value_of_a_secret_is_kept,
    keeping::of_replicas_that_add_a_signing_key_at_once_one_does,
    keeping::a_repeated_request_gets_the_answer_of_the_first,
    keeping::of_two_requests_with_a_key_at_once_one_is_new,
    keeping::what_has_ended_is_swept_out,
    audit::entries_are_read_newest_first_and_by_what_they_say,
    audit::the_audit_log_is_append_only,
    audit::whatever_a_stranger_claims_is_written_down,
    tables::replicas_that_migrate_at_once_all_succeed,
    tables::a_database_without_tables_says_what_to_do,
    tables::sql_in_every_string_is_only_text,
    tables::a_nul_character_is_refused_and_four_byte_characters_are_not,
    tables::a_stolen_copy_of_the_database_yields_no_usable_token,
}

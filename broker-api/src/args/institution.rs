//! Who the broker is for, and how it is found.

use std::path::PathBuf;

use culvert_service_kit::Secret;
use culvert_service_kit::config::{Given, Problems};

/// Settings of the institution.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Institution")]
pub struct InstitutionArgs {
    /// Name of the institution, shown to clients.
    #[arg(long, env = "CULVERT_BROKER_INSTITUTION", value_name = "NAME")]
    #[arg(default_value = "Default Institution")]
    pub institution: Given<String>,
    /// File with the password that admits new users; without one nobody is admitted by it.
    #[arg(long, env = "CULVERT_BROKER_INSTITUTION_PASSWORD_FILE", value_name = "FILE")]
    pub institution_password_file: Option<Given<PathBuf>>,
    /// The password itself, from its environment variable only.
    #[arg(long, env = "CULVERT_BROKER_INSTITUTION_PASSWORD", value_name = "SECRET")]
    #[arg(hide = true, hide_env_values = true)]
    pub institution_password: Option<Given<Secret<String>>>,
    /// The relays of the institution, wss://relay.example.org, the first to be preferred.
    #[arg(long, env = "CULVERT_BROKER_RELAYS", value_name = "LIST")]
    pub relays: Option<Given<Vec<String>>>,
    /// The tenant in tickets for the relays.
    #[arg(long, env = "CULVERT_BROKER_TENANT", value_name = "NAME", default_value = "default")]
    pub tenant: Given<String>,
    /// Announces the broker on the local networks by mDNS.
    #[arg(long, env = "CULVERT_BROKER_ANNOUNCE", value_name = "BOOL", default_value = "false")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub announce: Given<bool>,
    /// Whether update-url is asked for a newer version, once at start and then every day.
    #[arg(long, env = "CULVERT_BROKER_CHECK_FOR_UPDATES", value_name = "BOOL", default_value = "true")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub check_for_updates: Given<bool>,
    /// List of released versions, in the form of the tags of a repository at Docker Hub; without it nobody
    /// is asked.
    #[arg(long, env = "CULVERT_BROKER_UPDATE_URL", value_name = "URL")]
    pub update_url: Option<Given<String>>,
}

/// What these settings mean.
pub(super) struct Institution {
    pub(super) name: String,
    pub(super) password: Option<Secret<String>>,
    pub(super) relays: Vec<String>,
    pub(super) tenant: String,
    pub(super) announce: bool,
    pub(super) update_url: Option<String>,
}

/// Shown in one line, and part of an mDNS record of at most 255 bytes.
const LONGEST_NAME: usize = 200;

impl InstitutionArgs {
    pub(super) fn read(&self, problems: &mut Problems) -> Option<Institution> {
        let must_be = format!("of at most {LONGEST_NAME} bytes without control characters");
        let is_name = |name: &String| name.len() <= LONGEST_NAME && !name.chars().any(char::is_control);
        let name = problems.read_checked(&self.institution, &must_be, is_name);
        let password = problems.read_secret(&self.institution_password, &self.institution_password_file);
        let relays = self.relays(problems);
        let tenant = problems.read(&self.tenant);
        let announce = problems.read(&self.announce);
        let check = problems.read(&self.check_for_updates);
        let update_url = self.update_url.as_ref().map(|given| {
            let is_url = |url: &String| url.starts_with("https://") || url.starts_with("http://");
            problems.read_checked(given, "an http:// or https:// URL", is_url)
        });
        let update_url = match update_url {
            Some(url) => Some(url?),
            None => None,
        };
        Some(Institution {
            name: name?,
            password,
            relays: relays?,
            tenant: tenant?,
            announce: announce?,
            update_url: update_url.filter(|_| check == Some(true)),
        })
    }

    fn relays(&self, problems: &mut Problems) -> Option<Vec<String>> {
        let Some(given) = &self.relays else { return Some(Vec::new()) };
        let is_url = |relays: &Vec<String>| {
            relays.iter().all(|url| ["wss://", "ws://"].iter().any(|scheme| url.starts_with(scheme)))
        };
        problems.read_checked(given, "URLs such as wss://relay.example.org", is_url)
    }
}

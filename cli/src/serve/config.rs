//! What `serve` was told: what was typed, over the configuration file of the first protocol's applications.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use culvert_client::broker::SyncClient;
use culvert_client::dial::RelayUrl;
use serde::Deserialize;

use crate::broker_args::{BrokerArgs, ServeArgs};
use crate::failure::Code;

/// The two sections that concern us; an application keeps others beside them.
#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(default)]
    sync: Sync,
    #[serde(default)]
    server: Server,
    #[serde(default)]
    user: User,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Sync {
    enabled: bool,
    broker_url: Option<String>,
    user_id: Option<String>,
    /// For applications that need not connect at their start; serving is being connected.
    #[serde(rename = "auto_connect")]
    _auto_connect: Option<bool>,
    relay_url: Option<String>,
}

impl Default for Sync {
    fn default() -> Self {
        Self { enabled: true, broker_url: None, user_id: None, _auto_connect: None, relay_url: None }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Server {
    bind_addr: Option<SocketAddr>,
    external_endpoint: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct User {
    id: Option<String>,
}

/// What it means.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) folder: PathBuf,
    pub(super) broker: BrokerArgs,
    pub(super) relay: Option<RelayUrl>,
    pub(super) listen: Option<SocketAddr>,
    pub(super) endpoint: Option<String>,
}

impl Settings {
    pub(super) fn settle(args: &ServeArgs) -> Result<Self> {
        let file = args.config.as_deref().map(read).transpose()?.unwrap_or_default();
        let of = || args.config.as_deref().map(|path| path.display().to_string()).unwrap_or_default();
        ensure!(
            file.sync.enabled,
            Code::Usage.because(format!("sync is switched off in {}: [sync] enabled", of()))
        );
        let folder = args.folder.canonicalize();
        let folder = folder.with_context(|| format!("cannot serve {}", args.folder.display()))?;
        ensure!(folder.is_dir(), Code::Usage.because(format!("{} is no folder", folder.display())));
        let parsed =
            |key: &str, error: String| Code::Usage.because(format!("{}: [sync] {key}: {error}", of()));
        let mut broker = args.broker.clone();
        if broker.broker.is_none()
            && let Some(url) = file.sync.broker_url
        {
            broker.broker = Some(url.parse().map_err(|error| parsed("broker_url", format!("{error}")))?);
        }
        broker.user = broker.user.or(file.sync.user_id).or(file.user.id);
        let relay = match (&args.relay, file.sync.relay_url) {
            (Some(relay), _) => Some(relay.clone()),
            (None, Some(url)) => Some(url.parse().map_err(|error| parsed("relay_url", format!("{error}")))?),
            (None, None) => None,
        };
        let endpoint = args.endpoint.clone().or(file.server.external_endpoint);
        if let Some(endpoint) = &endpoint {
            let is_url = endpoint.starts_with("http://") || endpoint.starts_with("https://");
            ensure!(is_url, Code::Usage.because("the endpoint is a URL such as https://alice.example.org"));
        }
        Ok(Self { folder, broker, relay, listen: args.listen.or(file.server.bind_addr), endpoint })
    }

    /// The relay to wait at: the one that was given, or the broker's first.
    pub(super) fn relay(&self, client: &SyncClient) -> Result<Option<RelayUrl>> {
        if let Some(relay) = &self.relay {
            return Ok(Some(relay.clone()));
        }
        let first = client.broker().and_then(|broker| broker.relays.first().cloned());
        first.map(|url| url.parse().context("the broker names a relay that is none")).transpose()
    }
}

fn read(path: &Path) -> Result<File> {
    let text = std::fs::read_to_string(path);
    let text = text
        .with_context(|| format!("cannot read {}", path.display()))
        .map_err(|error| Code::Usage.with(error))?;
    toml::from_str(&text).map_err(|error| Code::Usage.because(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn settle(extra: &[&str]) -> Result<Settings> {
        let typed = ["culvert", "serve"].iter().chain(extra);
        let Command::Serve(args) = Cli::parse_from(typed).command else { panic!("another command") };
        Settings::settle(&args)
    }

    /// As the first protocol's documentation prints it.
    const DDALAB: &str = r#"
[sync]
enabled = true
broker_url = "wss://ddalab-sync.university.edu/ws"
user_id = "alice@university.edu"

[server]
bind_addr = "0.0.0.0:3001"
external_endpoint = "http://192.168.1.50:3001"  # For NAT/firewall
"#;

    #[test]
    fn the_configuration_file_of_the_first_protocol_is_read_and_what_is_typed_counts_more() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ddalab.toml");
        std::fs::write(&file, DDALAB).unwrap();
        let (folder, file) = (dir.path().to_str().unwrap(), file.to_str().unwrap());
        let settings = settle(&[folder, "--config", file]).unwrap();
        assert_eq!(settings.broker.broker.unwrap().to_string(), "wss://ddalab-sync.university.edu/ws");
        assert_eq!(settings.broker.user.as_deref(), Some("alice@university.edu"));
        assert_eq!(settings.listen, Some("0.0.0.0:3001".parse().unwrap()));
        assert_eq!(settings.endpoint.as_deref(), Some("http://192.168.1.50:3001"));
        let typed = ["--user", "bob", "--listen", "127.0.0.1:1", "--relay", "wss://r.example"];
        let settings = settle(&[&[folder, "--config", file], &typed[..]].concat()).unwrap();
        assert_eq!(settings.broker.user.as_deref(), Some("bob"));
        assert_eq!(settings.listen, Some("127.0.0.1:1".parse().unwrap()));
        assert_eq!(settings.relay.unwrap().to_string(), "wss://r.example");
    }

    #[test]
    fn what_makes_no_sense_in_the_file_is_said_with_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        for (text, said) in [
            ("[sync]\nenabled = false", "[sync] enabled"),
            ("[sync]\nbroker_url = \"nowhere\"", "[sync] broker_url"),
            ("[sync]\nbroker = \"wss://b\"", "broker"),
            ("[server]\nbind_addr = \"3001\"", "bind_addr"),
            ("[server]\nexternal_endpoint = \"192.168.1.50\"", "URL"),
        ] {
            std::fs::write(&file, text).unwrap();
            let error =
                settle(&[dir.path().to_str().unwrap(), "--config", file.to_str().unwrap()]).unwrap_err();
            assert!(format!("{error:#}").contains(said), "{text}: {error:#}");
        }
    }
}

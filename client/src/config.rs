//! What the caller may choose, and what of it makes no sense.
//!
//! [`TransportConfig`] has the four fields that every transport shares. What only the relay transport
//! needs (keys, admission, proxy, trust) is in [`RelayOptions`].

use serde::{Deserialize, Serialize};

use crate::dial::{RelayUrl, UrlError};
use crate::disabled::DisabledTransport;
use crate::memory::MemoryTransport;
use crate::misconfigured::Misconfigured;
use crate::options::RelayOptions;
use crate::relay::RelayTransport;
use crate::transport::Transport;

/// How peers are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportMode {
    /// Directly, found through a distributed hash table. Not available yet.
    Hyperswarm,
    /// Through a relay on port 443.
    Relay,
    /// Not at all.
    Disabled,
    /// Within this process, for tests.
    Memory,
    /// The best there is: for now the relay.
    #[default]
    Auto,
}

/// How peers are reached, and within which bounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransportConfig {
    /// See [`TransportMode`].
    pub mode: TransportMode,
    /// `wss://host[:port]` of the relay, or `ws://` where plain text is wanted in so many words.
    pub relay_url: Option<String>,
    /// Milliseconds that connecting, closing or a single answer may take.
    pub timeout_ms: u64,
    /// End-to-end encryption between the peers; only the memory transport can do without.
    pub encryption: bool,
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self { mode: TransportMode::default(), relay_url: None, timeout_ms: 30_000, encryption: true }
    }
}

/// A configuration that no transport can be made from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The mode exists in name only.
    #[error("the mode `hyperswarm` is not available yet; use `relay`, or `auto` with a relay_url")]
    HyperswarmNotAvailable,
    /// Mode `relay` or `auto` without a relay.
    #[error("the mode `{0}` needs a relay_url, for example wss://relay.example.com")]
    NoRelayUrl(&'static str),
    /// The relay's URL cannot be dialled.
    #[error("relay_url: {0}")]
    RelayUrl(#[from] UrlError),
    /// Plain text between peers over a network.
    #[error("encryption cannot be switched off in the mode `{0}`; only `memory` runs without")]
    EncryptionOff(&'static str),
    /// Nothing can be done in no time.
    #[error("timeout_ms must be at least 1")]
    NoTime,
}

impl TransportMode {
    /// Its name in configuration files.
    pub const fn name(self) -> &'static str {
        match self {
            TransportMode::Hyperswarm => "hyperswarm",
            TransportMode::Relay => "relay",
            TransportMode::Disabled => "disabled",
            TransportMode::Memory => "memory",
            TransportMode::Auto => "auto",
        }
    }
}

impl TransportConfig {
    /// Whether a transport can be made from it.
    ///
    /// # Errors
    /// The first thing that makes no sense; see [`ConfigError`].
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.timeout_ms == 0 {
            return Err(ConfigError::NoTime);
        }
        match self.mode {
            TransportMode::Hyperswarm => Err(ConfigError::HyperswarmNotAvailable),
            TransportMode::Disabled | TransportMode::Memory => Ok(()),
            TransportMode::Relay | TransportMode::Auto if !self.encryption => {
                Err(ConfigError::EncryptionOff(self.mode.name()))
            }
            TransportMode::Relay | TransportMode::Auto => self.relay().map(|_| ()),
        }
    }

    /// The relay to dial.
    pub(crate) fn relay(&self) -> Result<RelayUrl, ConfigError> {
        let url = self.relay_url.as_deref().ok_or(ConfigError::NoRelayUrl(self.mode.name()))?;
        Ok(url.parse()?)
    }
}

/// The transport of `config`, with a fresh identity and no admission.
///
/// A configuration that makes no sense gives a transport that answers every call with the reason;
/// [`create_transport_with`] says so at once.
pub fn create_transport(config: TransportConfig) -> Box<dyn Transport> {
    create_transport_with(config, RelayOptions::default())
        .unwrap_or_else(|error| Box::new(Misconfigured::new(error)))
}

/// The transport of `config`; `options` matter to the relay transport only.
///
/// # Errors
/// See [`TransportConfig::validate`].
pub fn create_transport_with(
    config: TransportConfig,
    options: RelayOptions,
) -> Result<Box<dyn Transport>, ConfigError> {
    config.validate()?;
    Ok(match config.mode {
        TransportMode::Hyperswarm => return Err(ConfigError::HyperswarmNotAvailable),
        TransportMode::Disabled => Box::new(DisabledTransport::new()),
        TransportMode::Memory => Box::new(MemoryTransport::new()),
        TransportMode::Relay | TransportMode::Auto => Box::new(RelayTransport::new(config, options)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay(url: Option<&str>) -> TransportConfig {
        TransportConfig {
            mode: TransportMode::Relay,
            relay_url: url.map(str::to_owned),
            ..Default::default()
        }
    }

    #[test]
    fn the_defaults_are_those_of_the_documentation() {
        let config: TransportConfig = serde_json::from_str("{}").unwrap();
        assert_eq!(config, TransportConfig::default());
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(json, r#"{"mode":"auto","relay_url":null,"timeout_ms":30000,"encryption":true}"#);
        assert!(serde_json::from_str::<TransportConfig>(r#"{"relay":"x"}"#).is_err());
    }

    #[test]
    fn a_configuration_that_makes_no_sense_is_an_error_with_a_sentence() {
        let cases = [
            (relay(None), "the mode `relay` needs a relay_url, for example wss://relay.example.com"),
            (
                TransportConfig::default(),
                "the mode `auto` needs a relay_url, for example wss://relay.example.com",
            ),
            (
                TransportConfig { encryption: false, ..relay(Some("wss://r.example")) },
                "encryption cannot be switched off in the mode `relay`; only `memory` runs without",
            ),
            (
                TransportConfig { timeout_ms: 0, ..relay(Some("wss://r.example")) },
                "timeout_ms must be at least 1",
            ),
            (
                TransportConfig { mode: TransportMode::Hyperswarm, ..Default::default() },
                "the mode `hyperswarm` is not available yet; use `relay`, or `auto` with a relay_url",
            ),
        ];
        for (config, sentence) in cases {
            assert_eq!(config.validate().unwrap_err().to_string(), sentence);
        }
        assert!(relay(Some("https://r.example")).validate().is_err());
        assert_eq!(relay(Some("wss://r.example")).validate(), Ok(()));
        let plain = TransportConfig { mode: TransportMode::Memory, encryption: false, ..Default::default() };
        assert_eq!(plain.validate(), Ok(()));
    }

    #[tokio::test]
    async fn a_misconfigured_transport_answers_every_call_with_the_reason() {
        let mut transport = create_transport(relay(None));
        let topic = [0; 32];
        let reason = "the mode `relay` needs a relay_url, for example wss://relay.example.com";
        assert_eq!(transport.connect(topic).await.unwrap_err().to_string(), reason);
        assert_eq!(transport.announce(topic).await.unwrap_err().to_string(), reason);
        assert_eq!(transport.lookup(topic).await.unwrap_err().to_string(), reason);
        assert_eq!(transport.disconnect().await.unwrap_err().to_string(), reason);
    }
}

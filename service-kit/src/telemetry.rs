//! Logs, on standard error, as text or JSON.
//!
//! The filter is the one of the ecosystem: `info`, `culvert_relay=debug,warn`. A setting wins over
//! `RUST_LOG`, which wins over `info`.

use std::io::IsTerminal;

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// Shape of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people; coloured on a terminal.
    #[default]
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// Which lines are written.
#[derive(Debug)]
pub struct LogFilter(EnvFilter);

impl LogFilter {
    /// The filter of the setting, else of `RUST_LOG`, else `info`.
    pub fn new(setting: Option<&str>) -> Result<Self, TelemetryError> {
        let (origin, text) = match (setting, std::env::var("RUST_LOG")) {
            (Some(text), _) => ("log", text.to_owned()),
            (None, Ok(text)) => ("RUST_LOG", text),
            (None, Err(_)) => return Ok(Self(EnvFilter::default().add_directive(LevelFilter::INFO.into()))),
        };
        let filter = EnvFilter::builder()
            .with_default_directive(LevelFilter::INFO.into())
            .parse(&text)
            .map_err(|source| TelemetryError::Filter { origin, text, source })?;
        Ok(Self(filter))
    }
}

/// Starts to write logs, once per process.
pub fn init(format: LogFormat, filter: LogFilter) -> Result<(), TelemetryError> {
    let builder = tracing_subscriber::fmt().with_env_filter(filter.0).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).finish().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
    }
    .map_err(TelemetryError::Installed)
}

/// Why no logs can be written.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("{origin}: `{text}` is not a log filter such as info or culvert_relay=debug,warn")]
    Filter {
        /// Where it was given.
        origin: &'static str,
        /// The filter.
        text: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Logs were started before.
    #[error("logs were already started in this process")]
    Installed(#[source] TryInitError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_level_or_a_list_of_targets() {
        for text in ["info", "culvert_relay=debug,warn", "off"] {
            assert!(LogFilter::new(Some(text)).is_ok(), "{text}");
        }
        let error = LogFilter::new(Some("culvert_relay=loud")).unwrap_err().to_string();
        assert!(error.contains("log: `culvert_relay=loud`"), "{error}");
    }

    #[test]
    fn logs_start_once() {
        init(LogFormat::Json, LogFilter::new(Some("off")).unwrap()).unwrap();
        let again = init(LogFormat::Text, LogFilter::new(Some("off")).unwrap());
        assert!(matches!(again, Err(TelemetryError::Installed(_))));
    }
}

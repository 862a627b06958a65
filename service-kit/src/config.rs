//! Settings from flags, environment and a file, every problem reported at once.
//!
//! Two types. *Args* is what was typed: a clap struct whose fields are [`Given`], texts that remember where
//! they come from. *Config* is what it means, and is the server's own. In between stands [`Problems`], which
//! turns texts into values and collects everything that is wrong, so that an operator edits once.
//!
//! A setting has one name: flag `--idle-timeout`, key `idle-timeout` in the TOML file, environment variable
//! with the program's prefix. A flag wins over the environment, which wins over the file, which wins over
//! the default. Keys that are not settings are problems: a typo must not leave a limit at its default.
//!
//! ```
//! use std::time::Duration;
//! use clap::Parser;
//! use culvert_service_kit::config::{Given, Problems, load};
//!
//! #[derive(Parser)]
//! struct Args {
//!     /// TOML file with settings.
//!     #[arg(long)]
//!     config: Option<Given<std::path::PathBuf>>,
//!     /// Silence after which a peer is closed.
//!     #[arg(long, default_value = "45s")]
//!     idle_timeout: Given<Duration>,
//! }
//!
//! let loaded = load::<Args>(["example", "--idle-timeout", "1m"].map(Into::into))?;
//! let mut problems = loaded.problems;
//! let idle_timeout = problems.read(&loaded.args.idle_timeout);
//! assert_eq!(problems.finish(idle_timeout).unwrap(), Duration::from_secs(60));
//! # Ok::<(), clap::Error>(())
//! ```

mod docs;
mod file;
mod given;
mod load;
mod problems;
mod setting;

pub use docs::markdown_tables;
pub use given::{Given, Origin};
pub use load::{Effective, Loaded, load, load_with_aliases};
pub use problems::{Problem, Problems};
pub use setting::Setting;

/// Exit code of a process whose configuration is wrong (`EX_USAGE` of sysexits.h).
pub const EXIT_BAD_CONFIGURATION: u8 = 64;
/// Exit code of a process that could not start or had to give up.
pub const EXIT_FAILED: u8 = 1;

/// Name of the setting that holds the path of the file.
const FILE_KEY: &str = "config";

#[cfg(test)]
mod tests;

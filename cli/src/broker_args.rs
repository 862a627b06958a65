//! What can be typed of the commands that need a broker.

#![allow(
    rustdoc::bare_urls,
    rustdoc::broken_intra_doc_links,
    reason = "doc comments here are what --help prints"
)]

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use culvert_client::broker::{BrokerUrl, ShareLink};
use culvert_client::dial::RelayUrl;

use crate::cli::NetworkArgs;
use crate::share::Audience;
use crate::ticket::Duration;

pub(crate) const LOGIN_HELP: &str = "\
The password is asked for on the terminal, or read from standard input where there is none. What is kept is \
a session, in a file that only you can read, and this machine's key is bound to your account, so that grants \
to download are good for this machine alone.

Examples:
  culvert login --broker https://broker.example.org --user alice@example.org
  culvert login --broker https://broker.example.org --user bob --by institution < password
  culvert login --broker https://broker.example.org --user bob --by device";

pub(crate) const SHARE_HELP: &str = "\
Prints the link. Files do not leave this machine before somebody fetches them: keep `culvert serve` running \
over the folder they are in.

Examples:
  culvert share results.csv --to team:lab
  culvert share figures/ --to users:bob,carol --expires 7d --max-downloads 3";

pub(crate) const FETCH_HELP: &str = "\
Asks the broker for the share, then takes it from the owner: directly where that is possible and safe, \
through the relay otherwise. If it is interrupted, run it again: only the rest is fetched.

Example:
  culvert fetch culvert://share/Fy1c... --out ~/Downloads";

pub(crate) const SERVE_HELP: &str = "\
Says that you are online and gives out, to whom the broker allows it, what you shared from this folder. No \
port has to be open: requesters come through the relay. With --listen it also answers \
GET /api/results/{result_id} itself.

Examples:
  culvert serve ~/shared
  culvert serve results --config ddalab.toml";

/// Which broker, and who.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Broker")]
pub(crate) struct BrokerArgs {
    /// The broker: https://host, or wss://host/ws. Without it, the one of the last login.
    #[arg(long, env = "CULVERT_BROKER", value_name = "URL")]
    pub(crate) broker: Option<BrokerUrl>,
    /// Who you are there. Without it, who logged in last.
    #[arg(long, env = "CULVERT_USER", value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// Speak with the broker, and with owners' own servers, in clear text across a network.
    #[arg(long)]
    pub(crate) allow_plain_text: bool,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

#[derive(Debug, Args)]
#[command(after_help = LOGIN_HELP)]
pub(crate) struct LoginArgs {
    /// How to prove who you are.
    #[arg(long, value_enum, default_value_t = Way::Account)]
    pub(crate) by: Way,
    /// File with the password; standard input or the terminal without it.
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Way {
    /// Your account's password.
    Account,
    /// The institution's password, which admits and binds your name to this machine's key.
    Institution,
    /// This machine's key, bound to you before.
    Device,
}

#[derive(Debug, Args)]
#[command(after_help = SHARE_HELP)]
pub(crate) struct ShareArgs {
    /// What to share.
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Who may have it: `public` (whoever has the link), `institution`, `team:ID`, or `users:NAME,NAME`.
    #[arg(long, value_name = "WHO", default_value = "institution")]
    pub(crate) to: Audience,
    /// What it is called there; without it, the name of the first path.
    #[arg(long, value_name = "TEXT")]
    pub(crate) title: Option<String>,
    /// More about it.
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// For how long: 30m, 8h, 7d. Without it, until it is unshared.
    #[arg(long, value_name = "TIME")]
    pub(crate) expires: Option<Duration>,
    /// How often it may be fetched in all.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_downloads: Option<u32>,
    /// The result as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct UnshareArgs {
    /// The link.
    #[arg(value_name = "LINK")]
    pub(crate) link: ShareLink,
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct SharesArgs {
    /// Those of others that are for you, instead of your own.
    #[arg(long)]
    pub(crate) with_me: bool,
    /// The answer as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct OnlineArgs {
    /// Ends after this many seconds; without it, on Ctrl-C.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) seconds: Option<u64>,
    /// What happens as JSON, one object a line.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
}

#[derive(Debug, Args)]
#[command(after_help = FETCH_HELP)]
pub(crate) struct FetchArgs {
    /// The link: culvert://share/… or ddalab://share/…
    #[arg(value_name = "LINK")]
    pub(crate) link: ShareLink,
    /// Folder to write into; made if it is not there.
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub(crate) out: PathBuf,
    /// Replace files that exist and differ.
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// How many seconds to wait for an owner who is offline or goes away; without it, until Ctrl-C.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) wait: Option<u64>,
    /// Do not try the owner's own server, only the relay.
    #[arg(long)]
    pub(crate) relay_only: bool,
    /// Events and results as JSON, one object a line, on standard output.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
}

#[derive(Debug, Args)]
#[command(after_help = SERVE_HELP)]
pub(crate) struct ServeArgs {
    /// The folder to serve from.
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) folder: PathBuf,
    /// Relay to wait at; without it, the broker's first.
    #[arg(long, env = "CULVERT_RELAY", value_name = "URL")]
    pub(crate) relay: Option<RelayUrl>,
    /// Also answer HTTP at this address, in clear text: for a trusted network, or behind a proxy with TLS.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// The URL by which others reach that, such as https://alice.example.org.
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint: Option<String>,
    /// Configuration file with [sync] and [server], as DDALAB has it; what is typed counts more.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Events as JSON, one object a line, on standard output.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
}

//! What can be typed.

use std::ffi::OsString;
use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use culvert_client::dial::RelayUrl;
use culvert_relay::args::RedisArgs;
use culvert_wire::PeerId;

use crate::broker_args::{FetchArgs, LoginArgs, OnlineArgs, ServeArgs, ShareArgs, SharesArgs, UnshareArgs};
use crate::ticket::{Duration, TopicList};

const AFTER_HELP: &str = "\
Examples:
  culvert demo                             watch a file pass through a relay on this machine
  culvert dev                              run a relay and a broker here and print what to try
  culvert send --relay wss://relay.example.com report.pdf
  culvert receive culvert:AQ...            paste the link that `send` printed

Exit codes:
  0   done
  1   failed, or only a part could be transferred; the message says what to do
  2   wrong arguments
  3   refused: the relay did not let this peer in, or the ticket does not verify
  4   interrupted; what arrived is kept, and the same command goes on where it was
  64  wrong configuration (`culvert relay` and `culvert broker` only)

CULVERT_LOG=debug writes log lines to standard error.";

const SEND_HELP: &str = "\
Prints a link on standard output and serves until one receiver has everything. Whoever has the link can \
receive; the relay cannot read what passes. Keep the command running until the receiver is done.

Examples:
  culvert send --relay wss://relay.example.com holiday/ notes.txt
  tar c src | culvert send --relay wss://relay.example.com --name src.tar -
  culvert send --ticket me.ticket --keep handbook.pdf     (with CULVERT_RELAY set)";

const RECEIVE_HELP: &str = "\
Prints the received paths on standard output. If it is interrupted, on either side, run it again: what \
arrived is kept in NAME.part and only the rest is fetched.

Examples:
  culvert receive culvert:AQ...
  culvert receive culvert:AQ... --out ~/Downloads --overwrite";

const DOCTOR_HELP: &str = "\
Examples:
  culvert doctor wss://relay.example.com
  culvert doctor wss://relay.example.com --transfer    after an installation: a file must really pass

With a ticket, --transfer needs one that allows an invitation (culvert ticket issue --invites 1), because a second \
peer has to be let in.";

/// Pass files between two people behind firewalls, through a relay that cannot read them.
#[derive(Debug, Parser)]
#[command(name = "culvert", version, after_help = AFTER_HELP, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Send files, folders or standard input, and print the link to receive them.
    #[command(after_help = SEND_HELP)]
    Send(SendArgs),
    /// Receive what a link names.
    #[command(after_help = RECEIVE_HELP)]
    Receive(ReceiveArgs),
    /// Log in at a broker, so that others can find what you share.
    Login(Box<LoginArgs>),
    /// Share files through the broker, and print the link to fetch them.
    Share(Box<ShareArgs>),
    /// Take a share back.
    Unshare(Box<UnshareArgs>),
    /// List your shares, or those of others that are for you.
    Shares(Box<SharesArgs>),
    /// Fetch what somebody shared.
    Fetch(Box<FetchArgs>),
    /// Be there for those who fetch what you shared from a folder.
    Serve(Box<ServeArgs>),
    /// Say that you are online, and show who comes and what is shared.
    Online(Box<OnlineArgs>),
    /// Watch the whole path on this machine: a relay, two peers, a file, a restart in the middle.
    Demo(DemoArgs),
    /// Run a relay and a broker on this machine, with a certificate of their own, and print commands to
    /// paste.
    Dev(DevArgs),
    /// Show this machine's peer id, making a key first if there is none.
    Id(IdArgs),
    /// Make keys and admission tickets for a relay that asks for them, and revoke what should end early.
    #[command(subcommand)]
    Ticket(TicketCommand),
    /// Look at the nodes of a cluster of relays.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Find out whether, and if not why, this network lets you reach a relay.
    #[command(after_help = DOCTOR_HELP)]
    Doctor(DoctorArgs),
    /// Run a relay node; the same as the program culvert-relay. See `culvert relay --help`.
    #[command(disable_help_flag = true, disable_version_flag = true)]
    Relay {
        /// Settings of the relay.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "SETTINGS")]
        arguments: Vec<OsString>,
    },
    /// Run a broker; the same as the program culvert-broker-api. See `culvert broker --help`.
    #[command(disable_help_flag = true, disable_version_flag = true)]
    Broker {
        /// What to do, and settings of the broker.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "SETTINGS")]
        arguments: Vec<OsString>,
    },
    /// Print a completion script for a shell.
    #[command(
        after_help = "Example:\n  culvert completions bash > ~/.local/share/bash-completion/completions/culvert"
    )]
    Completions {
        /// For which shell.
        shell: Shell,
    },
}

/// How to get to the relay and in.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Network")]
pub(crate) struct NetworkArgs {
    /// Certificates (PEM) to trust on top of the system's, where the network inspects TLS or the relay
    /// has its own authority.
    #[arg(long, env = "CULVERT_CA_FILE", value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Proxy: http://, https:// or socks5h://, with user:password@ if it asks (better in the
    /// variable, which other users cannot see); or `none`. Without it
    /// HTTPS_PROXY, ALL_PROXY and NO_PROXY count.
    #[arg(long, env = "CULVERT_PROXY", value_name = "URL", hide_env_values = true)]
    pub(crate) proxy: Option<String>,
    /// Admission ticket for this machine's peer id, from the relay's operator.
    #[arg(long, env = "CULVERT_TICKET", value_name = "FILE", conflicts_with = "access_token_file")]
    pub(crate) ticket: Option<PathBuf>,
    /// File with the relay's access token.
    #[arg(long, env = "CULVERT_ACCESS_TOKEN_FILE", value_name = "FILE")]
    pub(crate) access_token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct SendArgs {
    /// What to send; `-` is standard input.
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Relay to meet at: wss://host or wss://host:port.
    #[arg(long, env = "CULVERT_RELAY", value_name = "URL")]
    pub(crate) relay: RelayUrl,
    /// Go on serving after the first receiver has everything, until Ctrl-C.
    #[arg(long)]
    pub(crate) keep: bool,
    /// What standard input is called at the receiver.
    #[arg(long, value_name = "NAME", default_value = "stdin")]
    pub(crate) name: String,
    /// Events and results as JSON, one object a line, on standard output.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ReceiveArgs {
    /// The link, as `culvert send` printed it; `-` reads it from standard input, where other users of
    /// this machine cannot see it.
    #[arg(value_name = "LINK")]
    pub(crate) link: String,
    /// Folder to write into; made if it is not there.
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub(crate) out: PathBuf,
    /// Replace files that exist and differ.
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// How many seconds to wait for the sender before giving up; without it, until Ctrl-C.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) wait: Option<u64>,
    /// Events and results as JSON, one object a line, on standard output.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// What to send; without it, this program's own file.
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// Where to listen. On anything but loopback an access token is made and asked for.
    #[arg(long, env = "CULVERT_DEV_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8443")]
    pub(crate) listen: std::net::SocketAddr,
    /// Where the broker is to listen; without it, at the next port.
    #[arg(long, env = "CULVERT_DEV_BROKER_LISTEN", value_name = "ADDRESS")]
    pub(crate) broker_listen: Option<std::net::SocketAddr>,
    /// Host names by which others will reach it, besides localhost; the certificate names them.
    #[arg(long, value_name = "HOST")]
    pub(crate) name: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct IdArgs {
    /// Show where the key is kept as well.
    #[arg(long)]
    pub(crate) show: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TicketCommand {
    /// Make the key pair that signs tickets: FILE.key stays here, FILE.pub goes to the relays.
    #[command(
        after_help = "Example:\n  culvert ticket keygen tickets\n  culvert relay --ticket-keys tickets.pub ..."
    )]
    Keygen {
        /// Path without its ending.
        #[arg(value_name = "FILE")]
        path: PathBuf,
    },
    /// Issue a ticket that lets one peer into a relay.
    #[command(
        after_help = "Example:\n  culvert ticket issue --key tickets.key --peer $(culvert id) --invites 10 --expires 8h > me.ticket"
    )]
    Issue(IssueArgs),
    /// Show what a ticket says and whether it verifies.
    Show {
        /// The ticket's file; `-` is standard input.
        #[arg(value_name = "FILE")]
        ticket: PathBuf,
        /// Public key (PEM) of the one who should have signed it.
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// Have every node of a cluster refuse a ticket or a peer, and close its connections, within a second.
    #[command(
        after_help = "Example:\n  culvert ticket revoke --peer ID --for 24h --redis redis://redis.example:6379"
    )]
    Revoke(Box<RevokeArgs>),
}

/// What to revoke.
#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    #[command(flatten)]
    pub(crate) what: RevokedArgs,
    /// For how long: 30m, 8h, 7d. Without it, until the ticket ends, where the whole ticket is given, and a
    /// day otherwise, which is as long as relays let a ticket live unless they are told.
    #[arg(long = "for", value_name = "TIME")]
    pub(crate) lasting: Option<Duration>,
    #[command(flatten)]
    pub(crate) redis: RedisArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct RevokedArgs {
    /// A ticket and every invitation under it: the ticket itself, its id (`jti` in `culvert ticket show`),
    /// or `-` for a ticket on standard input.
    #[arg(long, value_name = "TICKET")]
    pub(crate) ticket: Option<String>,
    /// Everything of a peer: its connections, its tickets and its invitations.
    #[arg(long, value_name = "ID")]
    pub(crate) peer: Option<PeerId>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Show every node: its lease, its versions, how much it carries and whether it is in touch.
    #[command(after_help = "Example:\n  culvert cluster status --redis redis://redis.example:6379")]
    Status(Box<StatusArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The answer as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) redis: RedisArgs,
}

#[derive(Debug, Args)]
pub(crate) struct IssueArgs {
    /// Private key (PEM) to sign with.
    #[arg(long, env = "CULVERT_TICKET_KEY", value_name = "FILE")]
    pub(crate) key: PathBuf,
    /// Whom it lets in: the 64 digits that `culvert id` shows there.
    #[arg(long, value_name = "ID")]
    pub(crate) peer: PeerId,
    /// Which topics it opens: `*`, or topic ids with commas. Links need `*`.
    #[arg(long, value_name = "LIST", default_value = "*")]
    pub(crate) topics: TopicList,
    /// Whose limits it shares.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(crate) tenant: String,
    /// How long it is valid: 30m, 8h, 7d. Relays refuse more than their maximum.
    #[arg(long, value_name = "TIME", default_value = "1h")]
    pub(crate) expires: Duration,
    /// How many guests may be connected at once on invitations under it; a link for people without a
    /// ticket is an invitation.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) invites: u32,
    /// Frames a second from one connection.
    #[arg(long, value_name = "NUMBER", help_heading = "Limits")]
    pub(crate) frames_per_second: Option<u32>,
    /// Payload bytes a second from one connection.
    #[arg(long, value_name = "NUMBER", help_heading = "Limits")]
    pub(crate) bytes_per_second: Option<u64>,
    /// Topics that one connection may be in.
    #[arg(long, value_name = "NUMBER", help_heading = "Limits")]
    pub(crate) topics_per_connection: Option<u16>,
    /// Connections of the peer to one node.
    #[arg(long, value_name = "NUMBER", help_heading = "Limits")]
    pub(crate) connections: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// The relay: wss://host or wss://host:port.
    #[arg(value_name = "URL", env = "CULVERT_RELAY")]
    pub(crate) relay: RelayUrl,
    /// The report as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Seconds that one stage may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) timeout: u64,
    /// Then pass a file of random bytes from one peer of this process to another, over two connections to the
    /// relay, and compare what arrives: the check of an installation.
    #[arg(long)]
    pub(crate) transfer: bool,
    /// Size of that file, such as 64KiB or 1GiB.
    #[arg(long, value_name = "SIZE", default_value = "1MiB", requires = "transfer")]
    pub(crate) transfer_size: ByteSize,
    /// Seconds that it may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "transfer")]
    pub(crate) transfer_timeout: u64,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}

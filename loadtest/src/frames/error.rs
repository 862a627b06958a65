//! How connecting fails and how connections end, each as a sentence that says what to do.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use culvert_wire::{Close, JoinRefusal};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// TCP came to nothing.
    #[error("{addr} does not answer ({source}): is the relay running, and is the address right?")]
    Unreachable {
        /// Who was tried, the last of them.
        addr: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The process may not open as many files.
    #[error("too many open files: raise the limit (ulimit -n), or spread the peers with --workers")]
    TooManyFiles,
    /// The machine has no port left from which to dial this address.
    #[error(
        "no free port from which to dial {0}: some 28,000 connections to one address are possible \
         (net.ipv4.ip_local_port_range); give several --url"
    )]
    NoPort(SocketAddr),
    /// TLS came to nothing.
    #[error(
        "no TLS with {host} ({source}): if its authority is a private one, give its certificate with --ca"
    )]
    Tls {
        /// Who was meant.
        host: String,
        /// What TLS said.
        source: io::Error,
    },
    /// HTTP said no.
    #[error("{host} refuses the upgrade with {answer:?}: {}", upgrade_advice(*.status))]
    Upgrade {
        /// Who said it.
        host: String,
        /// The status.
        status: u16,
        /// The first line of the answer.
        answer: String,
    },
    /// The relay refuses the hello.
    #[error("the relay refuses a peer as {} ({}): {reason}{}", .close.name(), .close.code(), advice(*.close))]
    Refused {
        /// Why.
        close: Close,
        /// Why, in its words.
        reason: String,
    },
    /// It ended in the middle.
    #[error(
        "the relay ended a handshake ({0}): a full node, or one that sees too many connections from one \
         address, does so; see its limits connections, connections-per-source and handshakes-per-source"
    )]
    Cut(Ended),
    /// It took too long.
    #[error("a handshake was not finished within {0:?}: the relay is overloaded or does not answer")]
    Slow(Duration),
    /// Joining a topic right after it failed.
    #[error("a peer could not join its topic: {0}")]
    Join(Ended),
    /// The load's own fault.
    #[error("{0}")]
    Own(String),
}

impl ConnectError {
    /// A short stable name, by which failures are counted.
    pub fn reason(&self) -> &'static str {
        match self {
            ConnectError::Unreachable { .. } => "unreachable",
            ConnectError::TooManyFiles => "too many open files",
            ConnectError::NoPort(_) => "no free port",
            ConnectError::Tls { .. } => "no TLS",
            ConnectError::Upgrade { status: 503, .. } => "refused with HTTP 503",
            ConnectError::Upgrade { .. } => "refused in HTTP",
            ConnectError::Refused { close, .. } => close.name(),
            ConnectError::Cut(_) => "cut in the handshake",
            ConnectError::Slow(_) => "timed out",
            ConnectError::Join(_) => "could not join",
            ConnectError::Own(_) => "fault of the load test",
        }
    }

    /// Whether the same attempt may work later.
    pub fn may_pass(&self) -> bool {
        match self {
            ConnectError::Refused { close, .. } => close.may_reconnect(),
            ConnectError::Upgrade { status, .. } => *status == 503,
            ConnectError::TooManyFiles | ConnectError::NoPort(_) | ConnectError::Own(_) => false,
            ConnectError::Join(ended) => ended.may_pass(),
            // With TLS, a relay that closes while it is overloaded looks like one that is no relay.
            ConnectError::Tls { source, .. } => source.kind() != io::ErrorKind::InvalidData,
            ConnectError::Unreachable { .. } | ConnectError::Cut(_) | ConnectError::Slow(_) => true,
        }
    }
}

fn upgrade_advice(status: u16) -> &'static str {
    match status {
        400 | 426 => "something between here and the relay changes WebSocket requests",
        404 => "is this a Culvert relay?",
        503 => "the node is going away",
        _ => "the URL must be that of a Culvert relay or of a balancer in front of some",
    }
}

fn advice(close: Close) -> &'static str {
    match close {
        Close::NotAdmitted => "; give --access-token-file or --ticket-key",
        Close::TicketInvalid => "; is --ticket-key the key whose public half the relays have?",
        Close::WrongHost => "; dial it by the name that it is known by",
        _ => "",
    }
}

/// How an admitted connection ended, or a join on it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// The relay said why.
    #[error("the relay closed the connection as {} ({}): {reason}", .close.name(), .close.code())]
    Closed {
        /// Why.
        close: Close,
        /// Why, in its words.
        reason: String,
    },
    /// With a code that this version does not know, or one of RFC 6455.
    #[error("the connection was closed with code {code}: {reason:?}")]
    ClosedOther {
        /// The code; 1005 where there was none.
        code: u16,
        /// Why, in its words.
        reason: String,
    },
    /// TCP or TLS ended.
    #[error("the connection was cut: {0}")]
    Cut(String),
    /// Not this protocol.
    #[error("the relay sent what no relay sends: {0}")]
    Nonsense(String),
    /// A join was refused.
    #[error("the relay refused a join as {}", .0.name())]
    JoinRefused(JoinRefusal),
}

impl Ended {
    /// Whether a peer that comes back may be let in.
    pub fn may_pass(&self) -> bool {
        match self {
            Ended::Closed { close, .. } => close.may_reconnect(),
            Ended::ClosedOther { code, .. } => Close::code_may_reconnect(*code),
            Ended::Cut(_) => true,
            Ended::Nonsense(_) => false,
            Ended::JoinRefused(refusal) => *refusal == JoinRefusal::Limited,
        }
    }

    /// The relay's close code, if it gave one of its own.
    pub fn close(&self) -> Option<Close> {
        match self {
            Ended::Closed { close, .. } => Some(*close),
            _ => None,
        }
    }
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Ended::Cut(error.to_string())
    }
}

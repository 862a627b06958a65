//! Everything that can go wrong before the relay's first frame, and what to do about it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::url::UrlError;

/// Why no WebSocket to the relay could be opened.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// A step took longer than it may.
    #[error("{step} took longer than {} s; something on the way may drop it silently", .limit.as_secs_f32())]
    TimedOut {
        /// Which, in words.
        step: &'static str,
        /// How long it could have taken.
        limit: Duration,
    },
    /// The name has no address.
    #[error("no address was found for `{host}`; check the name and this machine's name service")]
    Name {
        /// The name.
        host: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// No address took the connection.
    #[error("no connection to {authority}: {source}; is it up, and may this network reach that port?")]
    Tcp {
        /// Host and port.
        authority: String,
        /// Why the last address tried did not.
        source: io::Error,
    },
    /// A variable of the environment names no proxy that can be used.
    #[error("{variable}: {source}")]
    ProxyVariable {
        /// Its name.
        variable: &'static str,
        /// What is wrong with it.
        source: UrlError,
    },
    /// The proxy does not tunnel.
    #[error("the proxy {proxy} {problem}")]
    Proxy {
        /// The proxy, without its password.
        proxy: String,
        /// What it answered and what to do.
        #[source]
        problem: ProxyProblem,
    },
    /// The file with extra authorities cannot be used.
    #[error("the CA file {} {problem}", .path.display())]
    CaFile {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The system's authorities cannot be loaded.
    #[error(
        "the system's certificate authorities could not be loaded ({0}); install them (package ca-certificates) or pass a CA file"
    )]
    SystemTrust(rustls::Error),
    /// The host is no name that a certificate can be for.
    #[error("`{0}` is not a host name that a certificate can be for")]
    ServerName(String),
    /// The certificate is by an authority that is not trusted here.
    #[error(
        "the certificate of {host} is issued by \"{issuer}\", which this machine does not trust; if this \
         network inspects TLS, or the relay has its own authority, pass that authority's certificate as \
         the CA file (--ca-file)"
    )]
    UnknownIssuer {
        /// Whose certificate it should have been.
        host: String,
        /// Who issued it.
        issuer: String,
    },
    /// TLS failed in another way.
    #[error("TLS with {host}: {source}{}", tls_advice(.source))]
    Tls {
        /// With whom.
        host: String,
        /// How.
        source: io::Error,
    },
    /// The upgrade was answered with something else.
    #[error("{0}")]
    Upgrade(UpgradeProblem),
}

/// What a proxy answered.
#[derive(Debug, thiserror::Error)]
pub enum ProxyProblem {
    /// 407 without having been given anything.
    #[error("asks for a user and password{}; write them into its URL: http://user:password@host:port", offered(.schemes))]
    AuthenticationRequired {
        /// The schemes it offers.
        schemes: Vec<String>,
    },
    /// 407 in spite of user and password.
    #[error("does not accept the user and password that were given{}; check them, and write special characters percent-encoded", offered(.schemes))]
    AuthenticationRefused {
        /// The schemes it offers.
        schemes: Vec<String>,
    },
    /// 407 with schemes that are not spoken here.
    #[error("offers only {}, and this version speaks only Basic; run a local helper proxy such as px or cntlm in between", .schemes.join(", "))]
    AuthenticationUnsupported {
        /// The schemes it offers.
        schemes: Vec<String>,
    },
    /// 403.
    #[error(
        "does not allow connections to {target} (403); ask its operator to allow CONNECT to this host and port"
    )]
    Forbidden {
        /// Host and port of the relay.
        target: String,
    },
    /// 502, 503, 504.
    #[error(
        "could not reach {target} itself ({status}); check the relay's name and port, and whether it is up"
    )]
    Unreachable {
        /// Host and port of the relay.
        target: String,
        /// What it answered.
        status: u16,
    },
    /// Any other answer.
    #[error("answered {status} to CONNECT; check that it is an HTTP proxy and that this is its right port")]
    Status {
        /// What it answered.
        status: u16,
    },
    /// Not an answer at all.
    #[error("did not answer like an HTTP proxy: {0}; check its scheme and port")]
    NotHttp(&'static str),
    /// The connection broke.
    #[error("broke the connection: {0}")]
    Io(#[from] io::Error),
    /// What SOCKS said.
    #[error("refused by SOCKS: {0}")]
    Socks(tokio_socks::Error),
}

/// What was answered instead of a WebSocket.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeProblem {
    /// Another status than 101.
    #[error("{host} answered {status} instead of opening a WebSocket; {}", upgrade_advice(*.status))]
    Status {
        /// The relay's host.
        host: String,
        /// The HTTP status.
        status: u16,
    },
    /// 101, but not our protocol.
    #[error("{host} opened a WebSocket but does not speak culvert.relay.v1; is this a Culvert relay?")]
    Subprotocol {
        /// The relay's host.
        host: String,
    },
    /// Something that is no answer.
    #[error(
        "{host} broke off the WebSocket upgrade: {problem}; something on the way may not let WebSocket through"
    )]
    Broken {
        /// The relay's host.
        host: String,
        /// How.
        problem: String,
    },
}

impl DialError {
    /// Whether a node that is going away answered, so that another one may at once.
    pub fn is_sent_on(&self) -> bool {
        matches!(self, DialError::Upgrade(UpgradeProblem::Status { status: 503, .. }))
    }

    /// Whether the same attempt may succeed a moment later with nothing changed here.
    pub fn is_transient(&self) -> bool {
        match self {
            DialError::TimedOut { .. } | DialError::Tcp { .. } => true,
            DialError::Tls { source, .. } => tls_reason(source).is_none(),
            DialError::Proxy { problem, .. } => {
                matches!(problem, ProxyProblem::Unreachable { .. } | ProxyProblem::Io(_))
            }
            DialError::Upgrade(problem) => match problem {
                UpgradeProblem::Status { status, .. } => *status >= 500 || *status == 429,
                UpgradeProblem::Subprotocol { .. } => false,
                UpgradeProblem::Broken { .. } => true,
            },
            DialError::Name { .. }
            | DialError::ProxyVariable { .. }
            | DialError::CaFile { .. }
            | DialError::SystemTrust(_)
            | DialError::ServerName(_)
            | DialError::UnknownIssuer { .. } => false,
        }
    }
}

/// The TLS alert or verdict inside an I/O error; `None` where the connection just broke.
pub(crate) fn tls_reason(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn tls_advice(error: &io::Error) -> &'static str {
    use rustls::{AlertDescription, CertificateError, Error};
    match tls_reason(error) {
        Some(Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. })) => {
            "; use a name that is in the relay's certificate"
        }
        Some(Error::InvalidCertificate(CertificateError::ExpiredContext { .. })) => {
            "; check this machine's clock, or tell the relay's operator"
        }
        Some(Error::InvalidMessage(_)) => "; what answers there does not speak TLS",
        Some(Error::AlertReceived(AlertDescription::UnrecognisedName)) => "; it does not know this host name",
        _ => "",
    }
}

fn offered(schemes: &[String]) -> String {
    if schemes.is_empty() { String::new() } else { format!(" (it offers {})", schemes.join(", ")) }
}

fn upgrade_advice(status: u16) -> &'static str {
    match status {
        300..=399 => "a redirect, often the login page of this network; open a browser and log in first",
        401 | 407 => "something on the way asks for a login",
        403 => "something on the way forbids it; ask its operator to allow WebSocket to this host",
        404 => "nothing is at /v1/relay there; is this a Culvert relay's URL?",
        429 => "too many attempts; wait a little",
        500..=599 => "the relay, or the balancer in front of it, has trouble; try again later",
        _ => "something on the way may not let WebSocket through",
    }
}

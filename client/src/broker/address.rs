//! Where a broker is: one URL, from which both its WebSocket and its REST interface follow.
//!
//! Passwords, tokens and names pass over it, so plain text is refused wherever a network lies between,
//! unless the caller says otherwise in so many words.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use culvert_broker_wire::WS_PATH;
use url::Url;

use crate::dial::RelayUrl;

/// A broker's URL: `wss://host[:port][/path]/ws` or `https://host[:port][/path]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BrokerUrl {
    server: RelayUrl,
    /// What stands before `/ws` and `/api`, without a slash at its end; usually empty.
    base: String,
}

/// Text that is no broker's URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerUrlError {
    /// Not a URL, or one of something else.
    #[error("`{0}` is not a broker's URL; write wss://host/ws or https://host")]
    NotABroker(String),
    /// A query, a fragment or a user name.
    #[error("a broker's URL is wss://host[:port]/ws, without a query, fragment or user name")]
    Extra,
    /// Plain text over a network.
    #[error(
        "`{0}` is not encrypted, and whoever is on the way could read names and tokens; write wss://, or allow \
         plain text in so many words"
    )]
    PlainText(String),
}

impl BrokerUrl {
    /// The host as it is dialled: lower case, no port, no brackets.
    pub fn host(&self) -> &str {
        self.server.host()
    }

    /// Whether TLS is spoken.
    pub fn is_secure(&self) -> bool {
        self.server.is_secure()
    }

    /// Whether nobody else's network lies between: TLS, or an address of this machine.
    pub fn is_safe(&self) -> bool {
        self.is_secure() || is_loopback(self.host())
    }

    /// Refuses plain text over a network unless it is allowed.
    ///
    /// # Errors
    /// [`BrokerUrlError::PlainText`].
    pub fn checked(self, allow_plain_text: bool) -> Result<Self, BrokerUrlError> {
        if allow_plain_text || self.is_safe() {
            Ok(self)
        } else {
            Err(BrokerUrlError::PlainText(self.to_string()))
        }
    }

    /// What is dialled.
    pub(crate) fn server(&self) -> &RelayUrl {
        &self.server
    }

    /// `host:port`, as HTTP wants it.
    pub(crate) fn authority(&self) -> String {
        self.server.authority()
    }

    /// The path of the WebSocket.
    pub(crate) fn socket_path(&self) -> String {
        format!("{}{WS_PATH}", self.base)
    }

    /// A path of the REST interface.
    pub(crate) fn path(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}

impl FromStr for BrokerUrl {
    type Err = BrokerUrlError;

    fn from_str(text: &str) -> Result<Self, BrokerUrlError> {
        let wrong = || BrokerUrlError::NotABroker(text.to_owned());
        let url = Url::parse(text).map_err(|_| wrong())?;
        let scheme = match url.scheme() {
            "wss" | "https" => "wss",
            "ws" | "http" => "ws",
            _ => return Err(wrong()),
        };
        if url.query().is_some()
            || url.fragment().is_some()
            || !url.username().is_empty()
            || url.password().is_some()
        {
            return Err(BrokerUrlError::Extra);
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let server = format!("{scheme}://{host}{port}").parse().map_err(|_| wrong())?;
        let path = url.path().trim_end_matches('/');
        let base = path.strip_suffix(WS_PATH).unwrap_or(path).to_owned();
        Ok(Self { server, base })
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.server, self.socket_path())
    }
}

/// Whether a host is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_write_a_broker_mean_the_same() {
        let cases = [
            ("wss://Broker.example/ws", "wss://broker.example/ws", "/api/info"),
            ("https://broker.example", "wss://broker.example/ws", "/api/info"),
            ("https://broker.example:8443/", "wss://broker.example:8443/ws", "/api/info"),
            ("wss://broker.example/lab/ws", "wss://broker.example/lab/ws", "/lab/api/info"),
            ("http://127.0.0.1:8080", "ws://127.0.0.1:8080/ws", "/api/info"),
            ("ws://[::1]:8080/ws", "ws://[::1]:8080/ws", "/api/info"),
        ];
        for (text, shown, path) in cases {
            let url: BrokerUrl = text.parse().unwrap();
            assert_eq!((url.to_string().as_str(), url.path("/api/info").as_str()), (shown, path), "{text}");
            assert_eq!(shown.parse::<BrokerUrl>().unwrap(), url);
        }
        for bad in ["broker.example", "ftp://a", "wss://", "wss://a?x", "wss://a#x", "wss://u@a/ws"] {
            assert!(bad.parse::<BrokerUrl>().is_err(), "{bad}");
        }
    }

    /// Hole 2.b.6 of the predecessor, second half: the URL was used in clear text without a word.
    #[test]
    fn hole_2b_06_plain_text_is_refused_except_on_this_machine_or_when_it_is_allowed() {
        for there in ["ws://broker.example/ws", "http://192.168.1.50:8080", "ws://localhost.example/ws"] {
            let url: BrokerUrl = there.parse().unwrap();
            assert!(matches!(url.clone().checked(false), Err(BrokerUrlError::PlainText(_))), "{there}");
            assert!(url.checked(true).is_ok());
        }
        for here in ["ws://localhost:1/ws", "http://127.0.0.1", "ws://[::1]/ws", "wss://broker.example/ws"] {
            assert!(here.parse::<BrokerUrl>().unwrap().checked(false).is_ok(), "{here}");
        }
    }
}

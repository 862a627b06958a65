//! What can be dialled: a relay, and a proxy on the way to it.

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use url::{Host, Url};
use zeroize::Zeroizing;

/// Where a relay listens: `wss://host[:port]`, or `ws://` for plain text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RelayUrl {
    secure: bool,
    host: String,
    port: u16,
}

/// A proxy: `http://`, `https://` or `socks5h://`, with or without user and password.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl {
    scheme: ProxyScheme,
    host: String,
    port: u16,
    credentials: Option<Credentials>,
}

/// What is spoken with a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyScheme {
    /// HTTP CONNECT in clear text.
    Http,
    /// HTTP CONNECT inside TLS.
    Https,
    /// SOCKS version 5; the proxy resolves the name.
    Socks5h,
}

/// User and password for a proxy, percent-decoded.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user's name.
    pub user: Zeroizing<String>,
    /// The password, empty where none was given.
    pub password: Zeroizing<String>,
}

/// Text that is no URL of this kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not a URL at all.
    #[error("`{0}` is not a URL; write wss://host or wss://host:port")]
    NotAUrl(String),
    /// A URL of something else.
    #[error("`{0}://` is not a relay's scheme; write wss://, or ws:// for plain text")]
    RelayScheme(String),
    /// A path, query, fragment or user name.
    #[error("a relay's URL is only wss://host or wss://host:port, without {0}")]
    Extra(&'static str),
    /// Not a proxy's URL. The text is not repeated, because it may hold a password.
    #[error("the proxy is not a URL of the form http://[user:password@]host:port")]
    NotAProxy,
    /// A proxy that is not spoken with.
    #[error("`{0}://` is not a scheme of a proxy that can be used; use http://, https:// or socks5h://")]
    ProxyScheme(String),
}

impl RelayUrl {
    /// Whether TLS is spoken.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// The host as it is dialled and as the hello names it: lower case, no port, no brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, 443 or 80 where none was written.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `host:port`, an IPv6 address in brackets.
    pub fn authority(&self) -> String {
        authority(&self.host, self.port)
    }
}

impl FromStr for RelayUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let url = Url::parse(text).map_err(|_| UrlError::NotAUrl(text.to_owned()))?;
        let secure = match url.scheme() {
            "wss" => true,
            "ws" => false,
            other => return Err(UrlError::RelayScheme(other.to_owned())),
        };
        let extras = [
            ("a path", !matches!(url.path(), "" | "/")),
            ("a query", url.query().is_some()),
            ("a fragment", url.fragment().is_some()),
            ("a user name", !url.username().is_empty() || url.password().is_some()),
        ];
        if let Some((extra, _)) = extras.into_iter().find(|(_, present)| *present) {
            return Err(UrlError::Extra(extra));
        }
        let host = bare_host(&url).ok_or_else(|| UrlError::NotAUrl(text.to_owned()))?;
        let port = url.port_or_known_default().unwrap_or(443);
        Ok(Self { secure, host, port })
    }
}

impl fmt::Display for RelayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, usual) = if self.secure { ("wss", 443) } else { ("ws", 80) };
        let authority = self.authority();
        let shown =
            if self.port == usual { authority.trim_end_matches(&format!(":{usual}")) } else { &authority };
        write!(f, "{scheme}://{shown}")
    }
}

impl ProxyUrl {
    /// What is spoken with it.
    pub fn scheme(&self) -> ProxyScheme {
        self.scheme
    }

    /// Its host, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its port; 80, 443 or 1080 where none was written.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// User and password, if given.
    pub fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }
}

impl FromStr for ProxyUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        // As with curl, `host:port` without a scheme means HTTP.
        let owned;
        let text = if text.contains("://") {
            text
        } else {
            owned = Zeroizing::new(format!("http://{text}"));
            &owned
        };
        let url = Url::parse(text).map_err(|_| UrlError::NotAProxy)?;
        let (scheme, usual) = match url.scheme() {
            "http" => (ProxyScheme::Http, 80),
            "https" => (ProxyScheme::Https, 443),
            // The name goes to the proxy either way: resolving it here would fail on networks whose
            // own name service does not know the outside.
            "socks5h" | "socks5" => (ProxyScheme::Socks5h, 1080),
            other => return Err(UrlError::ProxyScheme(other.to_owned())),
        };
        let host = bare_host(&url).filter(|host| !host.is_empty()).ok_or(UrlError::NotAProxy)?;
        let credentials = (!url.username().is_empty() || url.password().is_some()).then(|| Credentials {
            user: decoded(url.username()),
            password: decoded(url.password().unwrap_or_default()),
        });
        Ok(Self { scheme, host, port: url.port().unwrap_or(usual), credentials })
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            ProxyScheme::Http => "http",
            ProxyScheme::Https => "https",
            ProxyScheme::Socks5h => "socks5h",
        };
        write!(f, "{scheme}://{}", authority(&self.host, self.port))
    }
}

/// Without user and password, as in [`fmt::Display`].
impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProxyUrl({self})")
    }
}

/// `host:port`, with an IPv6 address in brackets.
pub(crate) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn bare_host(url: &Url) -> Option<String> {
    Some(match url.host()? {
        Host::Domain(name) => name.to_ascii_lowercase(),
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => address.to_string(),
    })
}

fn decoded(text: &str) -> Zeroizing<String> {
    Zeroizing::new(percent_decode_str(text).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_is_a_scheme_a_host_and_a_port() {
        let cases = [
            ("wss://Relay.Example", true, "relay.example", 443, "wss://relay.example"),
            ("ws://relay.example/", false, "relay.example", 80, "ws://relay.example"),
            ("wss://[2001:DB8::1]:8443", true, "2001:db8::1", 8443, "wss://[2001:db8::1]:8443"),
            ("wss://[2001:db8::1]", true, "2001:db8::1", 443, "wss://[2001:db8::1]"),
            ("ws://127.0.0.1:4430", false, "127.0.0.1", 4430, "ws://127.0.0.1:4430"),
            ("wss://bücher.example", true, "xn--bcher-kva.example", 443, "wss://xn--bcher-kva.example"),
        ];
        for (text, secure, host, port, shown) in cases {
            let url: RelayUrl = text.parse().unwrap();
            assert_eq!((url.is_secure(), url.host(), url.port()), (secure, host, port), "{text}");
            assert_eq!(url.to_string(), shown);
            assert_eq!(shown.parse(), Ok(url));
        }
    }

    #[test]
    fn anything_else_is_refused_with_what_to_write() {
        for text in [
            "relay.example",
            "https://relay.example",
            "wss://",
            "wss://a/v1/relay",
            "wss://a?x",
            "wss://a#x",
            "wss://u@a",
        ] {
            let error = text.parse::<RelayUrl>().unwrap_err().to_string();
            assert!(error.contains("wss://"), "{text}: {error}");
        }
    }

    #[test]
    fn credentials_of_a_proxy_are_decoded_and_never_printed() {
        let url: ProxyUrl = "http://us%2Fer:p%3Aa%2Bs+s%2F%C3%BC@Proxy.example:3128".parse().unwrap();
        let credentials = url.credentials().unwrap();
        assert_eq!(credentials.user.as_str(), "us/er");
        assert_eq!(credentials.password.as_str(), "p:a+s+s/ü");
        assert_eq!(format!("{url} {url:?}"), "http://proxy.example:3128 ProxyUrl(http://proxy.example:3128)");
    }

    #[test]
    fn a_proxy_needs_no_scheme_and_has_the_usual_ports() {
        let cases = [
            ("proxy:3128", ProxyScheme::Http, "proxy", 3128),
            ("http://proxy", ProxyScheme::Http, "proxy", 80),
            ("https://proxy", ProxyScheme::Https, "proxy", 443),
            ("socks5://proxy", ProxyScheme::Socks5h, "proxy", 1080),
            ("socks5h://[::1]:80", ProxyScheme::Socks5h, "::1", 80),
        ];
        for (text, scheme, host, port) in cases {
            let url: ProxyUrl = text.parse().unwrap();
            assert_eq!((url.scheme(), url.host(), url.port()), (scheme, host, port), "{text}");
        }
        for text in ["", "ftp://proxy", "socks4://proxy", "http://"] {
            assert!(text.parse::<ProxyUrl>().is_err(), "{text}");
        }
    }
}

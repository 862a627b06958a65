//! Which proxy, if any, leads to a relay: the option, or `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`.
//!
//! The variables mean what curl takes them to mean: lower case before upper case, an empty one is
//! unset, `NO_PROXY` is a list of host names with their subdomains, addresses, networks in CIDR
//! notation and `*`, each with or without a port. One difference: a proxy that cannot be used is an
//! error, where curl would guess, because going around a proxy silently is worse than saying so.

use std::net::IpAddr;

use ipnet::IpNet;

use super::error::DialError;
use super::url::{ProxyUrl, RelayUrl};
use crate::options::ProxyChoice;

/// A proxy and what chose it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChosenProxy {
    pub(crate) url: ProxyUrl,
    /// The variable's name, or `the proxy option`.
    pub(crate) origin: &'static str,
}

/// The proxy for `relay`; `variable` reads the environment.
pub(crate) fn choose(
    choice: &ProxyChoice,
    relay: &RelayUrl,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<ChosenProxy>, DialError> {
    match choice {
        ProxyChoice::Direct => Ok(None),
        ProxyChoice::Through(url) => Ok(Some(ChosenProxy { url: url.clone(), origin: "the proxy option" })),
        ProxyChoice::Environment => from_environment(relay, variable),
    }
}

/// What [`choose`] reads outside of tests.
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn from_environment(
    relay: &RelayUrl,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<ChosenProxy>, DialError> {
    let set =
        |name: &'static str| variable(name).filter(|value| !value.is_empty()).map(|value| (name, value));
    // In a CGI program, HTTP_PROXY is a header of the request and must not be believed.
    let plain: &[&'static str] =
        if variable("REQUEST_METHOD").is_some() { &["http_proxy"] } else { &["http_proxy", "HTTP_PROXY"] };
    let own: &[&'static str] = if relay.is_secure() { &["https_proxy", "HTTPS_PROXY"] } else { plain };
    let Some((origin, value)) = own.iter().chain(&["all_proxy", "ALL_PROXY"]).find_map(|name| set(name))
    else {
        return Ok(None);
    };
    if let Some((_, exceptions)) = set("no_proxy").or_else(|| set("NO_PROXY"))
        && is_exempt(&exceptions, relay.host(), relay.port())
    {
        return Ok(None);
    }
    let url = value.parse().map_err(|source| DialError::ProxyVariable { variable: origin, source })?;
    Ok(Some(ChosenProxy { url, origin }))
}

/// Whether a list as in `NO_PROXY` names this host and port.
fn is_exempt(exceptions: &str, host: &str, port: u16) -> bool {
    let host = host.trim_end_matches('.');
    exceptions
        .split([',', ' ', '\t'])
        .filter(|entry| !entry.is_empty())
        .any(|entry| entry == "*" || entry_matches(entry, host, port))
}

fn entry_matches(entry: &str, host: &str, port: u16) -> bool {
    let (name, only_port) = split_port(entry);
    if only_port.is_some_and(|only| only != port) {
        return false;
    }
    match host.parse::<IpAddr>() {
        Ok(address) => match name.parse::<IpNet>() {
            Ok(network) => network.contains(&address),
            Err(_) => name.parse() == Ok(address),
        },
        Err(_) => {
            // `example.com`, `.example.com` and `*.example.com` all mean the domain and what is below.
            let name = name.strip_prefix('*').unwrap_or(name).trim_start_matches('.').trim_end_matches('.');
            let host = host.to_ascii_lowercase();
            let name = name.to_ascii_lowercase();
            !name.is_empty()
                && host.strip_suffix(&name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        }
    }
}

/// Takes a port off `host:port` and `[address]:port`; a bare IPv6 address has none.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    if let Some(rest) = entry.strip_prefix('[')
        && let Some((address, after)) = rest.split_once(']')
    {
        return (address, after.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match entry.split_once(':') {
        Some((name, port)) if !port.contains(':') => match port.parse() {
            Ok(port) => (name, Some(port)),
            Err(_) => (entry, None),
        },
        _ => (entry, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(variables: &[(&str, &str)], relay: &str) -> Option<(String, &'static str)> {
        let read =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let chosen = choose(&ProxyChoice::Environment, &relay.parse().unwrap(), read).unwrap();
        chosen.map(|proxy| (proxy.url.to_string(), proxy.origin))
    }

    #[test]
    fn each_scheme_has_its_variable_and_lower_case_comes_first() {
        let all = [
            ("https_proxy", "http://low:1"),
            ("HTTPS_PROXY", "http://up:2"),
            ("HTTP_PROXY", "http://plain:3"),
            ("ALL_PROXY", "socks5h://all:4"),
        ];
        let relay = "wss://relay.example";
        assert_eq!(chosen(&all, relay), Some(("http://low:1".into(), "https_proxy")));
        assert_eq!(chosen(&all[1..], relay), Some(("http://up:2".into(), "HTTPS_PROXY")));
        assert_eq!(chosen(&all[2..], relay), Some(("socks5h://all:4".into(), "ALL_PROXY")));
        assert_eq!(chosen(&all, "ws://relay.example"), Some(("http://plain:3".into(), "HTTP_PROXY")));
        assert_eq!(chosen(&[], relay), None);
        let empty = [("https_proxy", ""), ("HTTPS_PROXY", "up:2")];
        assert_eq!(chosen(&empty, relay), Some(("http://up:2".into(), "HTTPS_PROXY")));
        let cgi = [("REQUEST_METHOD", "GET"), ("HTTP_PROXY", "http://evil:1")];
        assert_eq!(chosen(&cgi, "ws://relay.example"), None);
    }

    #[test]
    fn exceptions_are_names_networks_and_ports() {
        let cases = [
            ("relay.example", "wss://relay.example", true),
            ("EXAMPLE", "wss://relay.example", true),
            (".example", "wss://relay.example", true),
            ("*.example", "wss://relay.example", true),
            ("other, relay.example", "wss://relay.example", true),
            ("other relay.example", "wss://relay.example", true),
            ("lay.example", "wss://relay.example", false),
            ("relay.example.org", "wss://relay.example", false),
            ("*", "wss://relay.example", true),
            ("", "wss://relay.example", false),
            (".", "wss://relay.example", false),
            ("relay.example:443", "wss://relay.example", true),
            ("relay.example:8443", "wss://relay.example", false),
            ("10.0.0.0/8", "wss://10.1.2.3", true),
            ("10.0.0.0/8", "wss://11.1.2.3", false),
            ("10.1.2.3", "wss://10.1.2.3:8443", true),
            ("10.1.2.3:443", "wss://10.1.2.3:8443", false),
            ("2001:db8::/32", "wss://[2001:db8::5]", true),
            ("2001:db8::5", "wss://[2001:db8::5]", true),
            ("[2001:db8::5]:443", "wss://[2001:db8::5]", true),
            ("[2001:db8::5]:444", "wss://[2001:db8::5]", false),
        ];
        for (exceptions, relay, exempt) in cases {
            for name in ["no_proxy", "NO_PROXY"] {
                let variables = [("HTTPS_PROXY", "http://proxy:1"), (name, exceptions)];
                assert_eq!(chosen(&variables, relay).is_none(), exempt, "{name}={exceptions} {relay}");
            }
        }
    }

    #[test]
    fn the_option_wins_over_the_environment() {
        let relay = "wss://relay.example".parse().unwrap();
        let read = |_: &str| Some("http://environment:1".to_owned());
        assert_eq!(choose(&ProxyChoice::Direct, &relay, read).unwrap(), None);
        let through = ProxyChoice::Through("http://option:2".parse().unwrap());
        let chosen = choose(&through, &relay, read).unwrap().unwrap();
        assert_eq!((chosen.url.to_string().as_str(), chosen.origin), ("http://option:2", "the proxy option"));
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_an_error_and_never_a_way_around_it() {
        let relay = "wss://relay.example".parse().unwrap();
        let read = |name: &str| (name == "HTTPS_PROXY").then(|| "socks4://u:hunter2@proxy".to_owned());
        let error = choose(&ProxyChoice::Environment, &relay, read).unwrap_err().to_string();
        assert_eq!(
            error,
            "HTTPS_PROXY: `socks4://` is not a scheme of a proxy that can be used; use http://, https:// or socks5h://"
        );
    }
}

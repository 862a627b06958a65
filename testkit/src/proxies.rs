//! The proxies that stand between people and port 443: the real programs, as child processes.
//!
//! `test.sh` installs them; a test that needs one that is missing fails and says what to install.

mod mitmproxy;
mod socks;
mod squid;

pub use mitmproxy::{MITMDUMP, Mitmproxy};
pub use socks::Socks;
pub use squid::Squid;

/// A name and a password for a proxy.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Without a colon, by RFC 7617.
    pub user: String,
    /// Anything.
    pub password: String,
}

impl Credentials {
    /// Both of them.
    pub fn new(user: &str, password: &str) -> Self {
        Self { user: user.to_owned(), password: password.to_owned() }
    }

    /// As the user part of a URL, percent-encoded as UTF-8 (RFC 3986 section 2.1).
    pub fn in_url(&self) -> String {
        let encode = |text: &str| -> String {
            let one = |byte: u8| {
                if byte.is_ascii_alphanumeric() { char::from(byte).into() } else { format!("%{byte:02X}") }
            };
            text.bytes().map(one).collect()
        };
        format!("{}:{}", encode(&self.user), encode(&self.password))
    }
}

/// The URL of a proxy on loopback, with credentials where there are some.
fn url(scheme: &str, port: u16, credentials: Option<&Credentials>) -> String {
    let user = credentials.map(|c| c.in_url() + "@").unwrap_or_default();
    format!("{scheme}://{user}127.0.0.1:{port}")
}

#[cfg(test)]
mod tests;

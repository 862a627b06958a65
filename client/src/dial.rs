//! From a URL to an open WebSocket: name, address, proxy, TLS, upgrade.

pub mod url;

pub use url::{Credentials, ProxyScheme, ProxyUrl, RelayUrl, UrlError};

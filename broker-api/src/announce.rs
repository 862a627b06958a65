//! The broker on the local network.
use std::net::SocketAddr;

use culvert_service_kit::tls::Certificates;

use crate::config::Config;
/// Announces until dropped.
pub(crate) async fn run(
    _config: &Config,
    _address: Option<SocketAddr>,
    _certificates: Option<&Certificates>,
) {
    std::future::pending().await
}

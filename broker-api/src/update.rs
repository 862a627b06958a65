//! Whether there is a newer version.
use crate::config::Config;
/// Asks until dropped.
pub(crate) async fn watch(_config: &Config) {
    std::future::pending().await
}

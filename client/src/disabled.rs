//! The transport of an application that stays local.

use anyhow::bail;
use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::transport::{Connection, PeerInfo, TopicHash, Transport};

/// No network: announcing does nothing, looking up finds nobody, connecting is an error.
#[derive(Debug, Clone, Copy, Default)]
pub struct DisabledTransport;

impl DisabledTransport {
    /// A transport that reaches nobody.
    pub fn new() -> Self {
        Self
    }
}

#[async_trait]
impl Transport for DisabledTransport {
    async fn connect(&mut self, _topic: TopicHash) -> anyhow::Result<mpsc::Receiver<Box<dyn Connection>>> {
        bail!("sync is disabled; choose the mode `relay` to reach other peers");
    }

    async fn announce(&mut self, _topic: TopicHash) -> anyhow::Result<()> {
        Ok(())
    }

    async fn lookup(&self, _topic: TopicHash) -> anyhow::Result<Vec<PeerInfo>> {
        Ok(Vec::new())
    }

    async fn disconnect(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    fn name(&self) -> &str {
        "disabled"
    }
}

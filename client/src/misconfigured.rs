//! The transport of a configuration that makes no sense: it says why, whatever it is asked.
//!
//! `create_transport` cannot fail by its signature, so the reason waits for the first call.

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::config::ConfigError;
use crate::transport::{Connection, PeerInfo, TopicHash, Transport};

pub(crate) struct Misconfigured {
    reason: ConfigError,
}

impl Misconfigured {
    pub(crate) fn new(reason: ConfigError) -> Self {
        Self { reason }
    }

    fn answer<T>(&self) -> anyhow::Result<T> {
        Err(self.reason.clone().into())
    }
}

#[async_trait]
impl Transport for Misconfigured {
    async fn connect(&mut self, _topic: TopicHash) -> anyhow::Result<mpsc::Receiver<Box<dyn Connection>>> {
        self.answer()
    }

    async fn announce(&mut self, _topic: TopicHash) -> anyhow::Result<()> {
        self.answer()
    }

    async fn lookup(&self, _topic: TopicHash) -> anyhow::Result<Vec<PeerInfo>> {
        self.answer()
    }

    async fn disconnect(&mut self) -> anyhow::Result<()> {
        self.answer()
    }

    fn name(&self) -> &str {
        "misconfigured"
    }
}

//! How a relay reaches a Redis, as its settings say it.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::relay::RelayPlan;

/// What kind of Redis it is: the relay's setting `redis-mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One server.
    Standalone,
    /// A master that Sentinels name.
    Sentinel,
    /// Masters that share the slots.
    Cluster,
}

/// How a relay reaches a Redis.
#[derive(Debug, Clone)]
pub struct Reach {
    pub(super) mode: Mode,
    pub(super) servers: Vec<SocketAddr>,
    /// The name under which Sentinels know the master.
    pub(super) master: Option<String>,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    /// The authority of its certificates, when it speaks TLS.
    pub(super) ca: Option<PathBuf>,
}

impl Reach {
    pub(super) fn new(mode: Mode, servers: Vec<SocketAddr>) -> Self {
        Self { mode, servers, master: None, user: None, password: None, ca: None }
    }

    /// As this user.
    #[must_use]
    pub fn user(mut self, name: &str) -> Self {
        self.user = Some(name.to_owned());
        self
    }

    /// With this password.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// Through a proxy in front of a standalone server.
    #[must_use]
    pub fn through(mut self, proxy: SocketAddr) -> Self {
        self.servers = vec![proxy];
        self
    }

    /// What kind of Redis it is.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The servers that a relay is told of.
    pub fn servers(&self) -> &[SocketAddr] {
        &self.servers
    }

    /// Their URLs, without a password, separated by commas.
    pub fn url(&self) -> String {
        let scheme = if self.ca.is_some() { "rediss" } else { "redis" };
        let urls: Vec<String> = self.servers.iter().map(|server| format!("{scheme}://{server}")).collect();
        urls.join(",")
    }

    /// Adds it to what a relay is started with.
    pub(crate) fn apply(&self, mut plan: RelayPlan) -> RelayPlan {
        let mode = match self.mode {
            Mode::Standalone => "standalone",
            Mode::Sentinel => "sentinel",
            Mode::Cluster => "cluster",
        };
        plan = plan.set("redis", self.url()).set("redis-mode", mode);
        if let Some(master) = &self.master {
            plan = plan.set("redis-sentinel-master", master);
        }
        if let Some(user) = &self.user {
            plan = plan.set("redis-user", user);
        }
        if let Some(password) = &self.password {
            plan = plan.env("CULVERT_RELAY_REDIS_PASSWORD", password);
        }
        if let Some(ca) = &self.ca {
            plan = plan.set("redis-ca", ca);
        }
        plan
    }
}

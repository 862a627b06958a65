//! The relays that are loaded: reached where they are, or started here.
//!
//! A spawned target is N relays as child processes, from two on with one Redis and one haproxy in front of
//! them. Whoever makes faults kills, stops and starts its parts through the same [`Target`] that whoever
//! watches them reads the pids from. Nothing that was started outlives it.

mod limits;
mod spawned;

use std::time::Duration;

use anyhow::{Context, Result};

use crate::plan::Reach;
use crate::report::Role;

pub use limits::{RelaySetting, TooFew, ensure_open_files, ensure_ports};
pub use spawned::Spawn;
use spawned::Spawned;

/// The relays that are loaded. All calls are for any number of tasks at a time; those that change the same
/// part wait for each other.
pub struct Target {
    reach: Reach,
    description: String,
    spawned: Option<Spawned>,
}

/// A process of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// What it is for.
    pub role: Role,
    /// Its name: relay 1.
    pub name: String,
    /// Its pid now, if it runs.
    pub pid: Option<u32>,
}

impl Target {
    /// Relays that are there already.
    pub fn existing(reach: Reach) -> Self {
        let urls: Vec<&str> = reach.urls.iter().map(url::Url::as_str).collect();
        Self { description: urls.join(", "), reach, spawned: None }
    }

    /// Starts relays, and what they need to be a cluster, and waits until all of it is ready.
    ///
    /// # Errors
    /// Something does not start, and the error shows what it printed; or Redis or haproxy is not installed
    /// ([`Missing`](culvert_testkit::binaries::Missing)).
    pub async fn spawn(spawn: &Spawn) -> Result<Self> {
        let (spawned, reach) = Spawned::start(spawn).await?;
        let security = if spawn.tls { "TLS" } else { "clear text" };
        let description = match spawn.relays {
            1 => format!("1 relay on this machine, {security}"),
            relays => format!("{relays} relays with Redis behind haproxy on this machine, {security}"),
        };
        Ok(Self { reach, description, spawned: Some(spawned) })
    }

    /// How peers get there.
    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    /// What it is, in a line.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// How many relays can be killed, stopped and started; none of those that were there already.
    pub fn relays(&self) -> usize {
        self.spawned.as_ref().map_or(0, Spawned::relays)
    }

    /// Whether there is a Redis that can be killed, stopped and started.
    pub fn has_redis(&self) -> bool {
        self.spawned.as_ref().is_some_and(Spawned::has_redis)
    }

    /// The processes that were started, with their pids of now; never waits.
    pub fn members(&self) -> Vec<Member> {
        self.spawned.as_ref().map_or_else(Vec::new, Spawned::members)
    }

    /// `kill -9` of a relay, by its index from 0.
    ///
    /// # Errors
    /// There is no such relay, or it does not run.
    pub async fn kill(&self, relay: usize) -> Result<()> {
        self.spawned()?.kill(relay).await
    }

    /// Starts a relay that was killed or drained, on its old ports; returns when it is ready, and when the
    /// balancer gives it peers.
    ///
    /// # Errors
    /// It runs, or does not become ready within a minute, as without Redis; the error shows its output.
    pub async fn start(&self, relay: usize) -> Result<()> {
        self.spawned()?.start_relay(relay).await
    }

    /// `SIGSTOP` to a relay: its connections stay up, and nothing answers.
    ///
    /// # Errors
    /// There is no such relay, or it does not run.
    pub async fn pause(&self, relay: usize) -> Result<()> {
        self.spawned()?.pause(relay).await
    }

    /// `SIGCONT` to a relay.
    ///
    /// # Errors
    /// There is no such relay, or it does not run.
    pub async fn resume(&self, relay: usize) -> Result<()> {
        self.spawned()?.resume(relay).await
    }

    /// `SIGTERM` to a relay; returns when it has drained and ended with success. [`Target::start`] it then.
    ///
    /// # Errors
    /// It does not run, does not end within `deadline`, or ends otherwise; the error shows its output.
    pub async fn drain(&self, relay: usize, deadline: Duration) -> Result<()> {
        self.spawned()?.drain(relay, deadline).await
    }

    /// `kill -9` of Redis; its data is gone.
    ///
    /// # Errors
    /// There is no Redis, or it does not run.
    pub async fn kill_redis(&self) -> Result<()> {
        self.spawned()?.kill_redis().await
    }

    /// Starts a killed Redis, empty, on the same port; returns when it answers.
    ///
    /// # Errors
    /// There is no Redis, it runs, or does not start.
    pub async fn start_redis(&self) -> Result<()> {
        self.spawned()?.start_redis().await
    }

    /// `SIGSTOP` to Redis: its connections stay up, and nothing answers.
    ///
    /// # Errors
    /// There is no Redis, or it does not run.
    pub async fn pause_redis(&self) -> Result<()> {
        self.spawned()?.pause_redis().await
    }

    /// `SIGCONT` to Redis.
    ///
    /// # Errors
    /// There is no Redis, or it does not run.
    pub async fn resume_redis(&self) -> Result<()> {
        self.spawned()?.resume_redis().await
    }

    /// What is not well now, a sentence each: parts that do not run, do not answer, or are not used by the
    /// balancer. Nothing is said about relays that were there already.
    pub async fn ill(&self) -> Vec<String> {
        match &self.spawned {
            Some(spawned) => spawned.ill().await,
            None => Vec::new(),
        }
    }

    fn spawned(&self) -> Result<&Spawned> {
        self.spawned.as_ref().context("the relays were not started by this run: use --spawn")
    }
}

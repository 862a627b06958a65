//! A relay that comes and goes on the same ports.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::server::{RelayPlan, RelayProcess};

/// A relay that may be running or not; killed when dropped.
pub struct RelayNode {
    scheme: &'static str,
    state: State,
}

#[expect(clippy::large_enum_variant, reason = "there is one for each node")]
enum State {
    Running(RelayProcess),
    Stopped(RelayPlan),
    /// An attempt to start or to stop it failed, and the test with it.
    Lost,
}

impl RelayNode {
    /// One that does not run yet.
    pub fn new(plan: RelayPlan) -> Self {
        Self { scheme: plan.scheme(), state: State::Stopped(plan) }
    }

    /// The scheme of its URL.
    pub fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// The process.
    ///
    /// # Errors
    /// It does not run.
    pub fn running(&self) -> Result<&RelayProcess> {
        if let State::Running(relay) = &self.state { Some(relay) } else { None }.context("it does not run")
    }

    /// The process, to wait for what it prints.
    ///
    /// # Errors
    /// It does not run.
    pub fn running_mut(&mut self) -> Result<&mut RelayProcess> {
        if let State::Running(relay) = &mut self.state { Some(relay) } else { None }
            .context("it does not run")
    }

    /// Starts it and waits until it accepts peers.
    ///
    /// # Errors
    /// It runs already, or does not start; the error shows its output.
    pub async fn start(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.state, State::Lost) {
            State::Stopped(plan) => self.state = State::Running(plan.start().await?),
            state => {
                self.state = state;
                bail!("it runs already");
            }
        }
        Ok(())
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// It does not run.
    pub async fn kill(&mut self) -> Result<()> {
        self.state = State::Stopped(self.take()?.kill().await?);
        Ok(())
    }

    /// `SIGTERM`; returns when it has drained and ended with success.
    ///
    /// # Errors
    /// It does not run, does not end within `deadline`, or ends otherwise; the error shows its output.
    pub async fn drain(&mut self, deadline: Duration) -> Result<()> {
        self.state = State::Stopped(self.take()?.drain(deadline).await?);
        Ok(())
    }

    fn take(&mut self) -> Result<RelayProcess> {
        match std::mem::replace(&mut self.state, State::Lost) {
            State::Running(relay) => Ok(relay),
            state => {
                self.state = state;
                bail!("it does not run")
            }
        }
    }
}

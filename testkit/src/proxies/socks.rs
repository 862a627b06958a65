//! microsocks, a SOCKS5 server.

use std::time::Duration;

use anyhow::Result;

use super::{Credentials, url};
use crate::binaries::installed;
use crate::process::{Plan, Process, free_port};

/// It only binds a port.
const READY: Duration = Duration::from_secs(30);

/// A SOCKS5 proxy (RFC 1928) that resolves names itself and prints where it connected.
pub struct Socks {
    port: u16,
    credentials: Option<Credentials>,
    process: Process,
}

impl Socks {
    /// Starts it, with username and password (RFC 1929) where there are credentials.
    ///
    /// # Errors
    /// microsocks is not installed, or does not start.
    pub async fn start(credentials: Option<Credentials>) -> Result<Self> {
        let port = free_port()?;
        let mut plan = Plan::new("microsocks", installed(&["/usr/bin/microsocks"], "microsocks")?).args([
            "-i",
            "127.0.0.1",
            "-p",
            &port.to_string(),
        ]);
        if let Some(credentials) = &credentials {
            plan = plan.args(["-u", &credentials.user, "-P", &credentials.password]);
        }
        let mut process = plan.start()?;
        process.answers(([127, 0, 0, 1], port).into(), READY).await?;
        Ok(Self { port, credentials, process })
    }

    /// Its URL with scheme `socks5h`: names are resolved by the proxy.
    pub fn url(&self) -> String {
        url("socks5h", self.port, self.credentials.as_ref())
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Waits until it has connected somebody to `host:port`, as the client spelled them.
    ///
    /// # Errors
    /// It has not after 10 s; the error shows what it printed.
    pub async fn connected(&self, target: &str) -> Result<()> {
        let wanted = format!("connected to {target}");
        self.process.line(Duration::from_secs(10), |line| line.contains(&wanted).then_some(())).await
    }
}

//! mitmproxy, which breaks TLS open as inspecting firewalls do.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::{Credentials, url};
use crate::binaries::{installed, workspace};
use crate::process::{Plan, Process, free_port};

/// The variable that names `mitmdump` where it is not in the usual places.
pub const MITMDUMP: &str = "CULVERT_MITMDUMP";

/// Python starts slowly, and the first start makes the authority's key.
const READY: Duration = Duration::from_secs(120);

/// An HTTP proxy that shows clients certificates of its own authority.
pub struct Mitmproxy {
    port: u16,
    credentials: Option<Credentials>,
    folder: TempDir,
    process: Process,
}

impl Mitmproxy {
    /// Starts it with a fresh authority. It trusts `upstream_ca` and nobody else for what is behind it.
    ///
    /// # Errors
    /// mitmdump is not installed, or does not start.
    pub async fn start(upstream_ca: &Path, credentials: Option<Credentials>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("culvert-mitmproxy-").tempdir()?;
        let port = free_port()?;
        let option = |name: &str, value: &Path| format!("{name}={}", value.display());
        let mut plan = Plan::new("mitmdump", mitmdump()?)
            .args(["--listen-host", "127.0.0.1", "--listen-port", &port.to_string()])
            .args(["--set", &option("confdir", folder.path())])
            .args(["--set", &option("ssl_verify_upstream_trusted_ca", upstream_ca)])
            .args(["--set", "termlog_verbosity=info", "--set", "flow_detail=1"])
            .env("PYTHONUNBUFFERED", "1");
        if let Some(credentials) = &credentials {
            plan = plan.args(["--proxyauth", &format!("{}:{}", credentials.user, credentials.password)]);
        }
        let process = plan.start()?;
        process.line(READY, |line| line.contains("listening at").then_some(())).await?;
        Ok(Self { port, credentials, folder, process })
    }

    /// Its URL, with the credentials it was started with.
    pub fn url(&self) -> String {
        url("http", self.port, self.credentials.as_ref())
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The certificate of its authority, PEM; the subject is `CN=mitmproxy, O=mitmproxy`.
    pub fn ca_path(&self) -> PathBuf {
        self.folder.path().join("mitmproxy-ca-cert.pem")
    }

    /// The process, for signals and output.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// Where `test.sh` installs it, or Debian.
fn mitmdump() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(MITMDUMP) {
        return Ok(path.into());
    }
    let own = workspace().join("target/test-tools/mitmproxy/bin/mitmdump");
    let own = own.to_str().context("the workspace's path is no UTF-8")?;
    Ok(installed(&[own, "/usr/bin/mitmdump"], "mitmproxy")?)
}

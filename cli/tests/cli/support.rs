//! Homes, relays and files for the tests of the program.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use culvert_testkit::certs::{Leaf, TestCa};
use culvert_testkit::process::{Plan, Process, Source, free_port};
use tempfile::TempDir;

/// More than anything here should take, on a machine that is busy with other tests.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// A user's home: keys, and files to send and receive.
pub(crate) struct Home {
    folder: TempDir,
}

impl Home {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self { folder: TempDir::new()? })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file of this many bytes, which depend on its name and size.
    pub(crate) fn file(&self, name: &str, len: usize) -> Result<PathBuf> {
        let path = self.path(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&path, content(len))?;
        Ok(path)
    }

    /// `culvert` with these arguments, in this home.
    pub(crate) fn culvert<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Plan {
        self.run(env!("CARGO_BIN_EXE_culvert")).args(args)
    }

    /// A program in this home.
    pub(crate) fn run(&self, program: &str) -> Plan {
        Plan::new("culvert", program)
            .current_dir(self.folder.path())
            .env("HOME", self.folder.path())
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("XDG_DATA_HOME", self.path("data"))
    }

    /// Runs `culvert` to its end: exit code, standard output, standard error.
    pub(crate) async fn ends<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> Result<(i32, String, String)> {
        let mut process = self.culvert(args).start()?;
        ended(&mut process).await
    }

    /// This user's peer id.
    pub(crate) async fn id(&self) -> Result<String> {
        Ok(self.ends(["id"]).await?.1.trim().to_owned())
    }
}

/// Waits for the end: exit code, standard output, standard error.
pub(crate) async fn ended(process: &mut Process) -> Result<(i32, String, String)> {
    let status = process.wait(LONG).await?;
    let output = process.output();
    Ok((
        status.code().context("ended by a signal")?,
        output.text(Source::Stdout),
        output.text(Source::Stderr),
    ))
}

/// Bytes that look random and are the same for the same length.
pub(crate) fn content(len: usize) -> Vec<u8> {
    let mut state = len as u64 + 1;
    let next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// `culvert relay` as a process of its own, on a port that stays.
pub(crate) struct Relay {
    address: SocketAddr,
    flags: Vec<String>,
    process: Option<Process>,
    ca: TestCa,
    leaf: Leaf,
    home: Home,
}

impl Relay {
    pub(crate) async fn start(flags: &[&str]) -> Result<Self> {
        let ca = TestCa::new("culvert test authority")?;
        let leaf = ca.loopback()?;
        let mut relay = Self {
            address: ([127, 0, 0, 1], free_port()?).into(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            process: None,
            ca,
            leaf,
            home: Home::new()?,
        };
        relay.again().await?;
        Ok(relay)
    }

    /// Starts it (again), on the same port with the same certificate.
    pub(crate) async fn again(&mut self) -> Result<()> {
        let mut process = self
            .home
            .culvert(["relay", "--listen", &self.address.to_string(), "--admin-listen", "none"])
            .arg("--tls-certificate")
            .arg(self.leaf.cert_path())
            .arg("--tls-key")
            .arg(self.leaf.key_path())
            .args(&self.flags)
            .start()?;
        process.answers(self.address, LONG).await?;
        self.process = Some(process);
        Ok(())
    }

    /// `kill -9`.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.process.take().context("it runs")?.kill().await
    }

    pub(crate) fn url(&self) -> String {
        format!("wss://localhost:{}", self.address.port())
    }

    pub(crate) fn ca_file(&self) -> PathBuf {
        self.ca.path()
    }

    /// `culvert send` in a home, with more arguments.
    pub(crate) fn send<S: AsRef<OsStr>>(&self, home: &Home, args: impl IntoIterator<Item = S>) -> Plan {
        home.culvert(["send", "--relay", &self.url()]).arg("--ca-file").arg(self.ca_file()).args(args)
    }

    /// `culvert receive` in a home, into the folder `out`.
    pub(crate) fn receive<S: AsRef<OsStr>>(
        &self,
        home: &Home,
        link: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Plan {
        let plan = home.culvert(["receive", link, "--out"]).arg(home.path("out"));
        plan.arg("--ca-file").arg(self.ca_file()).args(args)
    }
}

/// The link that a sender prints.
pub(crate) async fn link(sender: &Process) -> Result<String> {
    sender.line(LONG, |line| line.starts_with("culvert:").then(|| line.to_owned())).await
}

/// Waits until a receiver that was started with `--json` has this many bytes.
pub(crate) async fn has_bytes(receiver: &Process, least: u64) -> Result<()> {
    let progress = |line: &str| {
        let event: serde_json::Value = serde_json::from_str(line).ok()?;
        (event["event"] == "progress" && event["bytes"].as_u64()? >= least).then_some(())
    };
    receiver.line(LONG, progress).await
}

/// Names in a folder, sorted.
pub(crate) fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

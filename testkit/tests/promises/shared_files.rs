//! A share that is fetched between two networks that let out nothing but port 443 and let in nothing.
//!
//! Owner, requester and servers each have a network of their own (Linux network namespaces); the two users'
//! networks have no way to each other. Needs root and `ip` (package iproute2), as CI has them.

mod networks;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use culvert_testkit::binaries;
use culvert_testkit::certs::{Leaf, TestCa};
use culvert_testkit::process::{Plan, Process};
use tempfile::TempDir;

use networks::{Networks, OWNER, REQUESTER, SERVERS, Where};

/// Longest wait for anything that has to happen.
const LONG: Duration = Duration::from_secs(120);
const PASSWORD: &str = "correct horse battery staple";
/// Bytes that are shared.
const SIZE: usize = 20_000_000;

struct Servers {
    ca: TestCa,
    relay: Process,
    broker: Process,
    _leaf: Leaf,
}

struct User {
    home: TempDir,
    place: &'static Where,
    ca: PathBuf,
    culvert: PathBuf,
}

impl User {
    fn culvert(&self, networks: &Networks, args: &[&str]) -> Plan {
        let folder = self.home.path();
        networks
            .inside(self.place, &self.culvert)
            .args(args)
            .current_dir(folder)
            .env("HOME", folder)
            .env("XDG_DATA_HOME", folder.join("data"))
            .env("XDG_CONFIG_HOME", folder.join("config"))
            .env("CULVERT_CA_FILE", &self.ca)
            .env("CULVERT_PROXY", "none")
    }
}

/// A relay and a broker, both on port 443, each at an address of its own.
async fn servers(networks: &Networks) -> Result<Servers> {
    let ca = TestCa::new("culvert test authority")?;
    let leaf = ca.issue(&[networks::RELAY, networks::BROKER])?;
    let (culvert, certificate, key) = (binaries::culvert().await?, leaf.cert_path(), leaf.key_path());
    let folder = certificate.parent().context("a folder")?.to_owned();
    let broker_url = format!("https://{}", networks::BROKER);
    let mut broker = networks
        .inside(&SERVERS, &culvert)
        .args(["broker", "--listen", &format!("{}:443", networks::BROKER), "--public-url", &broker_url])
        .args(["--admin-listen", "none", "--relays", &format!("wss://{}", networks::RELAY)])
        .arg("--database-file")
        .arg(folder.join("broker.db"))
        .arg("--tls-certificate")
        .arg(&certificate)
        .arg("--tls-key")
        .arg(&key)
        .env("CULVERT_BROKER_INSTITUTION_PASSWORD", PASSWORD)
        .start()?;
    networks.answers(&mut broker, networks::BROKER, 443).await?;
    // It admits by the broker's tickets, whose keys it fetches.
    let mut relay = networks
        .inside(&SERVERS, &culvert)
        .args(["relay", "--listen", &format!("{}:443", networks::RELAY), "--admin-listen", "none"])
        .args(["--ticket-keys", &format!("{broker_url}/.well-known/jwks.json")])
        .arg("--ticket-keys-ca")
        .arg(ca.path())
        .arg("--tls-certificate")
        .arg(&certificate)
        .arg("--tls-key")
        .arg(&key)
        .start()?;
    networks.answers(&mut relay, networks::RELAY, 443).await?;
    Ok(Servers { ca, relay, broker, _leaf: leaf })
}

async fn user(networks: &Networks, servers: &Servers, name: &str, place: &'static Where) -> Result<User> {
    let (home, culvert) = (TempDir::new()?, binaries::culvert().await?);
    let user = User { home, place, ca: servers.ca.path(), culvert };
    let broker = format!("https://{}", networks::BROKER);
    let login = ["login", "--broker", &broker, "--user", name, "--by", "institution"];
    let mut login = user.culvert(networks, &login).with_stdin().start()?;
    login.feed(format!("{PASSWORD}\n").as_bytes()).await?;
    login.end_stdin();
    login.succeeds(LONG).await?;
    Ok(user)
}

#[tokio::test]
async fn a_share_is_fetched_between_networks_that_only_let_out_port_443() -> Result<()> {
    let networks = Networks::new().await?;
    let mut servers = servers(&networks).await?;
    let owner = user(&networks, &servers, "alice", &OWNER).await?;
    let requester = user(&networks, &servers, "bob", &REQUESTER).await?;
    let content: Vec<u8> =
        (0..SIZE).map(|n| (n.wrapping_mul(2_654_435_761) >> 13).to_be_bytes()[7]).collect();
    std::fs::write(owner.home.path().join("results.bin"), &content)?;

    // It even listens, at an address of its own; nobody from outside gets there.
    let listen = format!("{}:3001", networks::OWNER_ADDRESS);
    let endpoint = format!("http://{listen}");
    let serve = ["serve", ".", "--listen", &listen, "--endpoint", &endpoint];
    let serves = owner.culvert(&networks, &serve).start()?;
    serves.line(LONG, |line| line.starts_with("Serving ").then_some(())).await?;
    assert!(networks.reaches(&OWNER, networks::OWNER_ADDRESS, 3001).await?, "it listens");
    for (from, to, port) in [
        (&REQUESTER, networks::OWNER_ADDRESS, 3001),
        (&SERVERS, networks::OWNER_ADDRESS, 3001),
        (&OWNER, networks::RELAY, networks::OTHER_PORT),
    ] {
        assert!(!networks.reaches(from, to, port).await?, "{} reaches {to}:{port}", from.name);
    }
    assert!(networks.reaches(&SERVERS, networks::RELAY, networks::OTHER_PORT).await?, "it is there");

    let share = ["share", "results.bin", "--to", "users:bob"];
    let mut shares = owner.culvert(&networks, &share).start()?;
    let link = shares.line(LONG, |line| line.starts_with("culvert://").then(|| line.to_owned())).await?;
    shares.succeeds(LONG).await?;

    let fetch = ["fetch", &link, "--out", "out", "--allow-plain-text"];
    let mut fetches = requester.culvert(&networks, &fetch).start()?;
    fetches.succeeds(LONG).await?;
    assert!(fetches.output().contains("Fetching through the relay"), "{}", fetches.output().tail());
    let received = std::fs::read(requester.home.path().join("out/results.bin"))?;
    assert!(received == content, "another file arrived");
    ensure!(servers.relay.is_running() && servers.broker.is_running(), "the servers are still there");
    Ok(())
}

//! Three networks on this machine: the servers', and those of two users, each with a wire to the servers'.
//!
//! A user's network routes what goes out to port 443 and nothing else, so neither a connection to another
//! port nor the answer to one from outside ever leaves it: what a firewall does that lets out port 443 only.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Result, ensure};
use culvert_testkit::process::{Plan, Process};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// Where the relay is.
pub(crate) const RELAY: &str = "10.83.0.1";
/// Where the broker is.
pub(crate) const BROKER: &str = "10.83.0.2";
/// Where the owner is.
pub(crate) const OWNER_ADDRESS: &str = "10.83.1.2";
/// A port of the servers that answers too, and that users' networks do not let out.
pub(crate) const OTHER_PORT: u16 = 8080;

/// A network.
pub(crate) struct Where {
    pub(crate) name: &'static str,
}

pub(crate) const SERVERS: Where = Where { name: "cvt-servers" };
pub(crate) const OWNER: Where = Where { name: "cvt-owner" };
pub(crate) const REQUESTER: Where = Where { name: "cvt-requester" };

const ALL: [&Where; 3] = [&SERVERS, &OWNER, &REQUESTER];
const LIMIT: Duration = Duration::from_secs(60);
/// A connection that a network does not let through is refused at once or not answered at all.
const CONNECT: Duration = Duration::from_secs(3);

/// The networks; removed when dropped, with what runs in them.
pub(crate) struct Networks {
    _other: Child,
}

impl Networks {
    pub(crate) async fn new() -> Result<Self> {
        remove();
        let mut script = String::from("set -e\n");
        for Where { name } in ALL {
            script.push_str(&format!("ip netns add {name}\nip -n {name} link set lo up\n"));
            script.push_str(&format!(
                "ip netns exec {name} sh -c 'echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter'\n"
            ));
        }
        for address in [RELAY, BROKER] {
            script.push_str(&format!("ip -n {} address add {address}/32 dev lo\n", SERVERS.name));
        }
        for (number, user) in [(1, &OWNER), (2, &REQUESTER)] {
            let (servers, user) = (SERVERS.name, user.name);
            let net = format!("10.83.{number}");
            script.push_str(&format!(
                "ip -n {servers} link add u{number} type veth peer name wire netns {user}\n\
                 ip -n {servers} address add {net}.1/24 dev u{number}\n\
                 ip -n {servers} link set u{number} up\n\
                 ip -n {user} address add {net}.2/24 dev wire\n\
                 ip -n {user} link set wire up\n\
                 ip -n {user} route add default via {net}.1\n\
                 ip -n {user} rule add pref 100 ipproto tcp dport 443 lookup main\n\
                 ip -n {user} rule add pref 101 prohibit\n\
                 ip -n {user} rule del pref 32766\n"
            ));
        }
        let made = Command::new("sh").args(["-c", &script]).output().await?;
        ensure!(made.status.success(), "no networks: {}", String::from_utf8_lossy(&made.stderr));
        // Something that answers at another port, so that not reaching it means something.
        let listen = format!(
            "import socket\ns=socket.create_server(('{RELAY}',{OTHER_PORT}))\nprint('ok',flush=True)\nwhile True: s.accept()"
        );
        let mut other = Command::new("ip")
            .args(["netns", "exec", SERVERS.name, "python3", "-c", &listen])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(stdout) = other.stdout.as_mut() {
            let mut said = [0; 2];
            timeout(LIMIT, stdout.read_exact(&mut said)).await??;
        }
        Ok(Self { _other: other })
    }

    /// A program that runs in one of the networks.
    pub(crate) fn inside(&self, place: &Where, program: &Path) -> Plan {
        Plan::new(place.name, "ip").args(["netns", "exec", place.name]).arg(program)
    }

    /// Whether a connection from a network to an address comes about.
    pub(crate) async fn reaches(&self, from: &Where, to: &str, port: u16) -> Result<bool> {
        let dial = format!(
            "import socket,sys\ntry: socket.create_connection(('{to}',{port}),{})\nexcept OSError: sys.exit(1)",
            CONNECT.as_secs()
        );
        let mut child = Command::new("ip")
            .args(["netns", "exec", from.name, "python3", "-c", &dial])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        Ok(timeout(LIMIT, child.wait()).await??.success())
    }

    /// Waits until a server answers there.
    pub(crate) async fn answers(&self, server: &mut Process, address: &str, port: u16) -> Result<()> {
        let end = Instant::now() + LIMIT;
        while !self.reaches(&SERVERS, address, port).await? {
            ensure!(server.is_running() && Instant::now() < end, server.failure("it does not answer"));
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        remove();
    }
}

/// Removes what an earlier run left. Errors mean that there was nothing.
fn remove() {
    for Where { name } in ALL {
        let _ = std::process::Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
    }
}

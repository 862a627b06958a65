//! A master with a replica, and three Sentinels that replace it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};

use super::reach::{Mode, Reach};
use super::server::{RedisPlan, RedisServer, until};

/// The name under which the Sentinels know the master.
pub const MASTER: &str = "culvert";
/// Of three, so that one may be wrong.
const QUORUM: &str = "2";
/// What Sentinels do every 10 s, 2 s and 1 s they do every 500 ms and 200 ms, so that tests wait less; and
/// one that was not scheduled for 2 s mistrusts its clock for 5 s instead of 30 s.
const BRISK: [&str; 8] =
    ["INFO-PERIOD", "500", "PUBLISH-PERIOD", "500", "ASK-PERIOD", "200", "TILT-PERIOD", "5000"];
/// Twenty times what it takes on an idle machine.
const AGREED: Duration = Duration::from_secs(90);

/// Two servers and three Sentinels; killed when dropped.
pub struct RedisSentinels {
    servers: Vec<RedisServer>,
    sentinels: Vec<RedisServer>,
    /// Which of the servers the Sentinels last agreed on.
    master: usize,
}

impl RedisSentinels {
    /// Starts them and waits until the Sentinels know the replica and each other.
    ///
    /// # Errors
    /// They do not start, or do not agree.
    pub async fn start() -> Result<Self> {
        let master = server()?.start().await?;
        let port = master.port().to_string();
        let replica = server()?.set("replicaof", &format!("127.0.0.1 {port}")).start().await?;
        // A master that dies before it has a replica could not be replaced.
        replica.reports("master_link_status", "up", AGREED).await?;
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            let plan = RedisPlan::sentinel()?
                .set("sentinel", &format!("monitor {MASTER} 127.0.0.1 {port} {QUORUM}"))
                .set("sentinel", &format!("down-after-milliseconds {MASTER} 1000"))
                .set("sentinel", &format!("failover-timeout {MASTER} 5000"));
            let sentinel = plan.start().await?;
            let () = sentinel.ask(&[&["SENTINEL", "DEBUG"], &BRISK[..]].concat()).await?;
            sentinels.push(sentinel);
        }
        let all = Self { servers: vec![master, replica], sentinels, master: 0 };
        all.settled().await?;
        Ok(all)
    }

    /// How a relay reaches the master.
    pub fn reach(&self) -> Reach {
        let mut reach = Reach::new(Mode::Sentinel, self.sentinels.iter().map(RedisServer::addr).collect());
        reach.master = Some(MASTER.to_owned());
        reach
    }

    /// The master that the Sentinels last agreed on.
    pub fn master(&self) -> &RedisServer {
        &self.servers[self.master]
    }

    /// The Sentinels, to be paused and resumed.
    pub fn sentinels(&self) -> &[RedisServer] {
        &self.sentinels
    }

    /// `kill -9` of the master; returns when all Sentinels name the other server, and it is a master.
    ///
    /// # Errors
    /// They do not within 90 s.
    pub async fn kill_master(&mut self) -> Result<()> {
        self.servers[self.master].kill().await?;
        self.agreed_on(1 - self.master).await
    }

    /// Starts the server that was killed; returns when it is a replica of the other one.
    ///
    /// # Errors
    /// None was killed, or it is no replica within 90 s.
    pub async fn revive(&mut self) -> Result<()> {
        let killed = 1 - self.master;
        self.servers[killed].start_again().await?;
        self.servers[killed].reports("master_link_status", "up", AGREED).await?;
        self.settled().await
    }

    /// An operator's `SENTINEL FAILOVER`: the two servers change places, and both stay up.
    ///
    /// # Errors
    /// The Sentinels refuse it, or do not agree within 90 s.
    pub async fn failover(&mut self) -> Result<()> {
        let (from, to) = (self.master, 1 - self.master);
        let () = self.sentinels[0].ask(&["SENTINEL", "FAILOVER", MASTER]).await?;
        self.agreed_on(to).await?;
        self.servers[from].reports("master_link_status", "up", AGREED).await?;
        self.settled().await
    }

    async fn agreed_on(&mut self, index: usize) -> Result<()> {
        let server = &self.servers[index];
        until(AGREED, "the Sentinels do not name the new master", async || {
            for sentinel in &self.sentinels {
                if named_by(sentinel).await? != server.addr() {
                    return Ok(false);
                }
            }
            Ok(server.info("role").await? == "master")
        })
        .await?;
        self.master = index;
        Ok(())
    }

    /// Waits until every Sentinel sees the master, its replica and both other Sentinels up.
    async fn settled(&self) -> Result<()> {
        let master = self.master().addr();
        until(AGREED, "the Sentinels have not found each other and the replica", async || {
            for sentinel in &self.sentinels {
                let status = sentinel.info("master0").await?;
                let expected = format!("name={MASTER},status=ok,address={master},slaves=1,sentinels=3");
                if status != expected {
                    return Ok(false);
                }
                let replicas: Vec<HashMap<String, String>> =
                    sentinel.ask(&["SENTINEL", "REPLICAS", MASTER]).await?;
                let up = |replica: &HashMap<String, String>| {
                    replica.get("flags").is_some_and(|flags| flags == "slave")
                        && replica.get("master-link-status").is_some_and(|status| status == "ok")
                };
                if !replicas.iter().all(up) {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await
    }
}

fn server() -> Result<RedisPlan> {
    // Replicas are given their copy at once instead of 5 s later together with others.
    Ok(RedisPlan::new()?.set("repl-diskless-sync-delay", "0"))
}

async fn named_by(sentinel: &RedisServer) -> Result<SocketAddr> {
    let (host, port): (String, u16) = sentinel.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]).await?;
    Ok((host.parse::<IpAddr>().context("the Sentinel names no address")?, port).into())
}

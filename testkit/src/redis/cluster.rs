//! Three masters that share the slots.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use redis::ToRedisArgs;

use super::reach::{Mode, Reach};
use super::server::{RedisPlan, RedisServer, until};
use crate::process::free_port;

/// How many slots a Redis Cluster has (cluster specification, "Key distribution model").
pub const SLOTS: u16 = 16_384;
/// Masters greet each other once a second; agreeing takes a few rounds.
const AGREED: Duration = Duration::from_secs(60);
/// Silence after which a master is held to be down, in milliseconds; longer than a busy machine is late.
const NODE_TIMEOUT: &str = "2000";
/// How many keys are moved at once.
const KEYS: &str = "100";

/// Three masters without replicas; killed when dropped.
pub struct RedisCluster {
    masters: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts them, each with a third of the slots, and waits until all of them say that all is well.
    ///
    /// # Errors
    /// They do not start, or do not agree.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// The same with more lines of configuration, such as `("cluster-require-full-coverage", "no")`.
    ///
    /// # Errors
    /// As for [`RedisCluster::start`].
    pub async fn start_with(directives: &[(&str, &str)]) -> Result<Self> {
        let mut masters = Vec::new();
        let mut bus_ports = Vec::new();
        for _ in 0..3 {
            // By default the masters talk on a port 10,000 higher, where outgoing connections have theirs.
            let bus = free_port()?.to_string();
            let mut plan = RedisPlan::new()?
                .set("cluster-enabled", "yes")
                .set("cluster-node-timeout", NODE_TIMEOUT)
                .set("cluster-announce-ip", "127.0.0.1")
                .set("cluster-port", &bus);
            for (directive, value) in directives {
                plan = plan.set(directive, value);
            }
            masters.push(plan.start().await?);
            bus_ports.push(bus);
        }
        for (index, master) in masters.iter().enumerate() {
            let (first, last) = range(index, masters.len());
            // Different from the start, so that the masters need not settle who is first.
            let epoch = (index + 1).to_string();
            let () = master.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]).await?;
            let () = master.ask(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]).await?;
        }
        for (master, bus) in masters.iter().zip(&bus_ports).skip(1) {
            let port = master.port().to_string();
            let () = masters[0].ask(&["CLUSTER", "MEET", "127.0.0.1", &port, bus]).await?;
        }
        let cluster = Self { masters };
        cluster.healthy().await?;
        Ok(cluster)
    }

    /// How a relay reaches it: any master tells it of the others.
    pub fn reach(&self) -> Reach {
        Reach::new(Mode::Cluster, self.masters.iter().map(RedisServer::addr).collect())
    }

    /// The masters.
    pub fn masters(&self) -> &[RedisServer] {
        &self.masters
    }

    /// One master, to be killed, started again and paused.
    pub fn master(&mut self, index: usize) -> &mut RedisServer {
        &mut self.masters[index]
    }

    /// The slot of a key or of a shard channel.
    ///
    /// # Errors
    /// The first master does not answer.
    pub async fn slot_of(&self, key: impl ToRedisArgs) -> Result<u16> {
        let key = key.to_redis_args().concat();
        self.masters[0].ask(&[b"CLUSTER".to_vec(), b"KEYSLOT".to_vec(), key]).await
    }

    /// Which master serves a slot, as the first master sees it.
    ///
    /// # Errors
    /// No master does, or the first does not answer.
    pub async fn owner_of(&self, slot: u16) -> Result<usize> {
        self.owner_as_seen_by(&self.masters[0], slot).await
    }

    /// Moves a slot and its keys to another master while the cluster serves; returns when all masters
    /// know it. This is what `redis-cli --cluster reshard` does with each slot.
    ///
    /// # Errors
    /// The slot is not where it is said to be, or a master refuses its part.
    pub async fn move_slot(&self, slot: u16, from: usize, to: usize) -> Result<()> {
        ensure!(from != to, "slot {slot} is on master {to} already");
        let number = slot.to_string();
        let (source, target) = (&self.masters[from], &self.masters[to]);
        let (source_id, target_id) = (id(source).await?, id(target).await?);
        let () = target.ask(&["CLUSTER", "SETSLOT", &number, "IMPORTING", &source_id]).await?;
        let () = source.ask(&["CLUSTER", "SETSLOT", &number, "MIGRATING", &target_id]).await?;
        loop {
            let keys: Vec<Vec<u8>> = source.ask(&["CLUSTER", "GETKEYSINSLOT", &number, KEYS]).await?;
            if keys.is_empty() {
                break;
            }
            let port = target.port().to_string();
            let migrate = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            let words = migrate.iter().map(|word| word.as_bytes().to_vec()).chain(keys);
            let () = source.ask(&words.collect::<Vec<_>>()).await?;
        }
        // The new owner first: were the old one told first, nobody would serve the slot for a moment.
        let (first, rest) = (target, self.masters.iter().filter(|master| master.port() != target.port()));
        for master in std::iter::once(first).chain(rest) {
            let () = master.ask(&["CLUSTER", "SETSLOT", &number, "NODE", &target_id]).await?;
        }
        until(AGREED, &format!("not every master sends slot {slot} to its new owner"), async || {
            for master in &self.masters {
                if self.owner_as_seen_by(master, slot).await? != to {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await
    }

    /// Waits until every master sees all of them and all slots served.
    ///
    /// # Errors
    /// They do not within 60 s.
    pub async fn healthy(&self) -> Result<()> {
        until(AGREED, "the masters have not become one cluster", async || {
            for master in &self.masters {
                let info: String = master.ask(&["CLUSTER", "INFO"]).await?;
                let has = |line: &str| info.lines().any(|l| l.trim() == line);
                let slots_ok = format!("cluster_slots_ok:{SLOTS}");
                if !(has("cluster_state:ok") && has("cluster_known_nodes:3") && has(&slots_ok)) {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await
    }

    async fn owner_as_seen_by(&self, master: &RedisServer, slot: u16) -> Result<usize> {
        /// Host, port, id and further names.
        type Node = (String, u16, String, redis::Value);
        let ranges: Vec<(u16, u16, redis::Value)> = master.ask(&["CLUSTER", "SLOTS"]).await?;
        let range = ranges.into_iter().find(|(first, last, _)| (*first..=*last).contains(&slot));
        let (_, _, owner) = range.with_context(|| format!("nobody serves slot {slot}"))?;
        let (_, port, _, _): Node = redis::from_redis_value(owner)?;
        let index = self.masters.iter().position(|master| master.port() == port);
        index.with_context(|| format!("slot {slot} is served on port {port}, which is no master here"))
    }
}

async fn id(master: &RedisServer) -> Result<String> {
    master.ask(&["CLUSTER", "MYID"]).await
}

/// The share of one of so many masters.
fn range(index: usize, of: usize) -> (usize, usize) {
    let slots = usize::from(SLOTS);
    (index * slots / of, (index + 1) * slots / of - 1)
}

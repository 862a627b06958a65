//! Relays, Redis and haproxy as child processes.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use culvert_testkit::certs::{Leaf, TestCa};
use culvert_testkit::haproxy::{Balance, BalancerPlan};
use culvert_testkit::process::{Program, Signal};
use culvert_testkit::redis::{RedisPlan, RedisServer};
use culvert_testkit::relay::{Metrics, RelayCluster, RelayClusterPlan, RelayNode, RelayPlan};
use parking_lot::Mutex as Cell;
use tempfile::TempDir;
use tokio::sync::Mutex;
use url::Url;

use super::Member;
use super::limits::{self, RelaySetting};
use crate::plan::{Admission, Reach};
use crate::report::Role;

/// What to start.
#[derive(Debug, Clone)]
pub struct Spawn {
    /// The program that takes the arguments of `culvert-relay`.
    pub program: Program,
    /// By which all programs are started, if not directly.
    pub starter: Option<Program>,
    /// How many relays.
    pub relays: usize,
    /// Whether they speak TLS, with a certificate that is made for them.
    pub tls: bool,
    /// Why they let peers in.
    pub admission: Admission,
    /// Their settings beside those that follow from the others, such as `queue-bytes=4MiB`.
    pub settings: Vec<RelaySetting>,
    /// Connections that they are to hold at a time.
    pub connections: usize,
}

/// What was started. Dropped, all of it is killed.
pub(super) struct Spawned {
    relays: Mutex<Relays>,
    redis: Option<Mutex<RedisServer>>,
    members: Cell<Vec<Member>>,
    count: usize,
    _files: Files,
}

#[expect(clippy::large_enum_variant, reason = "there is one")]
enum Relays {
    Alone(RelayNode),
    Cluster(RelayCluster),
}

/// What the relays read at their starts.
struct Files {
    folder: TempDir,
    tls: Option<(TestCa, Leaf)>,
}

impl Spawned {
    pub(super) async fn start(spawn: &Spawn) -> Result<(Self, Reach)> {
        ensure!(spawn.relays > 0, "--spawn must be at least 1");
        limits::ensure_relays(spawn.connections, spawn.relays)?;
        let files = Files::new(spawn)?;
        let program = started_by(spawn.program.clone(), spawn);
        let configure = |plan: RelayPlan| configure(plan, spawn, &files);
        let mut members = Vec::new();
        let (relays, redis, url) = if spawn.relays == 1 {
            let mut node = RelayNode::new(configure(RelayPlan::closed(program)?)?);
            node.start().await?;
            node.running()?.ready().await?;
            let url = node.running()?.url();
            (Relays::Alone(node), None, url)
        } else {
            let mut plan = RedisPlan::new()?;
            // With the fewest connections a relay that is cut off would be given those who search around it.
            let balancer = BalancerPlan::default().balance(Balance::RoundRobin);
            let mut balancer = balancer.connections(spawn.connections + limits::SPARE);
            limits::ensure_balanced(&balancer)?;
            if let Some(starter) = &spawn.starter {
                plan = plan.started_by(starter.clone());
                balancer = balancer.started_by(starter.clone());
            }
            let redis = plan.start().await?;
            let plan = RelayClusterPlan::of(&program, spawn.relays, redis.reach())?;
            let cluster = plan.each(|_, plan| configure(plan))?.balancer(balancer).start().await?;
            let balancer = cluster.balancer().pid();
            members.push(Member {
                role: Role::Redis,
                name: "redis".into(),
                pid: redis.process()?.pid().into(),
            });
            members.push(Member { role: Role::Balancer, name: "haproxy".into(), pid: Some(balancer) });
            let url = cluster.url();
            (Relays::Cluster(cluster), Some(Mutex::new(redis)), url)
        };
        for index in (0..spawn.relays).rev() {
            let (name, pid) = (format!("relay {}", index + 1), relays.pid(index));
            members.insert(0, Member { role: Role::Relay, name, pid });
        }
        let urls = vec![url.parse::<Url>()?];
        let reach = Reach { urls, admission: spawn.admission.clone(), authority: files.authority()? };
        let count = spawn.relays;
        Ok((
            Self { relays: Mutex::new(relays), redis, members: Cell::new(members), count, _files: files },
            reach,
        ))
    }

    pub(super) fn relays(&self) -> usize {
        self.count
    }

    pub(super) fn has_redis(&self) -> bool {
        self.redis.is_some()
    }

    pub(super) fn members(&self) -> Vec<Member> {
        self.members.lock().clone()
    }

    pub(super) async fn kill(&self, index: usize) -> Result<()> {
        let mut relays = self.relays.lock().await;
        let killed = match &mut *relays {
            Relays::Alone(node) if index == 0 => node.kill().await,
            Relays::Alone(_) => bail!("there is no relay {}", index + 1),
            Relays::Cluster(cluster) => cluster.kill(index).await,
        };
        self.noted(index, relays.pid(index));
        killed
    }

    pub(super) async fn start_relay(&self, index: usize) -> Result<()> {
        let mut relays = self.relays.lock().await;
        let started = match &mut *relays {
            Relays::Alone(node) if index == 0 => match node.start().await {
                Ok(()) => node.running()?.ready().await,
                error => error,
            },
            Relays::Alone(_) => bail!("there is no relay {}", index + 1),
            Relays::Cluster(cluster) => cluster.start(index).await,
        };
        self.noted(index, relays.pid(index));
        started
    }

    pub(super) async fn pause(&self, index: usize) -> Result<()> {
        self.relays.lock().await.signal(index, Signal::STOP)
    }

    pub(super) async fn resume(&self, index: usize) -> Result<()> {
        self.relays.lock().await.signal(index, Signal::CONT)
    }

    pub(super) async fn drain(&self, index: usize, deadline: Duration) -> Result<()> {
        let mut relays = self.relays.lock().await;
        let drained = match &mut *relays {
            Relays::Alone(node) if index == 0 => node.drain(deadline).await,
            Relays::Alone(_) => bail!("there is no relay {}", index + 1),
            Relays::Cluster(cluster) => cluster.drain(index, deadline).await,
        };
        self.noted(index, relays.pid(index));
        drained
    }

    pub(super) async fn kill_redis(&self) -> Result<()> {
        let mut redis = self.redis()?.lock().await;
        redis.process()?;
        redis.kill().await?;
        self.noted_redis(None);
        Ok(())
    }

    pub(super) async fn start_redis(&self) -> Result<()> {
        let mut redis = self.redis()?.lock().await;
        redis.start_again().await?;
        self.noted_redis(Some(redis.process()?.pid()));
        Ok(())
    }

    pub(super) async fn pause_redis(&self) -> Result<()> {
        self.redis()?.lock().await.pause()
    }

    pub(super) async fn resume_redis(&self) -> Result<()> {
        self.redis()?.lock().await.resume()
    }

    pub(super) async fn ill(&self) -> Vec<String> {
        let mut ill = Vec::new();
        let relays = self.relays.lock().await;
        for index in 0..self.count {
            let name = format!("relay {}", index + 1);
            match relays.running(index) {
                Ok(relay) => match relay.admin("/readyz").await {
                    Ok((200, _)) => match relay.metrics().await {
                        Ok(metrics) => ill.extend(self.apart(&name, &metrics)),
                        Err(error) => ill.push(format!("{name} gives no metrics: {error:#}")),
                    },
                    Ok((_, reason)) => ill.push(format!("{name} is not ready: {}", reason.trim())),
                    Err(error) => ill.push(format!("{name} does not answer: {error:#}")),
                },
                Err(_) => ill.push(format!("{name} does not run")),
            }
        }
        if let Relays::Cluster(cluster) = &*relays {
            match cluster.balancer().backends().await {
                Ok(backends) => {
                    let down = backends.iter().enumerate().filter(|(_, backend)| !backend.up);
                    ill.extend(down.map(|(index, _)| format!("haproxy does not use relay {}", index + 1)));
                }
                Err(error) => ill.push(format!("haproxy does not answer: {error:#}")),
            }
        }
        drop(relays);
        if let Some(redis) = &self.redis
            && let Err(error) = redis.lock().await.ask::<String>(&["PING"]).await
        {
            ill.push(format!("redis does not answer: {error:#}"));
        }
        ill
    }

    /// In what a relay that is ready does not take part.
    fn apart(&self, name: &str, metrics: &Metrics) -> Vec<String> {
        let mut whole = vec![("culvert_relay_degraded", 0.0), ("culvert_relay_unplaced", 0.0)];
        if self.has_redis() {
            whole.extend([
                ("culvert_relay_bus_lease", 1.0),
                ("culvert_relay_bus_renewals_pending", 0.0),
                ("culvert_relay_bus_nodes", self.count as f64),
            ]);
        }
        let has = whole.into_iter().map(|(gauge, value)| (gauge, value, metrics.sum(gauge, &[])));
        let wrong = has.filter(|(_, value, has)| has != value);
        wrong.map(|(gauge, value, has)| format!("{name} has {gauge} {has} and not {value}")).collect()
    }

    fn redis(&self) -> Result<&Mutex<RedisServer>> {
        self.redis.as_ref().context("one relay alone has no Redis: use --spawn 2 or more")
    }

    fn noted(&self, index: usize, pid: Option<u32>) {
        if let Some(member) = self.members.lock().get_mut(index) {
            member.pid = pid;
        }
    }

    fn noted_redis(&self, pid: Option<u32>) {
        for member in self.members.lock().iter_mut().filter(|member| member.role == Role::Redis) {
            member.pid = pid;
        }
    }
}

impl Relays {
    fn running(&self, index: usize) -> Result<&culvert_testkit::relay::RelayProcess> {
        match self {
            Relays::Alone(node) if index == 0 => node.running(),
            Relays::Alone(_) => bail!("there is no relay {}", index + 1),
            Relays::Cluster(cluster) => cluster.node(index),
        }
    }

    fn pid(&self, index: usize) -> Option<u32> {
        self.running(index).ok().map(culvert_testkit::relay::RelayProcess::pid)
    }

    fn signal(&self, index: usize, signal: Signal) -> Result<()> {
        self.running(index)?.signal(signal)
    }
}

impl Files {
    fn new(spawn: &Spawn) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("culvert-loadtest-").tempdir()?;
        let tls = if spawn.tls {
            let authority = TestCa::new("culvert-loadtest")?;
            let leaf = authority.loopback()?;
            Some((authority, leaf))
        } else {
            None
        };
        if let Admission::Tickets { key, .. } = &spawn.admission {
            std::fs::write(folder.path().join(TICKET_KEY), crate::secrets::public_pem(key)?)?;
        }
        Ok(Self { folder, tls })
    }

    fn ticket_key(&self) -> PathBuf {
        self.folder.path().join(TICKET_KEY)
    }

    /// PEM of the authority that peers have to trust.
    fn authority(&self) -> Result<Option<String>> {
        let read = |(authority, _): &(TestCa, Leaf)| std::fs::read_to_string(authority.path());
        Ok(self.tls.as_ref().map(read).transpose()?)
    }
}

const TICKET_KEY: &str = "tickets.pem";

fn configure(mut plan: RelayPlan, spawn: &Spawn, files: &Files) -> Result<RelayPlan> {
    if let Some((authority, leaf)) = &files.tls {
        plan = plan.tls(leaf, authority)?;
    }
    plan = match &spawn.admission {
        Admission::Open => plan.flag("open"),
        Admission::AccessToken(token) => plan.access_token(token),
        Admission::Tickets { .. } => plan.set("ticket-keys", files.ticket_key()),
    };
    for setting in limits::of_relays(spawn.connections) {
        if !spawn.settings.iter().any(|given| given.name == setting.name) {
            plan = setting.apply(plan);
        }
    }
    Ok(spawn.settings.iter().fold(plan, |plan, setting| setting.apply(plan)))
}

fn started_by(program: Program, spawn: &Spawn) -> Program {
    match &spawn.starter {
        Some(starter) => program.started_by(starter),
        None => program,
    }
}

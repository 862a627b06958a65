//! What all connections of one node share.

mod local;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use culvert_service_kit::Clock;
use culvert_wire::{Close, PeerId};

use crate::accounts::{Accounts, Allowance, NoSeat, Seat, Source};
use crate::admission::{Gate, Grant};
use crate::bus::Bus;
use crate::config::{Config, TenantScope};
use crate::metrics::{Metrics, Whose};
use crate::quota::Rate;
use crate::topics::Topics;
use crate::turns::Turns;

pub use local::{Local, deliver_header};

/// More accounts of one kind than this are not kept; a full table refuses new keys.
const MOST_ACCOUNTS: usize = 1 << 20;
/// Seconds between two sweeps of the accounts.
const SWEEP_EVERY: u64 = 10;
/// One relay node.
pub struct Node {
    /// What it was told to do.
    pub config: Config,
    /// What it counts.
    pub metrics: Metrics,
    /// Who may come in.
    pub gate: Gate,
    /// The date.
    pub clock: Clock,
    /// The way to the other nodes.
    pub bus: Arc<dyn Bus>,
    /// The memberships of its own connections.
    pub topics: Arc<Topics>,
    /// Who goes first when much waits.
    pub turns: Turns,
    local: Arc<Local>,
    sources: Accounts<Source>,
    peers: Accounts<PeerId>,
    tenants: Accounts<String>,
    guests: Accounts<(Arc<str>, PeerId)>,
    leaving: AtomicBool,
    started: Instant,
}

/// The seats of one admitted connection; dropping them gives them back.
pub struct Seats {
    /// Where its frames and bytes are charged.
    pub charged: [(Whose, Seat); 3],
    _guest: Option<Seat>,
}

impl Node {
    /// Puts a node together from its parts.
    pub fn new(config: Config, gate: Gate, clock: Clock, bus: Arc<dyn Bus>, local: Arc<Local>) -> Self {
        let limits = &config.limits;
        let allowance =
            |connections, frames, bytes| Allowance { connections, openings: Rate::UNLIMITED, frames, bytes };
        let source = Allowance {
            openings: limits.handshakes_per_source,
            ..allowance(limits.connections_per_source, limits.source_frames, limits.source_bytes)
        };
        let peer = allowance(limits.connections_per_peer, limits.peer_frames, limits.peer_bytes);
        let tenant = allowance(limits.connections_per_tenant, limits.tenant_frames, limits.tenant_bytes);
        let guest = allowance(u32::MAX, Rate::UNLIMITED, Rate::UNLIMITED);
        let metrics = local.metrics.clone();
        metrics.most_connections.set(limits.connections as f64);
        metrics.most_handshakes.set(limits.handshakes_pending as f64);
        metrics.most_memberships.set(limits.memberships as f64);
        metrics.most_queued_bytes.set(limits.node_queue_bytes as f64);
        Self {
            sources: Accounts::new(source, MOST_ACCOUNTS),
            peers: Accounts::new(peer, MOST_ACCOUNTS),
            tenants: match limits.tenant_scope {
                TenantScope::Node => Accounts::new(tenant, MOST_ACCOUNTS),
                TenantScope::Cluster => Accounts::divided(tenant, MOST_ACCOUNTS, local.nodes()),
            },
            guests: Accounts::new(guest, MOST_ACCOUNTS),
            metrics,
            turns: Turns::default(),
            topics: local.topics.clone(),
            leaving: AtomicBool::new(false),
            started: Instant::now(),
            config,
            gate,
            clock,
            bus,
            local,
        }
    }

    /// This node's own connections.
    pub fn local(&self) -> &Local {
        &self.local
    }

    /// Nanoseconds since the node started, for rates.
    pub fn nanos(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Takes a seat for a new TCP connection from this address.
    ///
    /// # Errors
    /// The address has or opens too many connections.
    pub fn seat_source(&self, address: IpAddr) -> Result<Seat, NoSeat> {
        self.sources.sit(Source::from(address), None, self.nanos())
    }

    /// Takes the other seats of a connection that is being admitted.
    ///
    /// # Errors
    /// [`Close::Overloaded`] if the node, the peer, the tenant or the ticket has too many.
    pub fn seat(&self, source: Seat, peer: PeerId, grant: &Grant) -> Result<Seats, Close> {
        let now = self.nanos();
        let full = |whose: Whose| {
            move |_: NoSeat| {
                self.metrics.seats_refused[whose].increment(1);
                Close::Overloaded
            }
        };
        let guest = match (&grant.invited, &grant.ticket) {
            (Some(invited), Some(ticket)) => {
                let key = (ticket.clone(), invited.by);
                Some(self.guests.sit(key, Some(invited.guests), now).map_err(full(Whose::Guests))?)
            }
            _ => None,
        };
        let peer = self.peers.sit(peer, grant.limits.connections, now).map_err(full(Whose::Peer))?;
        let tenant = self.tenants.sit(grant.tenant.clone(), None, now).map_err(full(Whose::Tenant))?;
        let charged = [(Whose::Source, source), (Whose::Peer, peer), (Whose::Tenant, tenant)];
        Ok(Seats { charged, _guest: guest })
    }

    /// Measures what the queues hold and frees what they no longer need, every second, and forgets accounts
    /// that nobody uses, every few, until dropped.
    pub async fn sweep(&self) {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        for second in 0_u64.. {
            ticks.tick().await;
            self.metrics.queued_bytes.set(self.local.budget.taken() as f64);
            for link in self.local.links() {
                link.outbox.give_back_room();
            }
            if !second.is_multiple_of(SWEEP_EVERY) {
                continue;
            }
            let now = self.nanos();
            self.sources.sweep(now);
            self.peers.sweep(now);
            self.tenants.sweep(now);
            self.guests.sweep(now);
        }
    }

    /// Whether newcomers are sent elsewhere.
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Sends newcomers elsewhere from here on.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Closes every connection.
    pub fn close_all(&self, close: Close) {
        for link in self.local.links() {
            link.outbox.close(close);
        }
    }
}

//! Relay nodes that die with their queues, and the connections to them.
//!
//! Between two connections, per class, packets keep their order, as the relay promises. Everything else
//! is allowed: loss with or without a verdict, a verdict about what arrived, copies (tampered ones, too), a queue that is full, and
//! packets of a connection that was replaced, seconds late.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use culvert_session::PathId;
use culvert_wire::Class;

use super::random::Random;

/// Address of a connection, never used again.
pub(crate) type Conn = u64;

struct Connection {
    owner: usize,
    node: usize,
    /// Its own end is gone: nothing is delivered any more.
    dead: bool,
    /// When its queue will have been drained, and what is in it.
    drained: Duration,
    queued: usize,
}

/// How bad this network is.
#[derive(Debug)]
pub(crate) struct Weather {
    pub(crate) drop: u64,
    pub(crate) duplicate: u64,
    pub(crate) tamper: u64,
    /// How many of the copies come very late.
    pub(crate) late: u64,
    pub(crate) verdict: u64,
    /// How often the nodes lose touch: what was under way may have arrived, and nobody knows.
    pub(crate) lost_touch: u64,
    pub(crate) latency: (u64, u64),
    /// Bytes per second that a receiver takes.
    pub(crate) rate: u64,
    pub(crate) queue: usize,
}

impl Weather {
    pub(crate) fn new(random: &mut Random) -> Self {
        let bad = [0, 10, 50, 200][random.index(4)];
        let latency = [0, 1, 20, 150][random.index(4)];
        Self {
            drop: bad,
            duplicate: random.below(100),
            tamper: random.below(30),
            late: random.below(200),
            verdict: random.below(1001),
            lost_touch: [0, 5, 100][random.index(3)],
            latency: (latency, latency + 1 + random.below(latency + 1)),
            rate: [200_000, 2_000_000, 100_000_000][random.index(3)],
            queue: [64 << 10, 1 << 20][random.index(2)],
        }
    }
}

/// What becomes of a packet.
pub(crate) struct Arrival {
    pub(crate) at: Duration,
    pub(crate) to: Conn,
    pub(crate) from: Conn,
    pub(crate) datagram: Vec<u8>,
}

/// What the sender is told about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    Gone,
    Full,
    /// It may have arrived; the receiver is told that something may be missing.
    Unknown,
}

pub(crate) struct Network {
    pub(crate) random: Random,
    pub(crate) weather: Weather,
    connections: BTreeMap<Conn, Connection>,
    next: Conn,
    /// Each end's numbers for its paths.
    paths: [HashMap<(Conn, Conn), PathId>; 2],
    /// The last delivery of each flow, to keep its order.
    flows: HashMap<(Conn, Conn, Class), Duration>,
}

pub(crate) const NODES: usize = 3;

impl Network {
    pub(crate) fn new(mut random: Random) -> Self {
        let weather = Weather::new(&mut random);
        Self {
            random,
            weather,
            connections: BTreeMap::new(),
            next: 1,
            paths: Default::default(),
            flows: HashMap::new(),
        }
    }

    pub(crate) fn connect(&mut self, owner: usize) -> Conn {
        let node = self.random.index(NODES);
        let conn = self.next;
        self.next += 1;
        let connection = Connection { owner, node, dead: false, drained: Duration::ZERO, queued: 0 };
        self.connections.insert(conn, connection);
        conn
    }

    pub(crate) fn disconnect(&mut self, conn: Conn) {
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.dead = true;
        }
    }

    /// Every connection of one node goes, with what was queued.
    pub(crate) fn kill(&mut self, node: usize) {
        for connection in self.connections.values_mut().filter(|connection| connection.node == node) {
            connection.dead = true;
        }
    }

    pub(crate) fn is_alive(&self, conn: Conn) -> bool {
        self.connections.get(&conn).is_some_and(|connection| !connection.dead)
    }

    pub(crate) fn owner(&self, conn: Conn) -> usize {
        self.connections[&conn].owner
    }

    pub(crate) fn path(&mut self, end: usize, own: Conn, peer: Conn) -> PathId {
        let next = PathId(self.paths[end].len() as u64 + 1);
        *self.paths[end].entry((own, peer)).or_insert(next)
    }

    pub(crate) fn connections_of(&self, end: usize, path: PathId) -> (Conn, Conn) {
        *self.paths[end].iter().find(|(_, known)| **known == path).unwrap().0
    }

    /// Sends a packet; returns what arrives, if the receiver's connection lives until then.
    pub(crate) fn send(
        &mut self,
        now: Duration,
        (from, to): (Conn, Conn),
        class: Class,
        datagram: &[u8],
        arrivals: &mut Vec<Arrival>,
    ) -> Option<Verdict> {
        let told = self.random.chance(self.weather.verdict);
        if !self.is_alive(from) {
            return None;
        }
        if !self.is_alive(to) {
            return told.then_some(Verdict::Gone);
        }
        let touch = self.random.chance(self.weather.lost_touch).then_some(Verdict::Unknown);
        if touch.is_some() && self.random.chance(500) {
            return touch;
        }
        if self.random.chance(self.weather.drop) {
            return None;
        }
        let receiver = self.connections.get_mut(&to).unwrap();
        if receiver.drained <= now {
            receiver.queued = 0;
        }
        if receiver.queued + datagram.len() > self.weather.queue {
            return told.then_some(Verdict::Full);
        }
        receiver.queued += datagram.len();
        let transfer = Duration::from_nanos(datagram.len() as u64 * 1_000_000_000 / self.weather.rate);
        receiver.drained = receiver.drained.max(now) + transfer;
        let drained = receiver.drained;
        let (low, high) = self.weather.latency;
        let mut at = drained + self.random.millis(low, high);
        let last = self.flows.entry((from, to, class)).or_default();
        at = at.max(*last);
        *last = at;
        arrivals.push(Arrival { at, to, from, datagram: datagram.to_vec() });
        if self.random.chance(self.weather.duplicate) {
            let wait = if self.random.chance(self.weather.late) { 20_000 } else { 50 };
            let at = at + self.random.millis(0, wait);
            arrivals.push(Arrival { at, to, from, datagram: datagram.to_vec() });
        }
        if self.random.chance(self.weather.tamper) {
            let mut datagram = datagram.to_vec();
            let index = self.random.index(datagram.len());
            datagram[index] ^= 1 << self.random.below(8);
            if self.random.chance(300) {
                datagram.truncate(index);
            }
            arrivals.push(Arrival { at, to, from, datagram });
        }
        touch
    }
}

//! Two sessions on a network that drops, doubles, delays, tampers, cuts and moves: whatever the seed,
//! every message arrives exactly once and in order.
//!
//! A failing seed is printed; `CULVERT_SEED=<seed> cargo test -p culvert-session --test session simulation`
//! replays it, and `CULVERT_SEEDS=<count>` changes how many are tried.

// A test throughout: outside its `#[test]` functions, too, a failed `unwrap` is a failed test.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod network;
mod peer;
mod random;
mod summary;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use culvert_session::{CloseReason, Failure, Hint, Peek, Session, peek};
use culvert_wire::TopicId;
use network::{Arrival, Conn, NODES, Network, Verdict};
use peer::{Peer, Sabotage};
use random::Random;
use summary::Summary;
use zeroize::Zeroizing;

/// Seeds that one run tries.
const SEEDS: u64 = 1000;
/// Faults happen before this moment, in milliseconds; then the network only stays as lossy as it was.
const FAULTS_UNTIL: u64 = 30_000;
/// By then everything must have arrived.
const GIVE_UP: Duration = Duration::from_secs(3600);

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Deliver(usize),
    Timeout(usize, u64),
    /// An end's connection breaks, or is replaced while the old one still receives.
    Move(usize),
    /// A node dies.
    Kill(usize),
    Connect(usize),
    /// An end learns the other's present connection.
    Learn(usize),
    /// An application stops reading for a while.
    Pause(usize),
    Wake,
    Hint(usize, u64, bool),
}

struct Simulation {
    random: Random,
    network: Network,
    peers: [Peer; 2],
    planned: [Vec<Vec<usize>>; 2],
    conns: [Option<Conn>; 2],
    /// What each end believes to be the other's connection.
    believed: [Conn; 2],
    queue: BinaryHeap<Reverse<(Duration, u64, Happening)>>,
    arrivals: Vec<Option<Arrival>>,
    order: u64,
    /// Timers that were set later than this are void.
    timers: [u64; 2],
    next_timers: [Option<Duration>; 2],
    steps: u64,
    moves: u64,
    deaths: u64,
    pauses: u64,
    unknown: u64,
}

impl Simulation {
    fn new(seed: u64, sabotage: Sabotage) -> Self {
        let mut random = Random::new(seed);
        let topic = TopicId([9; 32]);
        let mut network = Network::new(random.fork());
        let mut peers = [0, 1].map(|index| Peer::new(index, seed, &mut random, topic, sabotage));
        if random.chance(500) {
            for peer in &mut peers {
                peer.config.psk = Some(Zeroizing::new([5; 32]));
            }
        }
        let conns = [network.connect(0), network.connect(1)];
        let planned = [peers[0].planned(), peers[1].planned()];
        let mut simulation = Self {
            random,
            network,
            peers,
            planned,
            conns: conns.map(Some),
            believed: [conns[1], conns[0]],
            queue: BinaryHeap::new(),
            arrivals: Vec::new(),
            order: 0,
            timers: [0; 2],
            next_timers: [None; 2],
            steps: 0,
            moves: 0,
            deaths: 0,
            pauses: 0,
            unknown: 0,
        };
        simulation.begin();
        simulation
    }

    fn begin(&mut self) {
        let both = self.random.chance(300);
        for end in 0..2 {
            if end == 0 || both {
                self.initiate(end);
            }
        }
        // Many runs are over in a second, so most faults come early.
        let until = [300, 3000, FAULTS_UNTIL][self.random.index(3)];
        for _ in 0..self.random.below(12) {
            let at = self.random.millis(0, until);
            let end = self.random.index(2);
            let happening = match self.random.below(4) {
                0 => Happening::Kill(self.random.index(NODES)),
                1 => Happening::Pause(end),
                _ => Happening::Move(end),
            };
            self.at(at, happening);
        }
    }

    fn initiate(&mut self, end: usize) {
        let path = self.path(end).unwrap();
        let peer = &mut self.peers[end];
        let rng = Box::new(peer.random.fork());
        peer.session = Some(Session::initiate(peer.config.clone(), path, Duration::ZERO, rng));
    }

    fn path(&mut self, end: usize) -> Option<culvert_session::PathId> {
        let own = self.conns[end]?;
        Some(self.network.path(end, own, self.believed[end]))
    }

    fn at(&mut self, at: Duration, happening: Happening) {
        self.order += 1;
        self.queue.push(Reverse((at, self.order, happening)));
    }

    fn run(&mut self) -> Result<Summary, String> {
        let mut now = Duration::ZERO;
        self.settle(now)?;
        while !self.is_complete() {
            let Some(Reverse((at, _, happening))) = self.queue.pop() else {
                return Err(format!("nothing is going to happen after {now:?}:\n{}", self.state()));
            };
            now = at;
            self.steps += 1;
            if now > GIVE_UP || self.steps > 2_000_000 {
                let state = self.state();
                return Err(format!("still not complete after {now:?} and {} steps:\n{state}", self.steps));
            }
            self.happen(now, happening);
            self.settle(now)?;
        }
        self.farewell(now)
    }

    /// Stops somewhere in the middle and compares what each end says with what the other can read.
    /// Returns how many messages were called unacknowledged.
    fn run_and_cut(&mut self) -> Result<u64, String> {
        let (mut now, mut left) = (Duration::ZERO, self.random.below(600));
        self.settle(now)?;
        while left > 0
            && !self.is_complete()
            && let Some(Reverse((at, _, happening))) = self.queue.pop()
        {
            (now, left) = (at, left - 1);
            self.happen(now, happening);
            self.settle(now)?;
        }
        for peer in &mut self.peers {
            if let Some(session) = &mut peer.session {
                session.fail(now, Failure::Abandoned);
            }
            peer.paused_until = now;
        }
        let mut unacknowledged = 0;
        for end in 0..2 {
            self.peers[end].work(now, &self.planned[1 - end])?;
        }
        for end in 0..2 {
            for (stream, sent, missing) in self.peers[end].sent() {
                unacknowledged += missing;
                let received = self.peers[1 - end].received(stream);
                if received < sent - missing {
                    return Err(format!(
                        "stream {stream}: {sent} sent, {missing} missing, {received} received"
                    ));
                }
            }
        }
        Ok(unacknowledged)
    }

    fn is_complete(&self) -> bool {
        (0..2).all(|end| self.peers[end].is_done() && self.peers[end].has_received(&self.planned[1 - end]))
    }

    /// One end closes; both must come to a clean end.
    fn farewell(&mut self, mut now: Duration) -> Result<Summary, String> {
        let end = self.random.index(2);
        if let Some(session) = &mut self.peers[end].session {
            session.close(now);
        }
        self.settle(now)?;
        while self.peers.iter().any(|peer| !peer.session.as_ref().is_some_and(Session::is_finished)) {
            let Some(Reverse((at, _, happening))) = self.queue.pop() else {
                return Err("the end was never reached".into());
            };
            now = at;
            self.happen(now, happening);
            self.settle(now)?;
        }
        for (index, peer) in self.peers.iter().enumerate() {
            let expected = if index == end { CloseReason::Done } else { CloseReason::ByPeer };
            // When every copy of the farewell or of its acknowledgement is lost, time decides.
            let timed_out = matches!(peer.closed, Some(CloseReason::CloseTimeout | CloseReason::PeerTimeout));
            if peer.closed != Some(expected) && !(self.network.weather.drop > 0 && timed_out) {
                return Err(format!("end {index} closed with {:?}", peer.closed));
            }
            if !peer.unacknowledged.is_empty() {
                return Err(format!("end {index} calls acknowledged messages unacknowledged"));
            }
        }
        Ok(self.summary())
    }

    fn happen(&mut self, now: Duration, happening: Happening) {
        match happening {
            Happening::Deliver(index) => self.deliver(now, index),
            Happening::Timeout(end, timer) => {
                if self.timers[end] == timer
                    && let Some(session) = &mut self.peers[end].session
                {
                    self.next_timers[end] = None;
                    session.handle_timeout(now);
                }
            }
            Happening::Move(end) => self.relocate(now, end),
            Happening::Kill(node) => {
                self.network.kill(node);
                for end in 0..2 {
                    if self.conns[end].is_some_and(|conn| !self.network.is_alive(conn)) {
                        self.deaths += 1;
                        self.disconnected(now, end);
                    }
                }
            }
            Happening::Connect(end) => self.connected(now, end),
            Happening::Learn(end) => {
                if let Some(conn) = self.conns[1 - end]
                    && conn != self.believed[end]
                {
                    self.believed[end] = conn;
                    if let (Some(path), Some(session)) = (self.path(end), &mut self.peers[end].session) {
                        session.set_path(now, path);
                    }
                }
            }
            Happening::Pause(end) => {
                self.pauses += u64::from(!self.is_complete());
                let until = now + self.random.millis(0, 5000);
                self.peers[end].paused_until = until;
                self.at(until, Happening::Wake);
            }
            // Applications work after everything that happens.
            Happening::Wake => {}
            Happening::Hint(end, path, full) => {
                if let Some(session) = &mut self.peers[end].session {
                    let hint = if full { Hint::Congested } else { Hint::Lost };
                    session.hint(culvert_session::PathId(path), hint);
                }
            }
        }
    }

    fn relocate(&mut self, now: Duration, end: usize) {
        self.moves += u64::from(!self.is_complete());
        let Some(old) = self.conns[end] else { return };
        if self.random.chance(500) {
            self.network.disconnect(old);
            self.disconnected(now, end);
        } else {
            // A drain: the old leg goes on receiving, so what it carries comes late or twice.
            self.connected(now, end);
        }
    }

    fn disconnected(&mut self, now: Duration, end: usize) {
        self.conns[end] = None;
        if let Some(session) = &mut self.peers[end].session {
            session.lose_path();
        }
        let back = now + self.random.millis(0, 3000);
        self.at(back, Happening::Connect(end));
    }

    fn connected(&mut self, now: Duration, end: usize) {
        let conn = self.network.connect(end);
        self.conns[end] = Some(conn);
        if let Some(other) = self.conns[1 - end] {
            self.believed[end] = other;
        }
        if let (Some(path), Some(session)) = (self.path(end), &mut self.peers[end].session) {
            session.set_path(now, path);
        }
        // Usually the other end is told; else it finds out by what arrives.
        if self.random.chance(600) {
            let told = now + self.random.millis(0, 500);
            self.at(told, Happening::Learn(1 - end));
        }
    }

    fn deliver(&mut self, now: Duration, index: usize) {
        let Some(Arrival { to, from, mut datagram, .. }) = self.arrivals[index].take() else { return };
        if !self.network.is_alive(to) {
            return;
        }
        let end = self.network.owner(to);
        let path = self.network.path(end, to, from);
        let peer = &mut self.peers[end];
        match (&mut peer.session, peek(&datagram)) {
            (Some(session), _) => session.receive(now, path, &mut datagram),
            (none, Some(Peek::Initiation { .. })) => {
                let rng = Box::new(peer.random.fork());
                *none = Session::accept(peer.config.clone(), &datagram, path, now, rng);
            }
            _ => {}
        }
    }

    /// Applications work and packets go out until nothing is left to do at this moment.
    fn settle(&mut self, now: Duration) -> Result<(), String> {
        for end in 0..2 {
            self.peers[end].work(now, &self.planned[1 - end])?;
            self.transmit(now, end)?;
            let deadline = self.peers[end].session.as_ref().and_then(Session::next_timeout);
            if let Some(at) = deadline
                && self.next_timers[end] != deadline
            {
                self.next_timers[end] = deadline;
                self.timers[end] += 1;
                let timer = self.timers[end];
                self.at(at.max(now), Happening::Timeout(end, timer));
            }
        }
        Ok(())
    }

    fn transmit(&mut self, now: Duration, end: usize) -> Result<(), String> {
        let mut datagram = Vec::new();
        loop {
            let Some(session) = &mut self.peers[end].session else { return Ok(()) };
            let Some(transmit) = session.poll_transmit(now, &mut datagram) else { return Ok(()) };
            self.peers[end].check_number(&datagram)?;
            let conns = self.network.connections_of(end, transmit.path);
            let mut arrivals = Vec::new();
            let verdict = self.network.send(now, conns, transmit.class, &datagram, &mut arrivals);
            for arrival in arrivals {
                let at = arrival.at;
                self.arrivals.push(Some(arrival));
                self.at(at, Happening::Deliver(self.arrivals.len() - 1));
            }
            if let Some(verdict) = verdict {
                let told = now + self.random.millis(0, 100);
                self.at(told, Happening::Hint(end, transmit.path.0, verdict == Verdict::Full));
                match verdict {
                    Verdict::Full => {}
                    Verdict::Gone => self.at(told + Duration::from_millis(200), Happening::Learn(end)),
                    Verdict::Unknown => {
                        self.unknown += 1;
                        let path = self.network.path(1 - end, conns.1, conns.0);
                        let gap = now + self.random.millis(0, 100);
                        self.at(gap, Happening::Hint(1 - end, path.0, false));
                    }
                }
            } else if !self.network.is_alive(conns.1) && self.random.chance(100) {
                // Without verdicts a driver looks the peer up when it hears nothing.
                self.at(now + Duration::from_secs(1), Happening::Learn(end));
            }
        }
    }

    /// Where both ends stand, for whoever looks into a failing seed.
    fn state(&self) -> String {
        let mut text = format!("{:?}\n", self.network.weather);
        for (end, peer) in self.peers.iter().enumerate() {
            let session = peer.session.as_ref();
            let path = session.and_then(Session::path).map(|path| self.network.connections_of(end, path));
            let expected: usize = self.planned[1 - end].iter().map(Vec::len).sum();
            text += &format!(
                "end {end}: connection {:?}, path {path:?}, {} of {expected} received, done: {}, ended: {:?}\n{:?}\n",
                self.conns[end],
                peer.delivered,
                peer.is_done(),
                peer.closed,
                session.map(Session::counters),
            );
        }
        text
    }

    fn summary(&self) -> Summary {
        let mut summary = Summary {
            moves: self.moves,
            deaths: self.deaths,
            pauses: self.pauses,
            unknown: self.unknown,
            ..Summary::default()
        };
        for peer in &self.peers {
            summary.messages += peer.delivered;
            if let Some(session) = &peer.session {
                summary.count(&session.counters());
            }
        }
        summary
    }
}

fn simulate(seed: u64, sabotage: Sabotage) -> Result<Summary, String> {
    Simulation::new(seed, sabotage).run()
}

/// Names the seed when a run panics.
struct Blame(u64);

impl Drop for Blame {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {} failed; replay it with CULVERT_SEED={}", self.0, self.0);
        }
    }
}

#[test]
fn every_message_arrives_exactly_once_and_in_order_whatever_the_network_does() {
    let number = |name| std::env::var(name).ok().map(|text: String| text.parse::<u64>().unwrap());
    let seeds = match number("CULVERT_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CULVERT_SEEDS").unwrap_or(SEEDS),
    };
    let (mut total, mut runs) = (Summary::default(), 0);
    for seed in seeds {
        let _blame = Blame(seed);
        let summary = simulate(seed, Sabotage::None).unwrap_or_else(|fault| panic!("{fault}"));
        total.add(&summary);
        runs += 1;
    }
    eprintln!("{runs} runs: {total:?}");
    if runs >= 100 {
        total.prove_something(runs);
    }
}

#[test]
fn what_is_not_called_unacknowledged_has_arrived_whenever_a_session_is_cut_off() {
    let mut undelivered = 0;
    for seed in 0..300 {
        let _blame = Blame(seed);
        let mut simulation = Simulation::new(seed, Sabotage::None);
        undelivered += simulation.run_and_cut().unwrap_or_else(|fault| panic!("{fault}"));
    }
    assert!(undelivered > 1000, "only {undelivered} messages were under way");
}

#[test]
fn the_simulation_notices_every_kind_of_violation() {
    for sabotage in [Sabotage::DeliverTwice, Sabotage::Skip, Sabotage::Swap, Sabotage::Alter] {
        let noticed = (0..20).filter(|&seed| simulate(seed, sabotage).is_err()).count();
        assert!(noticed >= 15, "{sabotage:?} was noticed in {noticed} of 20 runs");
    }
}

#[test]
fn a_seed_replays_exactly() {
    for seed in [1, 77, 500] {
        let runs = [(); 2].map(|()| format!("{:?}", simulate(seed, Sabotage::None)));
        assert_eq!(runs[0], runs[1]);
    }
}

//! Two sessions, a clock, and a carrier that a test bends to its wishes.

// Each test file uses its part of this; `unwrap` is as good here as in the tests themselves.
#![allow(dead_code, clippy::unwrap_used)]

use std::time::Duration;

use bytes::Bytes;
use culvert_session::crypto::AwsLc;
use culvert_session::{Config, Event, Identity, PathId, Priority, Session, StreamId, Transmit};
use culvert_wire::TopicId;
use zeroize::Zeroizing;

pub(crate) const PATH: PathId = PathId(1);
pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn config(seed: u8) -> Config {
    Config::new(Identity::from_seed(&[seed; 32]), TopicId([7; 32]))
}

pub(crate) fn with_psk(mut config: Config, byte: u8) -> Config {
    config.psk = Some(Zeroizing::new([byte; 32]));
    config
}

pub(crate) fn initiate(config: &Config) -> Session {
    Session::initiate(config.clone(), PATH, Duration::ZERO, Box::new(AwsLc))
}

pub(crate) fn accept(config: &Config, datagram: &[u8]) -> Option<Session> {
    Session::accept(config.clone(), datagram, PATH, Duration::ZERO, Box::new(AwsLc))
}

/// A message whose content gives away a byte that is missing or doubled.
pub(crate) fn bytes(size: usize) -> Bytes {
    (0..size).map(|n| n.to_le_bytes()[0]).collect()
}

/// A datagram under way.
#[derive(Clone)]
pub(crate) struct Packet {
    pub(crate) from: usize,
    pub(crate) transmit: Transmit,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) struct Pair {
    pub(crate) ends: [Session; 2],
    pub(crate) now: Duration,
    pub(crate) events: [Vec<Event>; 2],
    pub(crate) accepts: [bool; 2],
}

/// Two peers with default settings that accepted each other.
impl Default for Pair {
    fn default() -> Self {
        Pair::established(&config(1), &config(2))
    }
}

impl Pair {
    /// An initiator that sent its first message and a responder that got it.
    pub(crate) fn begun(first: &Config, second: &Config) -> Pair {
        let mut initiator = initiate(first);
        let mut datagram = Vec::new();
        initiator.poll_transmit(Duration::ZERO, &mut datagram).unwrap();
        let responder = accept(second, &datagram).unwrap();
        Pair::of([initiator, responder])
    }

    pub(crate) fn of(ends: [Session; 2]) -> Pair {
        Pair { ends, now: Duration::ZERO, events: [Vec::new(), Vec::new()], accepts: [true; 2] }
    }

    pub(crate) fn established(first: &Config, second: &Config) -> Pair {
        let mut pair = Pair::begun(first, second);
        pair.exchange();
        pair.advance(50 * MS);
        for events in &mut pair.events {
            assert!(events.contains(&Event::Established), "{events:?}");
            events.clear();
        }
        pair
    }

    /// Everything that one end has to say now.
    pub(crate) fn drain(&mut self, from: usize) -> Vec<Packet> {
        let mut packets = Vec::new();
        let mut bytes = Vec::new();
        while let Some(transmit) = self.ends[from].poll_transmit(self.now, &mut bytes) {
            packets.push(Packet { from, transmit, bytes: bytes.clone() });
        }
        packets
    }

    pub(crate) fn deliver(&mut self, packet: &Packet) {
        self.ends[1 - packet.from].receive(self.now, packet.transmit.path, &mut packet.bytes.clone());
    }

    /// Takes events, and decides about peers as `accepts` says.
    pub(crate) fn poll(&mut self) {
        for end in 0..2 {
            while let Some(event) = self.ends[end].poll_event() {
                if matches!(event, Event::Authenticated { .. }) {
                    let accept = self.accepts[end];
                    self.ends[end].authorize(self.now, accept);
                }
                self.events[end].push(event);
            }
        }
    }

    /// Passes datagrams on, without time going by, until there are none.
    pub(crate) fn exchange(&mut self) {
        self.exchange_if(|_| true);
    }

    /// The same, but only those that `keep` wants.
    pub(crate) fn exchange_if(&mut self, mut keep: impl FnMut(&Packet) -> bool) {
        loop {
            let mut packets = self.drain(0);
            packets.extend(self.drain(1));
            self.poll();
            if packets.is_empty() {
                return;
            }
            for packet in &packets {
                if keep(packet) {
                    self.deliver(packet);
                }
            }
            self.poll();
        }
    }

    pub(crate) fn advance(&mut self, time: Duration) {
        self.advance_if(time, |_| true);
    }

    /// Lets time go by, timer by timer.
    pub(crate) fn advance_if(&mut self, time: Duration, mut keep: impl FnMut(&Packet) -> bool) {
        let end = self.now + time;
        loop {
            self.exchange_if(&mut keep);
            let next = self.ends.iter().filter_map(Session::next_timeout).min();
            let Some(next) = next.filter(|&next| next <= end) else { break };
            self.now = self.now.max(next);
            for end in 0..2 {
                if self.ends[end].next_timeout().is_some_and(|at| at <= self.now) {
                    self.ends[end].handle_timeout(self.now);
                }
            }
        }
        self.now = end;
        self.exchange_if(&mut keep);
    }

    /// A stream of end 0 that the other end knows.
    pub(crate) fn stream(&mut self, priority: Priority) -> StreamId {
        self.ends[0].open_stream(priority).unwrap()
    }

    pub(crate) fn read_all(&mut self, end: usize, stream: StreamId) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        while let Some(message) = self.ends[end].read(stream) {
            messages.push(message.to_vec());
        }
        messages
    }

    pub(crate) fn has(&self, end: usize, wanted: impl Fn(&Event) -> bool) -> bool {
        self.events[end].iter().any(wanted)
    }

    pub(crate) fn closed(&self, end: usize) -> Option<&Event> {
        self.events[end].iter().find(|event| matches!(event, Event::Closed { .. }))
    }
}

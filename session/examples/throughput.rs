//! How fast two sessions pass messages through memory on one core, sealing and opening included.
//!
//! `cargo run --release -p culvert-session --example throughput`

#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use culvert_session::crypto::AwsLc;
use culvert_session::{Config, Event, Identity, PathId, Priority, SendError, Session, StreamId};
use culvert_wire::TopicId;

const PATH: PathId = PathId(1);

struct Pair {
    ends: [Session; 2],
    start: Instant,
    datagram: Vec<u8>,
    received: [u64; 2],
}

impl Pair {
    fn new() -> Self {
        let config = |seed| {
            let mut config = Config::new(Identity::from_seed(&[seed; 32]), TopicId([7; 32]));
            config.receive_window = 1 << 20;
            config.send_buffer = 4 << 20;
            config
        };
        let start = Instant::now();
        let first = Session::initiate(config(1), PATH, Duration::ZERO, Box::new(AwsLc));
        let mut datagram = Vec::new();
        let mut ends = first;
        ends.poll_transmit(Duration::ZERO, &mut datagram).expect("an initiation");
        let second = Session::accept(config(2), &datagram, PATH, Duration::ZERO, Box::new(AwsLc));
        let ends = [ends, second.expect("a valid initiation")];
        let mut pair = Self { ends, start, datagram, received: [0; 2] };
        while pair.ends[0].open_stream(Priority::URGENT).is_err() {
            pair.step();
        }
        pair
    }

    /// Moves everything that can be moved; says whether anything was.
    fn step(&mut self) -> bool {
        let now = self.start.elapsed();
        let mut moved = false;
        for from in 0..2 {
            if self.ends[from].next_timeout().is_some_and(|at| at <= now) {
                self.ends[from].handle_timeout(now);
            }
            while self.ends[from].poll_transmit(now, &mut self.datagram).is_some() {
                self.ends[1 - from].receive(now, PATH, &mut self.datagram);
                moved = true;
            }
            while let Some(event) = self.ends[from].poll_event() {
                match event {
                    Event::Authenticated { .. } => self.ends[from].authorize(now, true),
                    Event::Readable { stream } => {
                        while let Some(message) = self.ends[from].read(stream) {
                            self.received[from] += message.len() as u64;
                        }
                    }
                    _ => {}
                }
            }
        }
        moved
    }

    fn pass(&mut self, stream: StreamId, size: usize, total: u64) {
        let message = Bytes::from(vec![0x5a; size]);
        let (start, before) = (Instant::now(), self.received[1]);
        let mut left = total / size as u64;
        while self.received[1] - before < total / size as u64 * size as u64 {
            while left > 0 {
                match self.ends[0].send(stream, message.clone()) {
                    Ok(_) => left -= 1,
                    Err(SendError::Blocked) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            self.step();
        }
        let seconds = start.elapsed().as_secs_f64();
        let counters = self.ends[0].counters();
        println!(
            "{size:>8} B messages: {:>7.0} MB/s, {:>9.0} messages/s, {} packets, {} lost",
            total as f64 / seconds / 1e6,
            (total / size as u64) as f64 / seconds,
            counters.packets_sent,
            counters.packets_lost,
        );
    }
}

fn main() {
    let mut pair = Pair::new();
    let stream = pair.ends[0].open_stream(Priority::BULK).expect("room for streams");
    for (size, total) in
        [(64, 64 << 20), (1024, 512 << 20), (16 << 10, 1 << 30), (1 << 20, 1 << 30), (8 << 20, 1 << 30)]
    {
        pair.pass(stream, size, total);
    }
}

//! What sealing and opening a packet costs: the cipher alone, and a message through two sessions.
//!
//! `cargo bench -p culvert-session --bench sealing`. `seal` and `open` are the records of the session's
//! cipher; `message` is all that both ends do for one message in one packet and its part of the
//! acknowledgements, without I/O.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use culvert_session::crypto::{AWS_LC, AwsLc, Crypto, TAG_LEN};
use culvert_session::{Config, Event, Identity, PathId, Priority, Session, StreamId};
use culvert_wire::TopicId;

/// Bytes of a packet or of a message; the last one is close to the largest that fits one packet.
const SIZES: [usize; 3] = [64, 1 << 10, 16_000];
/// As much associated data as a packet's header has.
const HEADER: [u8; 19] = [4; 19];
const PATH: PathId = PathId(1);

fn records(criterion: &mut Criterion) {
    let aead = AWS_LC.aead(&[7; 32]);
    let mut group = criterion.benchmark_group("record");
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        let (mut record, mut nonce) = (vec![0x5a; size], 0);
        group.bench_function(BenchmarkId::new("seal", size), |bencher| {
            bencher.iter(|| {
                nonce += 1;
                aead.seal(nonce, &HEADER, black_box(&mut record))
            });
        });
        let mut sealed = vec![0x5a; size];
        let tag = aead.seal(1, &HEADER, &mut sealed);
        sealed.extend_from_slice(&tag);
        assert_eq!(sealed.len(), size + TAG_LEN);
        group.bench_function(BenchmarkId::new("open", size), |bencher| {
            let open =
                |sealed: &mut Vec<u8>| aead.open(1, &HEADER, black_box(sealed)).map(|plain| plain.len());
            bencher.iter_batched_ref(|| sealed.clone(), open, BatchSize::SmallInput);
        });
    }
    group.finish();
}

/// Two ends that have accepted each other.
struct Pair {
    ends: [Session; 2],
    now: Duration,
    datagram: Vec<u8>,
}

impl Pair {
    fn new() -> Self {
        let config = |seed| Config::new(Identity::from_seed(&[seed; 32]), TopicId([7; 32]));
        let (now, mut datagram) = (Duration::ZERO, Vec::new());
        let mut first = Session::initiate(config(1), PATH, now, Box::new(AwsLc));
        first.poll_transmit(now, &mut datagram).expect("an initiation");
        let second = Session::accept(config(2), &datagram, PATH, now, Box::new(AwsLc)).expect("a valid one");
        let mut pair = Self { ends: [first, second], now, datagram };
        while pair.pass() > 0 {}
        pair
    }

    /// Passes on what both ends have to say, and gives the number of datagrams.
    fn pass(&mut self) -> usize {
        let mut datagrams = 0;
        for from in 0..2 {
            while self.ends[from].poll_transmit(self.now, &mut self.datagram).is_some() {
                self.ends[1 - from].receive(self.now, PATH, &mut self.datagram);
                datagrams += 1;
            }
            for end in &mut self.ends {
                while let Some(event) = end.poll_event() {
                    if matches!(event, Event::Authenticated { .. }) {
                        end.authorize(self.now, true);
                    }
                }
            }
        }
        datagrams
    }

    /// One message from the first to the second.
    fn message(&mut self, stream: StreamId, message: &Bytes) -> usize {
        self.ends[0].send(stream, message.clone()).expect("room for a message");
        // Timers run, so that acknowledgements go out as they do in real life.
        self.now += Duration::from_millis(30);
        for end in &mut self.ends {
            end.handle_timeout(self.now);
        }
        self.pass();
        self.ends[1].read(stream).expect("the message arrives").len()
    }
}

fn messages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("message");
    for size in SIZES {
        let mut pair = Pair::new();
        let stream = pair.ends[0].open_stream(Priority::NORMAL).expect("a stream");
        let message = Bytes::from(vec![0x5a; size]);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| black_box(pair.message(stream, &message)));
        });
    }
    group.finish();
}

criterion_group!(benches, records, messages);
criterion_main!(benches);

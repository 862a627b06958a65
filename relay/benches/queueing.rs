//! What finding a receiver, making its message and queueing it costs, without sockets.
//!
//! `cargo bench -p culvert-relay --bench queueing`.

use std::hint::black_box;
use std::sync::Arc;
use std::task::{Context, Waker};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use culvert_relay::admission::Credentials;
use culvert_relay::budget::Budget;
use culvert_relay::link::Link;
use culvert_relay::node::deliver_header;
use culvert_relay::outbox::Outbox;
use culvert_relay::routes::Routes;
use culvert_relay::topics::{LocalMember, Topics};
use culvert_relay::websocket::Message;
use culvert_wire::{Class, ConnId, Generation, Handle, Header, PeerId, TopicId};

/// Payload bytes.
const SIZES: [usize; 3] = [64, 1 << 10, 16 << 10];
/// Messages that the writer takes together.
const BATCH: u64 = 20;
/// Topics that one connection can be in: handles have 16 bits.
const MOST_HANDLES: u64 = 60_000;

fn link(conn: ConnId) -> Arc<Link> {
    let outbox = Outbox::new(1 << 20, &Budget::new(usize::MAX));
    Arc::new(Link::new(conn, Generation(1), Credentials::of(PeerId([1; 32])), outbox))
}

fn header(from: u64) -> Header {
    deliver_header(Class::Normal, false, Handle(1), ConnId(from))
}

/// Putting a frame's message together, its payload copied once.
fn compose(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compose");
    for size in SIZES {
        let payload = vec![0x5a; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_with_input(BenchmarkId::from_parameter(size), &payload, |bencher, payload| {
            bencher.iter(|| Message::of_frame(header(7), black_box(payload)));
        });
    }
    group.finish();
}

/// A batch into a queue and out of it, from one sender and from many.
fn queue(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("queue");
    group.throughput(Throughput::Elements(BATCH));
    for senders in [1, 50] {
        let (link, mut round, mut taken) = (link(ConnId(1)), 0, Vec::new());
        let context = Context::from_waker(Waker::noop());
        let mut batch = || {
            round += 1;
            let from = (0..BATCH).map(|number| 10 + (round * BATCH + number) % senders);
            from.map(|from| (ConnId(from), Message::of_frame(header(from), &[0x5a; 64]))).collect::<Vec<_>>()
        };
        let mut pass = |messages| {
            for (from, message) in messages {
                assert!(link.outbox.push(from, Class::Normal, message).is_ok(), "there is room");
            }
            assert!(link.outbox.poll_take(&mut taken, 64 << 10, &context).is_ready());
            taken.drain(..).count()
        };
        group.bench_function(BenchmarkId::new("senders", senders), |bencher| {
            bencher.iter_batched(&mut batch, &mut pass, BatchSize::SmallInput);
        });
    }
    group.finish();
}

/// Finding receivers in turns among so many topics: up to the size of a connection's table they are
/// remembered, beyond it every one is looked up in the node's shards.
fn routes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("routes");
    for topics in [1, 1_000, 100_000] {
        let (all, mut routes) = (Topics::new(1_000_000, 4_096), Routes::default());
        let mut handles = Vec::new();
        for number in 0..topics {
            let mut topic = TopicId([0; 32]);
            topic.0[..8].copy_from_slice(&u64::wrapping_mul(number, 0x9e37_79b9_7f4a_7c15).to_be_bytes());
            let member = LocalMember { link: link(ConnId(1)), handle: Handle(9) };
            assert!(all.enter(topic, member).is_ok(), "there is room");
            if number < MOST_HANDLES {
                handles.push(routes.enter(topic));
            }
        }
        let mut turns = handles.iter().cycle();
        let mut find = |to| {
            let handle = turns.next().copied().unwrap_or(Handle::NONE);
            routes.find(&all, black_box(handle), to).is_some()
        };
        group.bench_function(BenchmarkId::new("found", topics), |bencher| {
            bencher.iter(|| assert!(find(ConnId(1))));
        });
        group.bench_function(BenchmarkId::new("nobody", topics), |bencher| {
            bencher.iter(|| assert!(!find(ConnId(2))));
        });
    }
    group.finish();
}

criterion_group!(benches, compose, queue, routes);
criterion_main!(benches);

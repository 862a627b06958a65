//! What taking a frame apart and putting it together costs, without anything around it.
//!
//! `cargo bench -p culvert-wire --bench codec`. A relay forwards by the header alone (`split`); a client
//! decodes and encodes whole frames.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use culvert_wire::{Class, ConnId, Frame, Handle, Header};

/// Payload bytes.
const SIZES: [usize; 3] = [64, 1 << 10, 16 << 10];

fn send(payload: usize) -> Frame {
    Frame::Send {
        class: Class::Normal,
        handle: Handle(7),
        to: ConnId(0x0001_0000_0000_002a),
        payload: vec![0x5a; payload].into(),
    }
}

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec");
    for size in SIZES {
        let frame = send(size);
        let encoded = frame.encode().expect("within the limits");
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_with_input(BenchmarkId::new("encode", size), &frame, |bencher, frame| {
            bencher.iter(|| black_box(frame).encode());
        });
        group.bench_with_input(BenchmarkId::new("decode", size), &encoded, |bencher, encoded| {
            // A clone counts a reference; the payload stays where it is.
            bencher.iter(|| Frame::decode(black_box(Bytes::clone(encoded))));
        });
        group.bench_with_input(BenchmarkId::new("split", size), &encoded, |bencher, encoded| {
            bencher
                .iter(|| Header::split(black_box(encoded)).map(|(header, payload)| (header, payload.len())));
        });
    }
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);

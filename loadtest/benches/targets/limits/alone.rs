//! Limits that need no load: the cipher's speed, and what a batch costs in system calls.

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, Nonce, UnboundKey};
use clap::Parser;

/// The largest record of TLS.
const RECORD: usize = 16 << 10;
/// Bytes of a batch: one small frame, twenty of them, one and four large ones.
const BATCHES: [usize; 4] = [82, 20 * 82, 16_400, 65_600];
/// Times that are measured, of which the median counts.
const SPANS: u32 = 9;

/// Their own process, so that they run where the relay does.
#[derive(Parser, Clone, Debug)]
pub(crate) struct AloneArgs {
    /// Seconds for each.
    #[arg(long)]
    seconds: f64,
}

/// Measures and prints them.
pub(crate) fn alone(args: &AloneArgs) -> Result<()> {
    let span = Duration::from_secs_f64(args.seconds) / SPANS;
    println!("records of {RECORD} B, aws-lc-rs:           GB/s sealed   opened   both, as at a relay");
    for (name, algorithm) in [("AES-128-GCM", &AES_128_GCM), ("AES-256-GCM", &AES_256_GCM)] {
        let (seal, open) = cipher(algorithm, span)?;
        let speed = |nanos: f64| RECORD as f64 / nanos;
        println!("  {name:<37} {:>11.2} {:>8.2} {:>8.2}", speed(seal), speed(open), speed(seal + open));
    }
    println!(
        "one write and one read of a batch through a TCP connection of loopback, both ends on this core:"
    );
    let empty = empty_call(span);
    for batch in BATCHES {
        let nanos = write_and_read(batch, span)?;
        println!(
            "  {batch:>6} B   {:>6.2} µs   {:.2} GB/s   {:.3} µs for each 82 B",
            nanos / 1e3,
            batch as f64 / nanos,
            nanos / 1e3 / (batch as f64 / 82.0)
        );
    }
    println!("a system call that does nothing: {empty:.0} ns");
    Ok(())
}

/// Nanoseconds that sealing and opening one record take.
fn cipher(algorithm: &'static Algorithm, span: Duration) -> Result<(f64, f64)> {
    let key = LessSafeKey::new(UnboundKey::new(algorithm, &vec![7; algorithm.key_len()])?);
    let nonce = |number: u64| {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&number.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    };
    let aad = [23, 3, 3, 64, 17];
    let mut record = vec![0x5a; RECORD];
    let tag = key.seal_in_place_separate_tag(nonce(0), Aad::from(aad), &mut record)?;
    let mut sealed = record.clone();
    sealed.extend_from_slice(tag.as_ref());
    let mut number = 0;
    let seal = nanos(span, || {
        number += 1;
        let tag = key.seal_in_place_separate_tag(nonce(number), Aad::from(aad), black_box(&mut record));
        black_box(tag.is_ok())
    })?;
    let mut scratch = vec![0; sealed.len()];
    // Opening destroys what was sealed; what the copy takes is taken off.
    let copy = nanos(span, || {
        scratch.copy_from_slice(black_box(&sealed));
        black_box(&mut scratch).len() == sealed.len()
    })?;
    let open = nanos(span, || {
        scratch.copy_from_slice(black_box(&sealed));
        key.open_in_place(nonce(0), Aad::from(aad), black_box(&mut scratch)).is_ok()
    })?;
    Ok((seal, open - copy))
}

/// Nanoseconds for a batch from one socket to the other: the kernel's whole work, without a wake-up.
fn write_and_read(batch: usize, span: Duration) -> Result<f64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut from = TcpStream::connect(listener.local_addr()?)?;
    let (mut to, _) = listener.accept()?;
    from.set_nodelay(true)?;
    let (out, mut read) = (vec![0x5a; batch], vec![0; batch]);
    nanos(span, || from.write_all(&out).is_ok() && to.read_exact(&mut read).is_ok())
}

fn empty_call(span: Duration) -> f64 {
    nanos(span, || rustix::process::getppid().is_some()).unwrap_or_default()
}

/// Nanoseconds of a call, which must not fail: the median of some spans.
fn nanos(span: Duration, mut call: impl FnMut() -> bool) -> Result<f64> {
    let mut spans = Vec::new();
    for _ in 0..SPANS {
        let (began, mut calls) = (Instant::now(), 0_u32);
        while began.elapsed() < span {
            for _ in 0..16 {
                ensure!(call(), "a call failed");
            }
            calls += 16;
        }
        spans.push(began.elapsed().as_nanos() as f64 / f64::from(calls));
    }
    Ok(crate::machine::median(spans))
}

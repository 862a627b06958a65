//! What is counted.

use std::hint::black_box;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use culvert_relay::admission::Credentials;
use culvert_relay::budget::Budget;
use culvert_relay::link::Link;
use culvert_relay::node::deliver_header;
use culvert_relay::outbox::Outbox;
use culvert_relay::routes::Routes;
use culvert_relay::topics::{LocalMember, Topics};
use culvert_relay::websocket::Message;
use culvert_session::crypto::{AWS_LC, Crypto};
use culvert_wire::{Class, ConnId, Frame, Generation, Handle, Header, PeerId, TopicId};

use crate::meter::Meter;
use crate::path::{Batch, forward};

/// Repetitions that are counted.
const TIMES: u64 = 1_000;
/// Payload bytes.
const SMALL: usize = 64;
const LARGE: usize = 16 << 10;
/// A session's packet with the largest payload: header, frames, tag.
const PACKET: usize = 16_000;

type Case = fn(&mut Meter) -> Result<()>;

const CASES: &[(&str, Case)] = &[
    ("relay, clear, 20 frames of 64 B, each", |meter| path(meter, false, SMALL, 20)),
    ("relay, clear, one frame of 64 B", |meter| path(meter, false, SMALL, 1)),
    ("relay, clear, one frame of 16 KiB", |meter| path(meter, false, LARGE, 1)),
    ("relay, TLS, 20 frames of 64 B, each", |meter| path(meter, true, SMALL, 20)),
    ("relay, TLS, one frame of 64 B", |meter| path(meter, true, SMALL, 1)),
    ("relay, TLS, one frame of 16 KiB", |meter| path(meter, true, LARGE, 1)),
    ("queue, one sender, push and take", |meter| queue(meter, 1)),
    ("queue, 50 senders, push and take", |meter| queue(meter, 50)),
    ("route, remembered", |meter| route(meter, 1)),
    ("route, looked up among 1,000 topics", |meter| route(meter, 1_000)),
    ("encode 64 B", |meter| encode(meter, SMALL)),
    ("encode 16 KiB", |meter| encode(meter, LARGE)),
    ("decode 64 B", |meter| decode(meter, SMALL)),
    ("decode 16 KiB", |meter| decode(meter, LARGE)),
    ("split a header", split),
    ("seal 64 B", |meter| seal(meter, SMALL)),
    ("seal 16,000 B", |meter| seal(meter, PACKET)),
    ("open 64 B", |meter| open(meter, SMALL)),
    ("open 16,000 B", |meter| open(meter, PACKET)),
];

/// The names of all cases.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    CASES.iter().map(|(name, _)| *name)
}

/// Runs one.
pub(crate) fn run(name: &str, meter: &mut Meter) -> Result<()> {
    let case = CASES.iter().find(|(known, _)| *known == name).context("no such case")?.1;
    case(meter)
}

fn path(meter: &mut Meter, tls: bool, payload: usize, frames: usize) -> Result<()> {
    forward(meter, Batch { tls, payload, frames })
}

/// Repeats something, once before it is counted.
fn repeat<T>(meter: &mut Meter, mut work: impl FnMut() -> T) {
    black_box(work());
    meter.count(|| {
        for _ in 0..TIMES {
            black_box(work());
        }
    });
    meter.done(TIMES);
}

fn frame(payload: usize) -> Frame {
    let payload = vec![0x5a; payload].into();
    Frame::Send { class: Class::Normal, handle: Handle(7), to: ConnId(42), payload }
}

fn encode(meter: &mut Meter, payload: usize) -> Result<()> {
    let frame = frame(payload);
    frame.encode()?;
    repeat(meter, || black_box(&frame).encode());
    Ok(())
}

fn decode(meter: &mut Meter, payload: usize) -> Result<()> {
    let encoded = frame(payload).encode()?;
    Frame::decode(encoded.clone())?;
    repeat(meter, || Frame::decode(black_box(Bytes::clone(&encoded))));
    Ok(())
}

fn split(meter: &mut Meter) -> Result<()> {
    let encoded = frame(SMALL).encode()?;
    Header::split(&encoded)?;
    repeat(meter, || Header::split(black_box(&encoded)).map(|(header, payload)| (header, payload.len())));
    Ok(())
}

fn seal(meter: &mut Meter, len: usize) -> Result<()> {
    let (aead, header, mut record, mut nonce) = (AWS_LC.aead(&[7; 32]), [4; 19], vec![0x5a; len], 0);
    repeat(meter, || {
        nonce += 1;
        aead.seal(nonce, &header, black_box(&mut record))
    });
    Ok(())
}

fn open(meter: &mut Meter, len: usize) -> Result<()> {
    let (aead, header) = (AWS_LC.aead(&[7; 32]), [4; 19]);
    let mut sealed = vec![0x5a; len];
    let tag = aead.seal(1, &header, &mut sealed);
    sealed.extend_from_slice(&tag);
    // Opening destroys what was sealed: as many copies as are opened.
    for _ in 0..=TIMES / 10 {
        let mut record = sealed.clone();
        let opened = meter.count(|| aead.open(1, &header, black_box(&mut record)).map(|plain| plain.len()));
        opened.flatten().context("what was sealed does not open")?;
        meter.done(1);
    }
    Ok(())
}

fn link(conn: ConnId, limit: usize) -> Arc<Link> {
    let outbox = Outbox::new(limit, &Budget::new(usize::MAX));
    Arc::new(Link::new(conn, Generation(1), Credentials::of(PeerId([1; 32])), outbox))
}

/// A batch as the writer takes it: 20 messages in, all of them out.
fn queue(meter: &mut Meter, senders: u64) -> Result<()> {
    const BATCH: u64 = 20;
    let link = link(ConnId(1), 1 << 20);
    let mut taken = Vec::new();
    let context = std::task::Context::from_waker(std::task::Waker::noop());
    let header = |from| deliver_header(Class::Normal, false, Handle(1), ConnId(from));
    for round in 0..=TIMES / BATCH {
        // What a message is made of is counted with the relay; here they are there already.
        let messages: Vec<(ConnId, Message)> = (0..BATCH)
            .map(|number| 10 + (round * BATCH + number) % senders)
            .map(|from| (ConnId(from), Message::of_frame(header(from), &[0x5a; SMALL])))
            .collect();
        let work = || {
            for (from, message) in messages {
                let _pushed = black_box(link.outbox.push(from, Class::Normal, message));
            }
            link.outbox.poll_take(&mut taken, 64 << 10, &context).is_ready()
        };
        if round == 0 {
            work();
        } else {
            meter.count(work);
            meter.done(BATCH);
        }
        anyhow::ensure!(taken.len() as u64 == BATCH, "{} of {BATCH} messages came out", taken.len());
        taken.clear();
    }
    Ok(())
}

/// Finding a receiver; in more topics than are remembered every one is looked up.
fn route(meter: &mut Meter, topics: usize) -> Result<()> {
    let (all, mut routes) = (Topics::new(10_000, 10_000), Routes::default());
    let mut handles = Vec::new();
    for number in 0..topics {
        let mut topic = TopicId([0; 32]);
        topic.0[..8].copy_from_slice(&(number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        let member = LocalMember { link: link(ConnId(1), 1024), handle: Handle(9) };
        all.enter(topic, member).ok().context("a topic is full")?;
        handles.push(routes.enter(topic));
    }
    let mut turns = handles.iter().cycle();
    repeat(meter, || {
        let handle = turns.next().copied().unwrap_or(Handle::NONE);
        routes.find(&all, black_box(handle), ConnId(1)).is_some()
    });
    Ok(())
}

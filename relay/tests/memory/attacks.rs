//! What the relay's memory does under everything that strangers and peers can do to it: it stays bounded,
//! and the report says by how much. The relay is the real server, measured by the kernel.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use culvert_testkit::certs::TestCa;
use culvert_testkit::process::allow_open_files;
use culvert_testkit::relay::{RelayPlan, RelayProcess};
use culvert_testkit::report::{full, measured, mib};
use culvert_testkit::{HelloOptions, Identity, RawError, RawOptions, RawPeer, raw};
use culvert_wire::{Class, ConnId, Frame, Handle, JoinRefusal, TopicId};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

const MIB: u64 = 1024 * 1024;
/// Longest time in which memory that is free goes back to the system.
const SOON: Duration = Duration::from_secs(20);

/// A relay whose memory is watched.
struct Watched {
    relay: RelayProcess,
    before: u64,
}

fn plan() -> Result<RelayPlan> {
    RelayPlan::open(Path::new(env!("CARGO_BIN_EXE_culvert-relay")))
}

impl Watched {
    /// Starts it and lets some peers come and go, so that what it allocates once is there already.
    async fn start(plan: RelayPlan) -> Result<Self> {
        let relay = plan.start().await?;
        for n in 0..32 {
            let mut peer = enter(&relay, &relay.raw()).await?;
            let (handle, _) = peer.join(topic(n)).await?;
            peer.send_to(handle, ConnId(1), vec![0; 16 << 10].into()).await?;
            peer.sync(1).await?;
        }
        let before = relay.resources()?.resident;
        Ok(Self { relay, before })
    }

    /// Still answers, and has grown at its peak by no more than `bound`.
    async fn has_grown_at_most(&self, bound: u64, by_what: &str) -> Result<()> {
        let mut peer = enter(&self.relay, &self.relay.raw()).await.context("the relay admits nobody")?;
        peer.sync(1).await.context("the relay answers nobody")?;
        let grown = self.relay.resources()?.peak_resident.saturating_sub(self.before);
        measured(&format!("relay memory, {by_what}: +{} at the peak (bound {})", mib(grown), mib(bound)));
        ensure!(grown <= bound, "grew by {}, bound {}", mib(grown), mib(bound));
        Ok(())
    }

    /// Soon has no more than `bound` beyond what it had before.
    async fn gives_back_all_but(&self, bound: u64, by_what: &str) -> Result<()> {
        let kept = async {
            loop {
                let kept = self.relay.resources()?.resident.saturating_sub(self.before);
                if kept <= bound {
                    return anyhow::Ok(kept);
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let kept = tokio::time::timeout(SOON, kept).await;
        let kept = kept.with_context(|| format!("more than {} stays resident", mib(bound)))??;
        measured(&format!("relay memory, {by_what}: +{} kept (bound {})", mib(kept), mib(bound)));
        Ok(())
    }
}

async fn enter(relay: &RelayProcess, options: &RawOptions) -> Result<RawPeer> {
    let mut peer = RawPeer::connect(relay.addr(), options).await?;
    peer.hello(&HelloOptions::new(&Identity::random()?)).await?;
    Ok(peer)
}

fn topic(number: u64) -> TopicId {
    let mut topic = [0; 32];
    topic[..8].copy_from_slice(&number.to_be_bytes());
    TopicId(topic)
}

/// Runs `count` pieces of work, 32 at a time, and gives what they leave behind.
async fn many<T, F>(count: u64, work: impl Fn(u64) -> F) -> Result<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let (mut tasks, mut done) = (JoinSet::new(), Vec::new());
    for n in 0..count {
        if tasks.len() >= 32
            && let Some(finished) = tasks.join_next().await
        {
            done.push(finished??);
        }
        tasks.spawn(work(n));
    }
    while let Some(finished) = tasks.join_next().await {
        done.push(finished??);
    }
    Ok(done)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_handshakes_in_every_stage_are_bounded() {
    const EACH: u64 = 300;
    allow_open_files(4 * EACH).unwrap();
    let ca = TestCa::new("Relay").unwrap();
    let watched = Watched::start(plan().unwrap().tls(&ca.loopback().unwrap(), &ca).unwrap()).await.unwrap();
    let (addr, tls) = (watched.relay.addr(), watched.relay.raw());
    let plain = RawOptions::plain("localhost");
    let held: Vec<Vec<Box<dyn raw::Io>>> = many(EACH, |_| {
        let (tls, plain) = (tls.clone(), plain.clone());
        async move {
            let nothing = raw::dial(addr, &plain).await?;
            let mut client_hello = raw::dial(addr, &plain).await?;
            client_hello.write_all(b"\x16\x03\x01\x3f\xff\x01\x00\x3f\xfb\x03\x03").await?;
            let mut request = raw::dial(addr, &tls).await?;
            request.write_all(b"GET /v1/relay HTTP/1.1\r\nHost: localhost\r\nX: ").await?;
            request.flush().await?;
            Ok(vec![nothing, client_hello, request])
        }
    })
    .await
    .unwrap();
    let upgraded: Vec<RawPeer> = many(EACH, |_| {
        let tls = tls.clone();
        async move { Ok(RawPeer::connect(addr, &tls).await?) }
    })
    .await
    .unwrap();
    // A TLS session that is not finished, a task, and HTTP's buffer of 8 KiB.
    watched.has_grown_at_most(4 * EACH * 24 * 1024, "1,200 half handshakes over TLS").await.unwrap();
    drop((held, upgraded));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_joins_are_bounded() {
    const PEERS: u64 = 100;
    let joins_each = if full() { 10_000 } else { 1_000 };
    let watched = Watched::start(plan().unwrap().set("membership-cost", "1")).await.unwrap();
    let (addr, options) = (watched.relay.addr(), watched.relay.raw());
    let joined = many(PEERS, |number| {
        let options = options.clone();
        async move {
            let mut peer = RawPeer::connect(addr, &options).await?;
            peer.hello(&HelloOptions::new(&Identity::random()?)).await?;
            let (mut entered, mut refused) = (0u64, 0u64);
            for first in (0..joins_each).step_by(100) {
                for join in first..first + 100 {
                    peer.feed(&Frame::Join { topic: topic((number << 32) | join) }).await?;
                }
                peer.flush().await?;
                for _ in 0..100 {
                    match peer.recv().await? {
                        Frame::Joined { .. } => entered += 1,
                        Frame::JoinRefused { refusal: JoinRefusal::TooManyTopics, .. } => refused += 1,
                        other => return Err(RawError::Unexpected(Box::new(other)).into()),
                    }
                }
            }
            Ok((peer, entered, refused))
        }
    })
    .await
    .unwrap();
    let entered: u64 = joined.iter().map(|(_, entered, _)| entered).sum();
    let refused: u64 = joined.iter().map(|(_, _, refused)| refused).sum();
    assert_eq!((entered, refused), (PEERS * 64, PEERS * (joins_each - 64)));
    // Beside the memberships there are 100 connections.
    let bound = 4 * MIB + entered * 1024;
    let what = format!("{} joins of {PEERS} peers, 64 topics each let in", entered + refused);
    watched.has_grown_at_most(bound, &what).await.unwrap();
}

#[tokio::test]
async fn joining_and_leaving_for_ever_leaves_nothing_behind() {
    // More than there are handles, so that they are given out again.
    const ROUNDS: u64 = 70_000;
    let watched = Watched::start(plan().unwrap().set("membership-cost", "1")).await.unwrap();
    let mut peer = enter(&watched.relay, &watched.relay.raw()).await.unwrap();
    for round in 0..ROUNDS {
        let (handle, _) = peer.join(topic(1_000 + round)).await.unwrap();
        peer.feed(&Frame::Leave { handle }).await.unwrap();
    }
    peer.sync(1).await.unwrap();
    let metrics = watched.relay.metrics().await.unwrap();
    assert_eq!(metrics.sum("culvert_relay_memberships", &[]), 0.0);
    watched.has_grown_at_most(4 * MIB, "70,000 topics entered and left").await.unwrap();
}

#[tokio::test]
async fn peers_that_read_nothing_cost_their_queues_and_no_more() {
    const DEAF: u64 = 40;
    let watched = Watched::start(plan().unwrap()).await.unwrap();
    let small = RawOptions { receive_buffer: Some(4096), ..watched.relay.raw() };
    let mut sender = enter(&watched.relay, &watched.relay.raw()).await.unwrap();
    let mut deaf = Vec::new();
    let (mut handle, mut addresses) = (Handle::NONE, Vec::new());
    for _ in 0..DEAF {
        let mut peer = RawPeer::connect(watched.relay.addr(), &small).await.unwrap();
        addresses.push(peer.hello(&HelloOptions::new(&Identity::random().unwrap())).await.unwrap().conn);
        peer.join(topic(1)).await.unwrap();
        deaf.push(peer);
        (handle, _) = sender.join(topic(1)).await.unwrap();
    }
    // Small and large frames: the queue counts what a frame costs beyond its payload.
    for payload in [Bytes::from_static(&[1; 64]), Bytes::from_static(&[1; 16 << 10])] {
        let frames = 8 * MIB / (payload.len() as u64 + 100);
        for to in &addresses {
            for _ in 0..frames {
                let payload = payload.clone();
                sender.feed(&Frame::Send { class: Class::Bulk, handle, to: *to, payload }).await.unwrap();
            }
            sender.sync(1).await.unwrap();
        }
    }
    // Each has a queue of 1 MiB and a batch of 64 KiB that is being written; the kernel's buffers are not the
    // process' memory. A third as much again is what an allocator leaves between pieces of two sizes.
    let bound = DEAF * (MIB + MIB / 8) * 4 / 3;
    watched.has_grown_at_most(bound, "40 peers that read nothing, 16 MiB sent to each").await.unwrap();
    // Most of them go. What the others keep lies in between.
    let mut number = 0;
    deaf.retain(|_| {
        number += 1;
        number % 10 == 0
    });
    let bound = deaf.len() as u64 * (MIB + MIB / 8) * 4 / 3 + 2 * MIB;
    watched.gives_back_all_but(bound, "36 of them gone").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verdicts_and_pongs_that_nobody_reads_are_bounded() {
    let watched = Watched::start(plan().unwrap()).await.unwrap();
    let patience = Duration::from_secs(2);
    let deaf = RawOptions { receive_buffer: Some(4096), ..watched.relay.raw().deadline(patience) };
    let addr = watched.relay.addr();
    let enter = move |options: RawOptions| async move {
        let mut peer = RawPeer::connect(addr, &options).await?;
        peer.hello(&HelloOptions::new(&Identity::random()?)).await?;
        anyhow::Ok(peer)
    };
    let stuck = many(10, |_| {
        let options = deaf.clone();
        async move {
            let mut sender = enter(options.clone()).await?;
            let (handle, _) = sender.join(topic(1)).await?;
            let mut sent = 0u64;
            loop {
                let to = ConnId(sent.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                let payload = Bytes::from_static(&[0; 512]);
                if sender.feed(&Frame::Send { class: Class::Normal, handle, to, payload }).await.is_err() {
                    break;
                }
                sent += 1;
                ensure!(sent < 1_000_000, "a million unread verdicts did not pause their reader");
            }
            let mut pinger = enter(options).await?;
            // The relay closes it as slow, or lets it wait; either way it keeps none of the 32 MiB.
            for _ in 0..2_000 {
                let padding = Bytes::from_static(&[0; 16 << 10]);
                if pinger.feed(&Frame::Ping { token: 1, padding }).await.is_err() {
                    break;
                }
            }
            Ok((sender, pinger))
        }
    })
    .await
    .unwrap();
    // What waits for a peer of the relay's own frames is at most 1 MiB.
    let bound = 10 * 2 * (MIB + MIB / 4);
    watched.has_grown_at_most(bound, "10 peers that read no verdicts, 10 that read no pongs").await.unwrap();
    drop(stuck);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_and_oversized_messages_leave_nothing_behind() {
    let watched = Watched::start(plan().unwrap()).await.unwrap();
    let mut pairs = JoinSet::new();
    for number in 0..8u64 {
        let mut sender = enter(&watched.relay, &watched.relay.raw()).await.unwrap();
        let mut receiver = RawPeer::connect(watched.relay.addr(), &watched.relay.raw()).await.unwrap();
        let to = receiver.hello(&HelloOptions::new(&Identity::random().unwrap())).await.unwrap().conn;
        let (handle, _) = sender.join(topic(number)).await.unwrap();
        receiver.join(topic(number)).await.unwrap();
        pairs.spawn(async move { while receiver.recv().await.is_ok() {} });
        pairs.spawn(async move {
            for _ in 0..4_000 {
                let payload = Bytes::from_static(&[2; 16 << 10]);
                sender.feed(&Frame::Send { class: Class::Bulk, handle, to, payload }).await.unwrap();
            }
            sender.sync(1).await.unwrap();
            let oversized = Bytes::from(vec![0; 64 << 20]);
            let refused = sender.send_bytes(oversized).await;
            assert!(refused.is_err() || sender.closed().await.is_ok());
        });
    }
    let mut senders_done = 0;
    while senders_done < 8 {
        pairs.join_next().await.unwrap().unwrap();
        senders_done += 1;
    }
    pairs.shutdown().await;
    let bound = 8 * (MIB + MIB / 4);
    watched.has_grown_at_most(bound, "8 floods of 16 KiB frames, then 64 MiB messages").await.unwrap();
}

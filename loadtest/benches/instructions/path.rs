//! A frame's whole way through a relay: from its bytes in one socket to its bytes in another.
//!
//! The relay is a real one on a real loopback connection, in a runtime of one thread. What the peers do runs
//! in the same runtime, but only in between: their writes fit the socket's buffer and their reads find
//! everything there, so neither waits, and the relay's tasks run only where the meter counts. In it are the
//! readiness of the socket, reading, decryption, the WebSocket, limits, routing, queueing, and the same back.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use culvert_loadtest::frames::{Dialer, LARGE_BUFFER, Peer, message};
use culvert_loadtest::plan::{Admission, Reach};
use culvert_relay::Config;
use culvert_relay::config::Tls;
use culvert_service_kit::tls::Files;
use culvert_testkit::certs::TestCa;
use culvert_testkit::relay::Embedded;
use culvert_wire::{Class, Frame, Kind, TopicId};
use tokio::runtime::Runtime;

use crate::meter::Meter;

/// Batches before the first that is counted.
const WARM_UP: usize = 20;
/// Batches that are counted.
const COUNTED: usize = 50;
/// Longest wait for a batch, under valgrind.
const LIMIT: Duration = Duration::from_secs(30);

/// A batch of frames between two peers.
#[derive(Clone, Copy)]
pub(crate) struct Batch {
    /// Whether both are connected by TLS.
    pub(crate) tls: bool,
    /// Payload bytes of a frame.
    pub(crate) payload: usize,
    /// Frames that come together.
    pub(crate) frames: usize,
}

/// Passes batches through a relay.
pub(crate) fn forward(meter: &mut Meter, batch: Batch) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (relay, mut sender, mut receiver) = runtime.block_on(connect(batch.tls))?;
    let bytes = runtime.block_on(join(&mut sender, &mut receiver, batch))?;
    for round in 0..WARM_UP + COUNTED {
        let written = at_once(&runtime, sender.link.write_all(&bytes));
        written.context("a batch does not fit the socket's buffer")??;
        let (until, mut arrived) = (Instant::now() + LIMIT, 0);
        while arrived < batch.frames {
            ensure!(Instant::now() < until, "{arrived} of {} frames arrived", batch.frames);
            // One turn of the scheduler: whoever is ready runs, and sockets are asked for readiness.
            if round < WARM_UP {
                runtime.block_on(tokio::task::yield_now());
            } else {
                meter.count(|| runtime.block_on(tokio::task::yield_now()));
            }
            arrived += take(&runtime, &mut receiver)?;
        }
    }
    meter.done((COUNTED * batch.frames) as u64);
    let _context = runtime.enter();
    drop(relay);
    Ok(())
}

/// A relay and two peers of it.
async fn connect(tls: bool) -> Result<(Embedded, Peer, Peer)> {
    let authority = TestCa::new("instructions")?;
    let leaf = authority.issue(&["localhost"])?;
    let mut config = Config::embedded(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    config.names = vec!["localhost".to_owned()];
    if tls {
        config.tls = Tls::Files(Files { certificate: leaf.cert_path(), key: leaf.key_path() });
    }
    let relay = Embedded::start(config).await?;
    let scheme = if tls { "wss" } else { "ws" };
    let reach = Reach {
        urls: vec![format!("{scheme}://localhost:{}", relay.addr().port()).parse()?],
        admission: Admission::Open,
        authority: Some(std::fs::read_to_string(authority.path())?),
    };
    let dialer = Dialer::new(&reach).await?;
    let sender = Peer::connect(&dialer, 0, LARGE_BUFFER).await?;
    let receiver = Peer::connect(&dialer, 0, LARGE_BUFFER).await?;
    Ok((relay, sender, receiver))
}

/// Both enter a topic; gives the bytes of a batch.
async fn join(sender: &mut Peer, receiver: &mut Peer, batch: Batch) -> Result<Vec<u8>> {
    let topic = TopicId([7; 32]);
    let (handle, _) = sender.join(topic).await?;
    receiver.join(topic).await?;
    // The sender has heard that the receiver came: nothing else is on its way to it.
    while !matches!(sender.receive().await?, Frame::PeerJoined { .. }) {}
    let payload = vec![0x5a; batch.payload].into();
    let frame = Frame::Send { class: Class::Normal, handle, to: receiver.conn, payload };
    Ok(message(&frame)?.repeat(batch.frames))
}

/// What a future gives without waiting; no other task runs meanwhile.
fn at_once<T>(runtime: &Runtime, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    runtime.block_on(std::future::poll_fn(|cx| {
        Poll::Ready(match future.as_mut().poll(cx) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        })
    }))
}

/// Takes the frames that are there.
fn take(runtime: &Runtime, receiver: &mut Peer) -> Result<usize> {
    let mut frames = 0;
    while let Some(filled) = at_once(runtime, receiver.fill()) {
        filled?;
        while let Some(message) = receiver.inbox.message()? {
            let kind = message.first().copied().and_then(Kind::from_number);
            frames += usize::from(kind == Some(Kind::Deliver));
        }
    }
    Ok(frames)
}

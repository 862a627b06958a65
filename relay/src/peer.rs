//! The life of one admitted connection: read, write and watch, in one task.
//!
//! Whichever of the three ends first ends the connection; its reason is told to the peer, counted and
//! logged, and the reader's drop takes it out of every topic and accounts for what it did not take.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use culvert_wire::{Close, Frame, Notice};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{Sink, SinkExt, StreamExt};
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::link::Link;
use crate::node::Node;
use crate::reader::Reader;
use crate::socket::{Socket, Written};

/// How long a peer may take to acknowledge a close, so that it reads the reason before the connection
/// is torn down.
const LINGER: Duration = Duration::from_secs(1);

/// A connection's WebSocket, taken apart so that it is read and written at the same time.
pub struct Halves {
    sink: SplitSink<WebSocketStream<Socket>, Message>,
    stream: SplitStream<WebSocketStream<Socket>>,
    written: Arc<Written>,
}

impl From<WebSocketStream<Socket>> for Halves {
    fn from(socket: WebSocketStream<Socket>) -> Self {
        let written = socket.get_ref().written().clone();
        let (sink, stream) = socket.split();
        Self { sink, stream, written }
    }
}

/// Runs an admitted connection to its end and gives the reason.
pub async fn run(
    node: &Arc<Node>,
    link: &Arc<Link>,
    mut reader: Box<Reader>,
    expiry: watch::Receiver<Option<u64>>,
    mut halves: Halves,
) -> Close {
    let Halves { sink, stream, written } = &mut halves;
    let close = tokio::select! {
        biased;
        close = write(node, link, written, sink) => close,
        close = reader.run(stream) => close,
        close = watch_over(node, link, expiry) => close,
    };
    // Told to the others first: nobody waits for a peer that lingers.
    link.outbox.close(close);
    drop(reader);
    node.metrics.closed[close].increment(1);
    if close != Close::Done
        && let Ok(mut socket) = halves.sink.reunite(halves.stream)
    {
        // Boxed, so that every idle peer's task does not keep room for it.
        Box::pin(async move { farewell(&mut socket, close).await }).await;
    }
    close
}

/// Says why, then waits a moment for the peer to read it: closing with unread bytes would reset the
/// connection and lose the reason.
pub async fn farewell(socket: &mut WebSocketStream<Socket>, close: Close) {
    let frame = CloseFrame { code: close.code().into(), reason: close.sentence().into() };
    let _ = tokio::time::timeout(LINGER, async {
        socket.close(Some(frame)).await?;
        while let Some(message) = socket.next().await {
            message?;
        }
        Ok::<(), tungstenite::Error>(())
    })
    .await;
}

/// Writes what the queue holds: everything that is ready, then one flush.
async fn write<S>(node: &Node, link: &Link, bytes: &Written, sink: &mut S) -> Close
where
    S: Sink<Message, Error = tungstenite::Error> + Unpin,
{
    let most = node.config.limits.write_buffer;
    let mut batch: Vec<Bytes> = Vec::new();
    loop {
        let taken = std::future::poll_fn(|cx| link.outbox.poll_take(&mut batch, most, cx)).await;
        match taken {
            // Not taken back if the socket dies under them: how much of them it carried nobody knows.
            Ok(payloads) => node.metrics.frames_delivered.increment(payloads as u64),
            Err(close) => return close,
        }
        let frames = batch.len() as u64;
        let written = deadline(node.config.timing.write, bytes, async {
            for frame in batch.drain(..) {
                sink.feed(Message::Binary(frame)).await?;
            }
            sink.flush().await
        });
        match written.await {
            Some(Ok(())) => {
                node.metrics.frames_written.increment(frames);
                node.metrics.flushes.increment(1);
            }
            Some(Err(_)) => return Close::Done,
            None => return Close::Slow,
        }
    }
}

/// `None` once nothing at all was written for `limit`, however long `work` takes in all.
async fn deadline<T>(limit: Duration, bytes: &Written, work: impl Future<Output = T>) -> Option<T> {
    let mut work = std::pin::pin!(work);
    loop {
        let before = bytes.get();
        match tokio::time::timeout(limit, &mut work).await {
            Ok(done) => return Some(done),
            Err(_) if bytes.get() == before => return None,
            Err(_) => {}
        }
    }
}

/// Ends a connection that is silent for too long or whose admission has ended.
async fn watch_over(node: &Node, link: &Link, mut expiry: watch::Receiver<Option<u64>>) -> Close {
    let timing = &node.config.timing;
    let mut seen = link.received();
    let mut silent_since = tokio::time::Instant::now();
    loop {
        let expires_at = *expiry.borrow_and_update();
        let now = node.clock.unix_seconds();
        let left = expires_at.map(|end| Duration::from_secs(end.saturating_sub(now)));
        if left == Some(Duration::ZERO) {
            return Close::TicketExpired;
        }
        let idle_in = (silent_since + timing.idle).saturating_duration_since(tokio::time::Instant::now());
        let until_notice = left.map(|left| left.saturating_sub(timing.expiry_notice));
        let next = match (left, until_notice) {
            (_, Some(notice)) if !notice.is_zero() => idle_in.min(notice),
            (Some(left), _) => idle_in.min(left),
            _ => idle_in,
        };
        tokio::select! {
            () = tokio::time::sleep(next) => {}
            _ = expiry.changed() => continue,
        }
        if until_notice.is_some_and(|notice| !notice.is_zero() && notice <= next)
            && let Some(expires_at) = expires_at
        {
            link.outbox.push_own(&Frame::Notice(Notice::Expiring { expires_at }));
        }
        let received = link.received();
        if received != seen || link.is_paused() {
            seen = received;
            silent_since = tokio::time::Instant::now();
        } else if silent_since.elapsed() >= timing.idle {
            return Close::Idle;
        }
    }
}

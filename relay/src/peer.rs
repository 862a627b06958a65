//! The life of one admitted connection: read, write and watch, in one task.
//!
//! Whichever of the three ends first ends the connection; its reason is told to the peer, counted and
//! logged, and the reader's drop takes it out of every topic and accounts for what it did not take.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use culvert_wire::{Close, Frame, Notice};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::link::Link;
use crate::node::Node;
use crate::reader::Reader;
use crate::websocket::{Outgoing, WebSocket};

/// Runs an admitted connection to its end and gives the reason.
pub async fn run(
    node: &Arc<Node>,
    link: &Arc<Link>,
    mut reader: Box<Reader>,
    expiry: watch::Receiver<Option<u64>>,
    socket: &mut WebSocket,
) -> Close {
    let (mut incoming, mut outgoing) = socket.split();
    let close = tokio::select! {
        biased;
        close = write(node, link, &mut outgoing) => close,
        close = reader.run(&mut incoming) => close,
        close = watch_over(node, link, expiry) => close,
    };
    // Told to the others first: nobody waits for a peer that lingers.
    link.outbox.close(close);
    drop(reader);
    node.metrics.closed[close].increment(1);
    if close != Close::Done || socket.is_closing() {
        // Boxed, so that every idle peer's task does not keep room for it.
        Box::pin(socket.close(close)).await;
    }
    close
}

/// Writes what the queue holds: everything that is ready, with as few system calls as can be.
async fn write(node: &Node, link: &Link, outgoing: &mut Outgoing<'_>) -> Close {
    let most = node.config.limits.write_buffer;
    loop {
        let taken = std::future::poll_fn(|cx| {
            let taken = link.outbox.poll_take(outgoing.batch(), most, cx);
            if taken.is_pending() {
                outgoing.rest();
            }
            taken
        });
        match taken.await {
            // Not taken back if the socket dies under them: how much of them it carried nobody knows.
            Ok(payloads) => node.metrics.frames_delivered.increment(payloads as u64),
            Err(close) => return close,
        }
        let (frames, before) = (outgoing.batch().len() as u64, outgoing.total());
        // Usually the kernel takes all of it at once, and no timer is needed.
        let at_once = std::future::poll_fn(|cx| Poll::Ready(outgoing.poll_flush(cx)));
        let flushed = match at_once.await {
            Poll::Ready(flushed) => Some(flushed),
            // Boxed, as most peers never need it.
            Poll::Pending => Box::pin(flush_in_time(outgoing, node.config.timing.write)).await,
        };
        match flushed {
            Some(Ok(())) => {
                node.metrics.frames_written.increment(frames);
                node.metrics.flushes.increment(1);
                if outgoing.total() - before >= most as u64 {
                    node.turns.give_way_if_few().await;
                }
            }
            Some(Err(_)) => return Close::Done,
            None => return Close::Slow,
        }
    }
}

/// `None` once nothing at all was written for `limit`, however long it takes in all.
async fn flush_in_time(outgoing: &mut Outgoing<'_>, limit: Duration) -> Option<io::Result<()>> {
    let mut timer = pin!(tokio::time::sleep(limit));
    let mut before = outgoing.total();
    std::future::poll_fn(|cx| {
        if let Poll::Ready(flushed) = outgoing.poll_flush(cx) {
            return Poll::Ready(Some(flushed));
        }
        if outgoing.total() != before {
            before = outgoing.total();
            timer.as_mut().reset(Instant::now() + limit);
        }
        timer.as_mut().poll(cx).map(|()| None)
    })
    .await
}

/// Ends a connection that is silent for too long or whose admission has ended.
async fn watch_over(node: &Node, link: &Link, mut expiry: watch::Receiver<Option<u64>>) -> Close {
    let timing = &node.config.timing;
    let mut seen = link.received();
    let mut silent_since = Instant::now();
    loop {
        let expires_at = *expiry.borrow_and_update();
        let now = node.clock.unix_seconds();
        let left = expires_at.map(|end| Duration::from_secs(end.saturating_sub(now)));
        if left == Some(Duration::ZERO) {
            return Close::TicketExpired;
        }
        let idle_in = (silent_since + timing.idle).saturating_duration_since(Instant::now());
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
            silent_since = Instant::now();
        } else if silent_since.elapsed() >= timing.idle {
            return Close::Idle;
        }
    }
}

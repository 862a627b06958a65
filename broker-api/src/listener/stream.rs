//! A connection that takes a seat, and is cut off when nobody takes what is written to it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use culvert_service_kit::metric_set::Gauge;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};

/// One of the connections that a broker may have; given back when dropped.
pub(super) struct Seat {
    _permit: OwnedSemaphorePermit,
    taken: Gauge,
}

impl Seat {
    /// Counts the connection.
    pub(super) fn new(permit: OwnedSemaphorePermit, taken: Gauge) -> Self {
        taken.increment(1.0);
        Self { _permit: permit, taken }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.taken.decrement(1.0);
    }
}

/// A stream with its seat, which goes wherever the stream goes: an upgrade takes both.
pub(super) struct Seated<S> {
    stream: S,
    _seat: Seat,
    patience: Duration,
    /// Since a write found no room; there only then.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Seated<S> {
    /// A stream whose writes may wait for `patience` while the other side takes nothing.
    pub(super) fn new(stream: S, seat: Seat, patience: Duration) -> Self {
        Self { stream, _seat: seat, patience, stalled: None }
    }

    /// Passes on what came of a write, or ends the wait for one.
    fn hold<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let patience = self.patience;
        ready!(self.stalled.get_or_insert_with(|| Box::pin(sleep(patience))).as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Seated<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Seated<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.hold(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.hold(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.hold(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.hold(cx, ended)
    }
}

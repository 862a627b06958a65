//! A peer's socket: TCP with or without TLS, counted.
//!
//! An idle socket owns no buffer. What is read comes into a buffer of the thread (`scratch`), is opened
//! there and handed on at once; what is written goes out from where it is, or is gathered and sealed in
//! such a buffer. Only what cannot be finished stays: half a TLS record, bytes whose turn has not come,
//! records that the kernel did not take. Everything here is cancel safe.

mod batch;
mod remainder;
mod scratch;
mod session;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use metrics::Counter;
use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use crate::metrics::Metrics;

pub use batch::Batch;
pub use remainder::Remainder;

use batch::MOST_SLICES;
use session::{MOST_CARRIED, Session, sealed_len};

/// Bytes that are gathered for one write: the batch of a writer, and the message that goes over it.
const GATHERED: usize = 80 * 1024;
/// Bytes of one TLS record.
const RECORD: usize = 16 * 1024;

/// A peer's socket.
pub struct Socket {
    tcp: TcpStream,
    tls: Option<Box<Mutex<Session>>>,
    unread: Remainder,
    read: Counter,
    written: Counter,
}

/// Where a socket is read.
pub struct Receiver<'a> {
    tcp: ReadHalf<'a>,
    tls: Option<&'a Mutex<Session>>,
    unread: &'a mut Remainder,
    read: &'a Counter,
}

/// Where a socket is written.
pub struct Sender<'a> {
    tcp: WriteHalf<'a>,
    tls: Option<&'a Mutex<Session>>,
    written: &'a Counter,
    total: u64,
}

impl Socket {
    /// Without TLS.
    pub fn clear(tcp: TcpStream, metrics: &Metrics) -> Self {
        let (read, written) = (metrics.bytes_read.clone(), metrics.bytes_written.clone());
        Self { tcp, tls: None, unread: Remainder::default(), read, written }
    }

    /// With TLS, after its handshake.
    ///
    /// # Errors
    /// The handshake fails, which the peer has been told, or the peer goes away.
    pub async fn secure(tcp: TcpStream, config: Arc<ServerConfig>, metrics: &Metrics) -> io::Result<Self> {
        let session = Session::new(config)?;
        let mut socket = Self { tls: Some(Box::new(Mutex::new(session))), ..Self::clear(tcp, metrics) };
        std::future::poll_fn(|cx| socket.poll_handshake(cx)).await?;
        Ok(socket)
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (mut receiver, mut sender) = self.split();
        loop {
            ready!(sender.poll_flush(cx))?;
            if !sender.tls.is_some_and(|tls| tls.lock().is_handshaking()) {
                return Poll::Ready(Ok(()));
            }
            // Nothing is taken: what comes right behind the handshake is for whoever reads next.
            match ready!(receiver.poll_receive(cx, RECORD, |_| 0)) {
                Ok(true) => {}
                Ok(false) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Err(error) => {
                    // The alert, as far as the kernel takes it.
                    let _ = sender.poll_flush(cx);
                    return Poll::Ready(Err(error));
                }
            }
        }
    }

    /// Whether there is TLS.
    pub fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// Keeps bytes that somebody else has read from this socket already.
    pub fn unread(&mut self, bytes: &[u8]) {
        self.unread.keep(bytes);
    }

    /// Both directions, for use at the same time.
    pub fn split(&mut self) -> (Receiver<'_>, Sender<'_>) {
        let (receive, send) = self.tcp.split();
        let tls = self.tls.as_deref();
        (
            Receiver { tcp: receive, tls, unread: &mut self.unread, read: &self.read },
            Sender { tcp: send, tls, written: &self.written, total: 0 },
        )
    }
}

impl Receiver<'_> {
    /// Hands what has come to `take`, which says how many bytes it took; the rest is kept and comes first
    /// the next time. Reads at most about `most` bytes from the kernel, once, and not at all while there
    /// is something kept. `false` once nothing more can come.
    ///
    /// # Errors
    /// The connection is broken, or what came is not TLS.
    pub fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
        mut take: impl FnMut(&[u8]) -> usize,
    ) -> Poll<io::Result<bool>> {
        if !self.unread.is_empty() {
            let taken = take(self.unread.bytes());
            self.unread.advance(taken);
            return Poll::Ready(Ok(true));
        }
        match self.tls {
            None => scratch::for_reading(most, |scratch| {
                let came = ready!(self.poll_read(cx, scratch))?;
                let taken = if came > 0 { take(&scratch[..came]) } else { 0 };
                self.unread.keep(&scratch[taken..came]);
                Poll::Ready(Ok(came > 0))
            }),
            Some(tls) => self.poll_open(cx, tls, most, take),
        }
    }

    fn poll_open(
        &mut self,
        cx: &mut Context<'_>,
        tls: &Mutex<Session>,
        most: usize,
        mut take: impl FnMut(&[u8]) -> usize,
    ) -> Poll<io::Result<bool>> {
        let mut session = tls.lock();
        if session.is_closed() {
            return Poll::Ready(Ok(false));
        }
        let carried = session.carried();
        if carried > MOST_CARRIED {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        scratch::for_reading(MOST_CARRIED + most, |scratch| {
            let came = ready!(self.poll_read(cx, &mut scratch[carried..carried + most]))?;
            if came == 0 {
                return Poll::Ready(Ok(false));
            }
            let unread = &mut *self.unread;
            session.open(&mut scratch[..carried + came], |plain| {
                let taken = if unread.is_empty() { take(plain) } else { 0 };
                unread.keep(&plain[taken..]);
            })?;
            Poll::Ready(Ok(true))
        })
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut buffer))?;
        let came = buffer.filled().len();
        self.read.increment(came as u64);
        Poll::Ready(Ok(came))
    }
}

impl Sender<'_> {
    /// Bytes that the kernel took since the socket was split, TLS included.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Writes until nothing is left of `batch`, nor of what TLS made of it.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<()>> {
        if let Some(tls) = self.tls {
            while !batch.is_empty() {
                ready!(self.poll_flush(cx))?;
                scratch::for_gathering(GATHERED, |scratch| {
                    let plain = batch.contiguous(scratch);
                    let taken = plain.len();
                    self.seal(cx, &mut tls.lock(), plain)?;
                    batch.advance(taken);
                    Ok::<_, io::Error>(())
                })?;
            }
            return self.poll_flush(cx);
        }
        while !batch.is_empty() {
            let written = scratch::for_gathering(GATHERED, |scratch| {
                let mut slices = [IoSlice::new(&[]); MOST_SLICES];
                let count = batch.gather(scratch, &mut slices);
                self.poll_write(cx, &slices[..count])
            });
            batch.advance(ready!(written)?);
        }
        Poll::Ready(Ok(()))
    }

    /// Seals `plain` and writes as much of that as the kernel takes; the rest waits in the session, which
    /// had nothing waiting.
    fn seal(&mut self, cx: &mut Context<'_>, session: &mut Session, plain: &[u8]) -> io::Result<()> {
        let room = sealed_len(plain.len());
        scratch::for_sealing(room, |sealed| {
            let len = session.seal(plain, sealed)?;
            // What rustls had to say went ahead of it.
            if !session.outgoing().is_empty() {
                session.outgoing().keep(&sealed[..len]);
                return Ok(());
            }
            let mut sent = 0;
            while sent < len {
                match self.poll_write(cx, &[IoSlice::new(&sealed[sent..len])]) {
                    Poll::Ready(written) => sent += written?,
                    Poll::Pending => break,
                }
            }
            session.outgoing().keep(&sealed[sent..len]);
            Ok(())
        })
    }

    /// Writes what TLS has left.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(tls) = self.tls else { return Poll::Ready(Ok(())) };
        let mut session = tls.lock();
        while !session.outgoing().is_empty() {
            let written = ready!(self.poll_write(cx, &[IoSlice::new(session.outgoing().bytes())]))?;
            session.outgoing().advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Tells the peer that nothing more comes, as far as the layers below know how to.
    pub fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(tls) = self.tls {
            tls.lock().say_closed();
        }
        self.poll_flush(cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let tcp = Pin::new(&mut self.tcp);
        let written = ready!(match slices {
            [slice] => tcp.poll_write(cx, slice),
            slices => tcp.poll_write_vectored(cx, slices),
        })?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.total += written as u64;
        self.written.increment(written as u64);
        Poll::Ready(Ok(written))
    }
}

/// For the upgrade, which reads and writes a stream of bytes.
impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (mut receiver, _) = self.get_mut().split();
        let before = buffer.filled().len();
        let most = buffer.remaining().clamp(1, RECORD);
        while buffer.filled().len() == before {
            let came = ready!(receiver.poll_receive(cx, most, |bytes| {
                let taken = bytes.len().min(buffer.remaining());
                buffer.put_slice(&bytes[..taken]);
                taken
            }))?;
            if !came {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let (_, mut sender) = self.get_mut().split();
        let Some(tls) = sender.tls else { return sender.poll_write(cx, &[IoSlice::new(bytes)]) };
        ready!(sender.poll_flush(cx))?;
        let taken = bytes.len().min(RECORD);
        sender.seal(cx, &mut tls.lock(), &bytes[..taken])?;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().split().1.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = self.get_mut();
        ready!(socket.split().1.poll_close(cx))?;
        Pin::new(&mut socket.tcp).poll_shutdown(cx)
    }
}

//! The socket of a peer, shared within one thread by those who write to it and the one who reads.
//!
//! Most write through [`Link::write_all`], a batch at a time, and wait. Frames that are due at a moment of
//! their own go through [`Link::post`], which never waits: what the kernel does not take is kept, up to a
//! bound, and written on by whoever reads.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::AsyncWrite;

use super::error::Ended;
use super::inbox::Inbox;
use super::socket::Socket;

/// Most bytes that are kept for a connection that takes no more: some windows of large frames.
const KEPT: usize = 4 << 20;

/// The socket of a peer. Clones are the same socket; it is closed when the last one is dropped.
#[derive(Clone)]
pub struct Link(Rc<RefCell<State>>);

/// A link that does not keep its socket open.
#[derive(Clone)]
pub struct WeakLink(Weak<RefCell<State>>);

struct State {
    socket: Socket,
    /// Posted, and not yet taken by the socket from `taken` on.
    kept: Vec<u8>,
    taken: usize,
    /// TLS holds bytes that the kernel has not taken.
    unflushed: bool,
    /// A batch is being written: nothing may come between.
    writing: bool,
    /// Whoever reads, to be woken when something has to be written on.
    reader: Option<Waker>,
}

impl Link {
    /// A link over this socket.
    pub fn new(socket: Socket) -> Self {
        let (kept, taken) = (Vec::new(), 0);
        Self(Rc::new(RefCell::new(State {
            socket,
            kept,
            taken,
            unflushed: false,
            writing: false,
            reader: None,
        })))
    }

    /// The same link, not keeping the socket open.
    pub fn downgrade(&self) -> WeakLink {
        WeakLink(Rc::downgrade(&self.0))
    }

    /// Writes all of it and flushes. Not cancel safe: the connection is of no use after half a message.
    ///
    /// # Errors
    /// The connection ended.
    pub async fn write_all(&self, bytes: &[u8]) -> Result<(), Ended> {
        let mut rest = bytes;
        let written = poll_fn(|cx| self.0.borrow_mut().poll_write_all(cx, &mut rest)).await;
        self.0.borrow_mut().writing = false;
        written
    }

    /// Writes a message without ever waiting. False if it was not taken, because too much waits already
    /// or a batch is being written.
    ///
    /// # Errors
    /// The connection ended.
    pub fn post(&self, message: &[u8]) -> Result<bool, Ended> {
        self.0.borrow_mut().post(message)
    }

    /// Reads once, and writes on what was posted before. Cancel safe. One task only.
    ///
    /// # Errors
    /// The connection ended.
    pub async fn fill(&self, inbox: &mut Inbox) -> Result<(), Ended> {
        poll_fn(|cx| self.poll_fill(cx, inbox)).await
    }

    fn poll_fill(&self, cx: &mut Context<'_>, inbox: &mut Inbox) -> Poll<Result<(), Ended>> {
        let state = &mut *self.0.borrow_mut();
        if !state.writing && state.is_behind() {
            // What still waits is written on when the socket has room, which wakes this task.
            if let Poll::Ready(Err(error)) = state.poll_kept(cx) {
                return Poll::Ready(Err(error));
            }
        }
        let filled = inbox.poll_fill(&mut state.socket, cx);
        if filled.is_pending() && !state.reader.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            state.reader = Some(cx.waker().clone());
        }
        filled
    }

    /// Whether something waits to be written.
    pub fn is_behind(&self) -> bool {
        self.0.borrow().is_behind()
    }
}

impl WeakLink {
    /// The link, while its socket is open.
    pub fn upgrade(&self) -> Option<Link> {
        self.0.upgrade().map(Link)
    }
}

impl State {
    fn is_behind(&self) -> bool {
        self.unflushed || !self.kept.is_empty()
    }

    fn poll_write_all(&mut self, cx: &mut Context<'_>, rest: &mut &[u8]) -> Poll<Result<(), Ended>> {
        if !self.writing {
            if self.is_behind() {
                ready!(self.poll_kept(cx))?;
            }
            self.writing = true;
        }
        while !rest.is_empty() {
            let written = ready!(Pin::new(&mut self.socket).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(Ended::Cut("it takes no more".to_owned())));
            }
            *rest = &rest[written..];
        }
        Poll::Ready(Ok(ready!(Pin::new(&mut self.socket).poll_flush(cx))?))
    }

    fn poll_kept(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        while self.taken < self.kept.len() {
            self.taken += ready!(Pin::new(&mut self.socket).poll_write(cx, &self.kept[self.taken..]))?;
        }
        self.kept.clear();
        self.taken = 0;
        self.unflushed = true;
        ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    fn post(&mut self, message: &[u8]) -> Result<bool, Ended> {
        let waiting = self.kept.len() - self.taken;
        if self.writing || waiting + message.len() > KEPT {
            return Ok(false);
        }
        let cx = &mut Context::from_waker(Waker::noop());
        if self.is_behind() {
            if self.taken > self.kept.len() / 2 {
                self.kept.drain(..self.taken);
                self.taken = 0;
            }
            self.kept.extend_from_slice(message);
            return Ok(true);
        }
        let mut written = 0;
        while written < message.len() {
            match Pin::new(&mut self.socket).poll_write(cx, &message[written..]) {
                Poll::Ready(taken) => written += taken?,
                Poll::Pending => break,
            }
        }
        self.kept.extend_from_slice(&message[written..]);
        if let Poll::Ready(flushed) = Pin::new(&mut self.socket).poll_flush(cx) {
            flushed?;
        } else {
            self.unflushed = true;
        }
        if self.is_behind()
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Bytes of a message; some of them fit what the kernel takes.
    const MESSAGE: usize = 64 << 10;

    async fn pair() -> (Link, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (Link::new(Socket::Plain(near.unwrap())), far.unwrap().0)
    }

    #[tokio::test]
    async fn what_the_kernel_does_not_take_is_kept_up_to_a_bound_and_written_on_in_order() {
        let (link, mut far) = pair().await;
        let mut posted = 0;
        while link.post(&[posted; MESSAGE]).unwrap() {
            posted += 1;
        }
        assert!(link.is_behind());
        assert!(usize::from(posted) * MESSAGE > KEPT, "{posted} messages: the kernel takes some, too");
        let read = async {
            let mut message = [0; MESSAGE];
            for number in 0..posted {
                far.read_exact(&mut message).await.unwrap();
                assert!(message.iter().all(|byte| *byte == number), "message {number}");
            }
            // An empty message back, which ends the reading that writes on.
            far.write_all(&[0x82, 0]).await.unwrap();
        };
        let mut inbox = Inbox::new(64);
        let both = async { tokio::join!(link.fill(&mut inbox), read) };
        tokio::time::timeout(Duration::from_secs(30), both).await.unwrap().0.unwrap();
        assert!(!link.is_behind());
        assert_eq!(inbox.message().unwrap(), Some(&[][..]));
        assert!(link.post(&[7]).unwrap());
    }

    #[tokio::test]
    async fn nothing_comes_between_the_parts_of_a_batch() {
        let (link, mut far) = pair().await;
        let batch = vec![1; 32 << 20];
        let write = async {
            // Not all of it fits, so the first poll leaves it half written.
            let mut writing = std::pin::pin!(link.write_all(&batch));
            assert!(futures_util::poll!(&mut writing).is_pending());
            assert!(!link.post(&[2]).unwrap());
            writing.await.unwrap();
            assert!(link.post(&[3]).unwrap());
        };
        let read = async {
            let mut all = vec![0; batch.len() + 1];
            far.read_exact(&mut all).await.unwrap();
            assert!(all[..batch.len()].iter().all(|byte| *byte == 1));
            assert_eq!(all.last(), Some(&3));
        };
        let both = async { tokio::join!(write, read) };
        tokio::time::timeout(Duration::from_secs(30), both).await.unwrap();
    }
}

//! The least that anything between two sockets must do: read what is there and write it to the other one.
//!
//! One thread; for each direction of each pair a task that waits until its socket is readable, reads once into
//! a buffer that all tasks share (so it stays in the processor's cache) and writes that at once: 64 KiB, or no
//! more than one large frame, as something must that handles them one by one.
//! Only what the other socket does not take is kept. A whole batch costs one `recv`, one `send` and its part
//! of an `epoll_wait`: nothing is looked at, counted, limited or accounted for. It can be told to apply a mask to
//! every byte on the way, as whoever forwards WebSocket messages of clients must (RFC 6455 section 5.3).

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::Result;
use clap::Parser;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The loop's own process.
#[derive(Parser, Clone, Debug)]
pub(crate) struct CopyArgs {
    /// Where it accepts connections.
    #[arg(long)]
    listen: SocketAddr,
    /// Where it makes one for each.
    #[arg(long)]
    to: SocketAddr,
    /// Bytes read at once.
    #[arg(long)]
    buffer: usize,
    /// Applies a mask to what it copies.
    #[arg(long)]
    mask: bool,
}

/// What all directions share.
struct Shared {
    buffer: RefCell<Vec<u8>>,
    mask: bool,
}

/// Copies until it is killed.
pub(crate) async fn copy(args: &CopyArgs) -> Result<()> {
    let listener = TcpListener::bind(args.listen).await?;
    let shared = Rc::new(Shared { buffer: RefCell::new(vec![0; args.buffer]), mask: args.mask });
    let mut directions = JoinSet::new();
    loop {
        let (near, _) = listener.accept().await?;
        let far = TcpStream::connect(args.to).await?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let (near, far) = (Rc::new(near), Rc::new(far));
        directions.spawn_local(one_way(near.clone(), far.clone(), shared.clone()));
        directions.spawn_local(one_way(far, near, shared.clone()));
    }
}

/// Copies until one of them ends.
async fn one_way(from: Rc<TcpStream>, to: Rc<TcpStream>, shared: Rc<Shared>) -> io::Result<()> {
    loop {
        from.readable().await?;
        let kept = {
            let mut buffer = shared.buffer.borrow_mut();
            let read = match from.try_read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            if shared.mask {
                mask(&mut buffer[..read]);
            }
            let written = match to.try_write(&buffer[..read]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                written => written?,
            };
            buffer[written..read].to_vec()
        };
        let mut rest = kept.as_slice();
        while !rest.is_empty() {
            to.writable().await?;
            match to.try_write(rest) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => rest = &rest[written?..],
            }
        }
    }
}

/// A mask over all bytes, as the relay applies one. It is of zeros, which the compiler does not know, so that
/// headers arrive as they were.
fn mask(bytes: &mut [u8]) {
    let mask = std::hint::black_box(0_u64);
    let (words, rest) = bytes.as_chunks_mut();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ mask).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.to_ne_bytes()) {
        *byte ^= mask;
    }
}

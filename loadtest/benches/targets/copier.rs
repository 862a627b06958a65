//! The least that anything between two sockets must do: read what is there and write it to the other one.
//!
//! One thread; for each direction of each pair a task that waits until its socket is readable, reads once into
//! a buffer that all tasks share (so it stays in the processor's cache) and writes that at once: 64 KiB, or no
//! more than one large frame, as something must that handles them one by one.
//! Only what the other socket does not take is kept. A whole batch costs one `recv`, one `send` and its part
//! of an `epoll_wait`: nothing is looked at, counted, limited or accounted for.

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
}

/// Copies until it is killed.
pub(crate) async fn copy(args: &CopyArgs) -> Result<()> {
    let listener = TcpListener::bind(args.listen).await?;
    let buffer = Rc::new(RefCell::new(vec![0; args.buffer]));
    let mut directions = JoinSet::new();
    loop {
        let (near, _) = listener.accept().await?;
        let far = TcpStream::connect(args.to).await?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let (near, far) = (Rc::new(near), Rc::new(far));
        directions.spawn_local(one_way(near.clone(), far.clone(), buffer.clone()));
        directions.spawn_local(one_way(far, near, buffer.clone()));
    }
}

/// Copies until one of them ends.
async fn one_way(from: Rc<TcpStream>, to: Rc<TcpStream>, buffer: Rc<RefCell<Vec<u8>>>) -> io::Result<()> {
    loop {
        from.readable().await?;
        let kept = {
            let mut buffer = buffer.borrow_mut();
            let read = match from.try_read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
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

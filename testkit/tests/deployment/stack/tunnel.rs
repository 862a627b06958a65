//! Names and port 443 of the outside: a proxy that leads every CONNECT to one port of loopback.

use std::net::SocketAddr;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Longest request that is read.
const MOST: usize = 4096;

/// Ends when it is dropped.
pub(super) struct Tunnel {
    addr: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Tunnel {
    pub(super) async fn to(port: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (addr, mut tasks) = (listener.local_addr()?, JoinSet::new());
        tasks.spawn(async move {
            let mut tunnels = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                tunnels.spawn(async move {
                    // Either side may go at any time.
                    let _ = lead(stream, port).await;
                });
                while tunnels.try_join_next().is_some() {}
            }
        });
        Ok(Self { addr, _tasks: tasks })
    }

    /// What clients are told.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

async fn lead(mut from: TcpStream, port: SocketAddr) -> Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        anyhow::ensure!(request.len() < MOST && from.read_buf(&mut request).await? > 0, "no request");
    }
    anyhow::ensure!(request.starts_with(b"CONNECT "), "not for a proxy");
    let mut to = TcpStream::connect(port).await?;
    from.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    copy_bidirectional(&mut from, &mut to).await?;
    Ok(())
}

//! One end of a proxied connection, in clear text or TLS, with a way to reset it.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

pub(super) enum End {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl End {
    /// Closes so that the other side sees a reset instead of an end.
    pub(super) fn reset(self) {
        // It fails on a socket that is reset already.
        let _ = socket2::SockRef::from(self.tcp()).set_linger(Some(std::time::Duration::ZERO));
    }

    /// Its address on this side.
    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp().local_addr()
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            End::Plain(stream) => stream,
            End::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl AsyncRead for End {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            End::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            End::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            End::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            End::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            End::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            End::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            End::Plain(stream) => Pin::new(stream).poll_flush(cx),
            End::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            End::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            End::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

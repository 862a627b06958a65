//! Messages over a stream of bytes: each behind its length, four bytes, big endian.

use async_trait::async_trait;
use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::transfer::MAX_MESSAGE;
use crate::transport::Connection;

/// A [`Connection`] over a stream. Its integrity is the stream's: TLS, or a loopback.
#[derive(Debug)]
pub struct Framed<S> {
    /// Never locked: it only makes what one task uses at a time fit for `Sync`.
    stream: Mutex<S>,
    peer: String,
    /// Received and not taken yet; survives a `receive` that was dropped.
    buffer: BytesMut,
}

impl<S> Framed<S> {
    /// Over a stream with somebody.
    pub fn new(stream: S, peer: String) -> Self {
        Self { stream: Mutex::new(stream), peer, buffer: BytesMut::new() }
    }
}

#[async_trait]
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Connection for Framed<S> {
    async fn send(&mut self, data: &[u8]) -> anyhow::Result<()> {
        anyhow::ensure!(data.len() <= MAX_MESSAGE, "a message is too long for this connection");
        let mut frame = Vec::with_capacity(4 + data.len());
        frame.extend_from_slice(&u32::try_from(data.len())?.to_be_bytes());
        frame.extend_from_slice(data);
        self.stream.get_mut().write_all(&frame).await?;
        Ok(self.stream.get_mut().flush().await?)
    }

    async fn receive(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        loop {
            if let Some((head, rest)) = self.buffer.split_first_chunk::<4>() {
                let len = usize::try_from(u32::from_be_bytes(*head))?;
                anyhow::ensure!(len <= MAX_MESSAGE, "the other side sent a message that is too long");
                if rest.len() >= len {
                    let mut frame = self.buffer.split_to(4 + len);
                    return Ok(Some(frame.split_off(4).to_vec()));
                }
                self.buffer.reserve(4 + len);
            }
            if self.stream.get_mut().read_buf(&mut self.buffer).await? == 0 {
                anyhow::ensure!(self.buffer.is_empty(), "the connection ended in the middle of a message");
                return Ok(None);
            }
        }
    }

    async fn close(&mut self) -> anyhow::Result<()> {
        Ok(self.stream.get_mut().shutdown().await?)
    }

    fn peer_id(&self) -> &str {
        &self.peer
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        Ok(self.stream.get_mut().flush().await?)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn messages_arrive_whole_and_in_order_and_the_end_is_seen() {
        let (one, two) = tokio::io::duplex(1000);
        let (mut one, mut two) = (Framed::new(one, String::new()), Framed::new(two, String::new()));
        let messages = [vec![], vec![1; 1], vec![2; 5000], vec![3; MAX_MESSAGE]];
        let sending = async {
            for message in &messages {
                one.send(message).await.unwrap();
            }
            assert!(one.send(&vec![0; MAX_MESSAGE + 1]).await.is_err());
            one.close().await.unwrap();
        };
        // Dropped before anything came: nothing is lost.
        assert!(tokio::time::timeout(Duration::ZERO, two.receive()).await.is_err());
        let rest = async {
            let mut got = Vec::new();
            while let Some(message) = two.receive().await.unwrap() {
                got.push(message);
            }
            got
        };
        let ((), got) = tokio::join!(sending, rest);
        assert_eq!(got, messages);
    }

    #[tokio::test]
    async fn a_length_beyond_the_limit_and_a_torn_message_are_errors() {
        for bytes in [&[0xff_u8; 8][..], &[0, 0, 0, 9, 1]] {
            let (mut one, two) = tokio::io::duplex(1000);
            one.write_all(bytes).await.unwrap();
            drop(one);
            assert!(Framed::new(two, String::new()).receive().await.is_err());
        }
    }
}

//! Noise over TCP.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use snow::{Builder, HandshakeState, StatelessTransportState};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::Secret;

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
/// Only the same version understands the other's plans and samples.
const PROLOGUE: &str = concat!("culvert-loadtest control ", env!("CARGO_PKG_VERSION"));
/// For the handshake, and for each write.
const DEADLINE: Duration = Duration::from_secs(10);
/// Largest Noise message.
const LARGEST: usize = 65_535;
/// What ChaChaPoly adds to each.
const TAG: usize = 16;
/// Largest message: a sample with many histograms has some hundred KiB.
const LARGEST_MESSAGE: usize = 64 << 20;
/// Length of a message, before its text.
const LENGTH: usize = 4;

/// Why there is no channel, or no more.
#[derive(Debug, Error)]
pub enum ControlError {
    /// The other side cannot prove that it knows the secret.
    #[error("the other side has another secret, or is another version of culvert-loadtest")]
    Secret,
    /// It was silent for too long.
    #[error("the other side takes or says nothing for {DEADLINE:?}")]
    Silent,
    /// The connection ended.
    #[error("the connection ended")]
    Ended(#[source] Option<std::io::Error>),
    /// What arrived is not what the other side sent, or not what this version understands.
    #[error("the other side sent something that cannot be understood")]
    Garbled,
}

/// The sending half.
pub struct Sender {
    socket: OwnedWriteHalf,
    noise: Arc<StatelessTransportState>,
    number: u64,
}

/// The receiving half.
pub struct Receiver {
    socket: OwnedReadHalf,
    noise: Arc<StatelessTransportState>,
    number: u64,
    /// What arrived and is not yet a Noise message.
    sealed: Vec<u8>,
    /// What was opened and is not yet a message.
    open: Vec<u8>,
}

/// The coordinator's end.
///
/// # Errors
/// The worker has another secret, or does not answer.
pub async fn dial(socket: TcpStream, secret: &Secret) -> Result<(Sender, Receiver), ControlError> {
    let noise = builder(secret)?.build_initiator().map_err(|_| ControlError::Garbled)?;
    within(shake(socket, noise, true)).await
}

/// The worker's end.
///
/// # Errors
/// The coordinator has another secret, or is silent.
pub async fn accept(socket: TcpStream, secret: &Secret) -> Result<(Sender, Receiver), ControlError> {
    let noise = builder(secret)?.build_responder().map_err(|_| ControlError::Garbled)?;
    within(shake(socket, noise, false)).await
}

impl Sender {
    /// Sends one message. Not cancel safe.
    ///
    /// # Errors
    /// The connection ended, or the other side does not read.
    pub async fn send(&mut self, message: &impl Serialize) -> Result<(), ControlError> {
        let mut text = vec![0; LENGTH];
        serde_json::to_writer(&mut text, message).map_err(|_| ControlError::Garbled)?;
        let length = u32::try_from(text.len() - LENGTH).map_err(|_| ControlError::Garbled)?;
        text[..LENGTH].copy_from_slice(&length.to_be_bytes());
        let mut out = Vec::with_capacity(text.len() + text.len() / 1024 + 64);
        let mut sealed = vec![0; LARGEST];
        for part in text.chunks(LARGEST - TAG) {
            let sealed_len = self.noise.write_message(self.number, part, &mut sealed);
            let sealed_len = sealed_len.map_err(|_| ControlError::Garbled)?;
            self.number += 1;
            out.extend_from_slice(&length_of(sealed_len));
            out.extend_from_slice(&sealed[..sealed_len]);
        }
        within(async { self.socket.write_all(&out).await.map_err(ended) }).await
    }
}

impl Receiver {
    /// The next message; `None` when the other side has ended the connection. Cancel safe.
    ///
    /// # Errors
    /// The connection broke, or what arrived is not understood.
    pub async fn recv<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ControlError> {
        loop {
            while let Some(sealed) = whole(&self.sealed) {
                let mut opened = vec![0; LARGEST];
                let len = self.noise.read_message(self.number, sealed, &mut opened);
                let len = len.map_err(|_| ControlError::Garbled)?;
                self.number += 1;
                self.open.extend_from_slice(&opened[..len]);
                let taken = 2 + sealed.len();
                self.sealed.drain(..taken);
            }
            if let Some(message) = self.message()? {
                return Ok(Some(message));
            }
            match self.socket.read_buf(&mut self.sealed).await {
                Ok(0) if self.sealed.is_empty() && self.open.is_empty() => return Ok(None),
                Ok(0) => return Err(ControlError::Ended(None)),
                Ok(_) => {}
                Err(error) => return Err(ended(error)),
            }
        }
    }

    fn message<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ControlError> {
        let Some((length, rest)) = self.open.split_first_chunk::<LENGTH>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| ControlError::Garbled)?;
        if length > LARGEST_MESSAGE {
            return Err(ControlError::Garbled);
        }
        let Some(text) = rest.get(..length) else { return Ok(None) };
        let message = serde_json::from_slice(text).map_err(|_| ControlError::Garbled)?;
        self.open.drain(..LENGTH + length);
        Ok(Some(message))
    }
}

fn builder(secret: &Secret) -> Result<Builder<'_>, ControlError> {
    let params = PATTERN.parse().map_err(|_| ControlError::Garbled)?;
    let builder =
        Builder::new(params).psk(0, &secret.0).and_then(|builder| builder.prologue(PROLOGUE.as_bytes()));
    builder.map_err(|_| ControlError::Garbled)
}

/// Two messages: the initiator's proves that it knows the secret, the responder's likewise.
async fn shake(
    mut socket: TcpStream,
    mut noise: HandshakeState,
    first: bool,
) -> Result<(Sender, Receiver), ControlError> {
    // A message is written in one piece: waiting for more would only delay it.
    socket.set_nodelay(true).map_err(ended)?;
    for is_mine in [first, !first] {
        let mut message = vec![0; LARGEST];
        if is_mine {
            let len = noise.write_message(&[], &mut message).map_err(|_| ControlError::Garbled)?;
            let framed = [&length_of(len)[..], &message[..len]].concat();
            socket.write_all(&framed).await.map_err(ended)?;
        } else {
            let len = usize::from(socket.read_u16().await.map_err(|_| ControlError::Secret)?);
            let mut sealed = vec![0; len];
            socket.read_exact(&mut sealed).await.map_err(|_| ControlError::Secret)?;
            noise.read_message(&sealed, &mut message).map_err(|_| ControlError::Secret)?;
        }
    }
    let noise = Arc::new(noise.into_stateless_transport_mode().map_err(|_| ControlError::Garbled)?);
    let (read, write) = socket.into_split();
    let receiver =
        Receiver { socket: read, noise: noise.clone(), number: 0, sealed: Vec::new(), open: Vec::new() };
    Ok((Sender { socket: write, noise, number: 0 }, receiver))
}

/// The first Noise message in these bytes, if all of it is there.
fn whole(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.get(..usize::from(u16::from_be_bytes(*length)))
}

/// No Noise message is longer than its length can say.
fn length_of(len: usize) -> [u8; 2] {
    u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes()
}

fn ended(error: std::io::Error) -> ControlError {
    ControlError::Ended(Some(error))
}

async fn within<T>(work: impl Future<Output = Result<T, ControlError>>) -> Result<T, ControlError> {
    timeout(DEADLINE, work).await.unwrap_or(Err(ControlError::Silent))
}

#[cfg(test)]
mod tests;

//! One TLS session without buffers of its own: records are opened in the thread's scratch buffer and
//! sealed into it, and only what is incomplete stays with the session.

use std::io;
use std::sync::Arc;

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{Error, ServerConfig};

use super::remainder::Remainder;

/// Longest handshake message of TLS, RFC 8446 section 4, that rustls takes, and a record around it: more
/// than that never stays in [`Session`] between two reads.
pub(super) const MOST_CARRIED: usize = 80 * 1024;

/// Room that sealing `plain` bytes needs: each of its records has a header, an explicit nonce, a content
/// type and a tag, below 64 bytes in every suite; and a key update may go ahead of them.
pub(super) fn sealed_len(plain: usize) -> usize {
    const RECORD: usize = 16 * 1024;
    plain + (plain / RECORD + 2) * 64
}

/// One TLS session of a server.
pub(super) struct Session {
    tls: UnbufferedServerConnection,
    /// The beginning of a record, or of a handshake message, whose rest is still to come.
    incoming: Vec<u8>,
    /// Records that are to be written before any other.
    outgoing: Remainder,
    closed: bool,
    /// After an error rustls is not asked for anything.
    failed: bool,
}

/// What rustls says comes next.
enum Next {
    /// It has something to say: again.
    Again,
    /// It wants to read.
    Blocked,
}

impl Session {
    /// A session whose handshake is to come.
    pub(super) fn new(config: Arc<ServerConfig>) -> io::Result<Self> {
        let tls = UnbufferedServerConnection::new(config).map_err(invalid)?;
        Ok(Self { tls, incoming: Vec::new(), outgoing: Remainder::default(), closed: false, failed: false })
    }

    /// Whether the handshake is not over.
    pub(super) fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// Whether the peer has said that nothing more comes.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Bytes that were read before and have to be in front of what is read next.
    pub(super) fn carried(&self) -> usize {
        self.incoming.len()
    }

    /// Records that are to be written before any other.
    pub(super) fn outgoing(&mut self) -> &mut Remainder {
        &mut self.outgoing
    }

    /// Opens what was read: `wire` has room for [`Session::carried`] bytes, and then what came. Plaintext
    /// goes to `take`, record by record; what rustls has to answer goes to [`Session::outgoing`].
    ///
    /// # Errors
    /// The peer broke the protocol; the alert for it is in [`Session::outgoing`].
    pub(super) fn open(&mut self, wire: &mut [u8], mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let carried = std::mem::take(&mut self.incoming);
        wire[..carried.len()].copy_from_slice(&carried);
        drop(carried);
        let mut used = 0;
        loop {
            let (discard, next) = self.step(&mut wire[used..], &mut take);
            used += discard;
            match next {
                Ok(Next::Again) => {}
                Ok(Next::Blocked) => break,
                Err(error) => {
                    (self.closed, self.failed) = (true, true);
                    // The alert about it, and nothing after that: rustls would take the same record again.
                    let _ = self.step(&mut wire[used..], &mut |_| {});
                    return Err(invalid(error));
                }
            }
        }
        self.incoming = wire[used..].to_vec();
        Ok(())
    }

    /// One step over `wire`: bytes of it that are used up, and what comes next.
    fn step(&mut self, wire: &mut [u8], take: &mut impl FnMut(&[u8])) -> (usize, Result<Next, Error>) {
        let UnbufferedStatus { mut discard, state } = self.tls.process_tls_records(wire);
        let next = match state {
            Err(error) => Err(error),
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                let mut outcome = Ok(Next::Again);
                while let Some(record) = traffic.next_record() {
                    match record {
                        Ok(record) => {
                            discard += record.discard;
                            take(record.payload);
                        }
                        Err(error) => outcome = Err(error),
                    }
                }
                outcome
            }
            Ok(ConnectionState::EncodeTlsData(data)) => {
                encode(data, &mut self.outgoing);
                Ok(Next::Again)
            }
            // Written before anything else: to rustls that is as good as sent.
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                Ok(Next::Again)
            }
            Ok(ConnectionState::PeerClosed) => {
                self.closed = true;
                Ok(Next::Again)
            }
            Ok(
                ConnectionState::BlockedHandshake
                | ConnectionState::WriteTraffic(_)
                | ConnectionState::Closed,
            ) => Ok(Next::Blocked),
            Ok(_) => Err(Error::General("early data, which is never offered".into())),
        };
        (discard, next)
    }

    /// Seals `plain` into `sealed`, which has room for [`sealed_len`], and gives the number of bytes.
    ///
    /// # Errors
    /// The session is over, or not begun.
    pub(super) fn seal(&mut self, plain: &[u8], sealed: &mut [u8]) -> io::Result<usize> {
        self.with_traffic(|traffic| traffic.encrypt(plain, sealed))
    }

    /// Tells the peer, behind everything else, that nothing more comes.
    pub(super) fn say_closed(&mut self) {
        let mut alert = [0; 128];
        if let Ok(len) = self.with_traffic(|traffic| traffic.queue_close_notify(&mut alert)) {
            self.outgoing.keep(&alert[..len]);
        }
    }

    fn with_traffic(
        &mut self,
        mut write: impl FnMut(&mut WriteTraffic<'_, ServerConnectionData>) -> Result<usize, EncryptError>,
    ) -> io::Result<usize> {
        if self.failed {
            return Err(io::ErrorKind::NotConnected.into());
        }
        loop {
            // Its own partial record: what it remembers about that is by position.
            let UnbufferedStatus { discard, state } = self.tls.process_tls_records(&mut self.incoming);
            let outcome = match state.map_err(invalid)? {
                ConnectionState::WriteTraffic(mut traffic) => Some(write(&mut traffic)),
                ConnectionState::EncodeTlsData(data) => {
                    encode(data, &mut self.outgoing);
                    None
                }
                ConnectionState::TransmitTlsData(data) => {
                    data.done();
                    None
                }
                ConnectionState::PeerClosed => None,
                _ => return Err(io::ErrorKind::NotConnected.into()),
            };
            self.incoming.drain(..discard);
            if let Some(written) = outcome {
                return written.map_err(|error| io::Error::other(error.to_string()));
            }
        }
    }
}

/// Moves what rustls has to say to where it is written from.
fn encode(mut data: EncodeTlsData<'_, ServerConnectionData>, outgoing: &mut Remainder) {
    let mut encoded = Vec::new();
    if let Err(EncodeError::InsufficientSize(need)) = data.encode(&mut encoded) {
        encoded.resize(need.required_size, 0);
        // It fits now.
        let _ = data.encode(&mut encoded);
    }
    outgoing.keep(&encoded);
}

fn invalid(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests;

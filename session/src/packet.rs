//! The outside of a datagram: what can be read without keys.
//!
//! | type | after version and type | then |
//! | --- | --- | --- |
//! | 1 initiation | receiver (zero), sender | Noise message 1 |
//! | 2 response | receiver, sender | Noise message 2 |
//! | 3 confirmation | receiver, sender | Noise message 3 |
//! | 4 data | receiver, key epoch (1 byte), packet number | sealed frames and tag |
//!
//! Version and type are one byte each, the rest big-endian 64-bit numbers. The whole header of a data
//! packet is associated data of its seal; handshake datagrams are signed as a whole.

use culvert_wire::limits::MAX_PAYLOAD;

use crate::SessionId;
use crate::crypto::TAG_LEN;

/// Version of the session protocol: the first byte of every datagram.
pub const VERSION: u8 = 1;
/// Bytes before the frames of a data packet.
pub(crate) const DATA_HEADER: usize = 1 + 1 + 8 + 1 + 8;
/// Bytes before the Noise message of a handshake datagram.
pub(crate) const HANDSHAKE_HEADER: usize = 1 + 1 + 8 + 8;
/// Most bytes of frames in one datagram.
pub(crate) const MAX_FRAMES: usize = MAX_PAYLOAD - DATA_HEADER - TAG_LEN;
/// Longest handshake datagram; the real ones have 50 to 250 bytes.
pub(crate) const MAX_HANDSHAKE: usize = 512;

const DATA: u8 = 4;

/// What a datagram is and which local session it is for; see [`peek`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peek {
    /// The first message of a handshake, which names only its sender.
    Initiation {
        /// The peer's name for its session; retransmissions carry the same one.
        sender: SessionId,
    },
    /// A later message of a handshake.
    Handshake {
        /// The local session it is for.
        receiver: SessionId,
    },
    /// A sealed packet.
    Data {
        /// The local session it is for.
        receiver: SessionId,
    },
}

/// Looks at the outside of a datagram, so that a driver can find the session it is for.
///
/// `None` if it is no datagram of this version. Nothing here is authenticated yet.
pub fn peek(datagram: &[u8]) -> Option<Peek> {
    Some(match Header::decode(datagram)? {
        Header::Handshake { step: Step::Initiation, sender, .. } => Peek::Initiation { sender },
        Header::Handshake { receiver, .. } => Peek::Handshake { receiver },
        Header::Data { receiver, .. } => Peek::Data { receiver },
    })
}

/// The three messages of Noise XX; the number is the datagram's type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    Initiation = 1,
    Response = 2,
    Confirmation = 3,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Header {
    Handshake { step: Step, receiver: SessionId, sender: SessionId },
    Data { receiver: SessionId, epoch: u8, number: u64 },
}

impl Header {
    /// Reads the header; `None` if the datagram is too short, too long or of another version.
    pub(crate) fn decode(datagram: &[u8]) -> Option<Header> {
        let (&[version, kind], rest) = datagram.split_first_chunk()?;
        if version != VERSION || datagram.len() > MAX_PAYLOAD {
            return None;
        }
        let (&receiver, rest) = rest.split_first_chunk()?;
        let receiver = SessionId(u64::from_be_bytes(receiver));
        let step = match kind {
            1 => Step::Initiation,
            2 => Step::Response,
            3 => Step::Confirmation,
            DATA => {
                let (&[epoch], rest) = rest.split_first_chunk()?;
                let (&number, rest) = rest.split_first_chunk()?;
                let sealed = rest.len() >= TAG_LEN;
                return sealed.then_some(Header::Data {
                    receiver,
                    epoch,
                    number: u64::from_be_bytes(number),
                });
            }
            _ => return None,
        };
        let (&sender, _) = rest.split_first_chunk()?;
        let sender = SessionId(u64::from_be_bytes(sender));
        let addressed = (receiver == SessionId::NONE) == (step == Step::Initiation);
        let valid = addressed && sender != SessionId::NONE && datagram.len() <= MAX_HANDSHAKE;
        valid.then_some(Header::Handshake { step, receiver, sender })
    }

    /// Appends the header.
    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        out.push(VERSION);
        match self {
            Header::Handshake { step, receiver, sender } => {
                out.push(step as u8);
                out.extend_from_slice(&receiver.0.to_be_bytes());
                out.extend_from_slice(&sender.0.to_be_bytes());
            }
            Header::Data { receiver, epoch, number } => {
                out.push(DATA);
                out.extend_from_slice(&receiver.0.to_be_bytes());
                out.push(epoch);
                out.extend_from_slice(&number.to_be_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn headers_read_back_and_have_the_documented_length() {
        let (receiver, sender) = (SessionId(0x0102), SessionId(7));
        for step in [Step::Initiation, Step::Response, Step::Confirmation] {
            let receiver = if step == Step::Initiation { SessionId::NONE } else { receiver };
            let header = Header::Handshake { step, receiver, sender };
            let mut bytes = Vec::new();
            header.encode(&mut bytes);
            assert_eq!(bytes.len(), HANDSHAKE_HEADER);
            assert_eq!(Header::decode(&bytes), Some(header));
        }
        let header = Header::Data { receiver, epoch: 3, number: 1 << 40 };
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        assert_eq!(bytes.len(), DATA_HEADER);
        assert_eq!(Header::decode(&bytes), None, "without a tag it is no packet");
        bytes.extend_from_slice(&[0; TAG_LEN]);
        assert_eq!(Header::decode(&bytes), Some(header));
        assert_eq!(peek(&bytes), Some(Peek::Data { receiver }));
    }

    #[test]
    fn a_datagram_of_another_version_or_size_is_nothing() {
        let mut bytes = vec![VERSION, DATA];
        bytes.resize(DATA_HEADER + TAG_LEN, 1);
        assert!(peek(&bytes).is_some());
        bytes[0] = VERSION + 1;
        assert_eq!(peek(&bytes), None);
        bytes[0] = VERSION;
        bytes.resize(MAX_PAYLOAD + 1, 0);
        assert_eq!(peek(&bytes), None);
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_looked_at(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = peek(&bytes);
            let mut versioned = vec![VERSION];
            versioned.extend_from_slice(&bytes);
            let _ = peek(&versioned);
        }
    }
}

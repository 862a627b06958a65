//! Who and where: the identifiers on the wire.
//!
//! `Display` is the full form, which [`FromStr`] reads back; `short()` is for logs.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER_PERMISSIVE;
use serde::{Deserialize, Serialize};

/// Text that is not the identifier it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {digits} hexadecimal digits")]
pub struct ParseIdError {
    what: &'static str,
    digits: usize,
}

macro_rules! id32 {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The first ten hexadecimal digits, for logs.
            pub fn short(&self) -> String {
                let mut text = self.to_string();
                text.truncate(10);
                text
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER_PERMISSIVE.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let error = ParseIdError { what: $what, digits: 64 };
                let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| error.clone())?;
                Ok(Self(bytes.try_into().map_err(|_| error)?))
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseIdError;

            fn try_from(text: String) -> Result<Self, ParseIdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    };
}

id32! {
    /// A peer: its Ed25519 public key (RFC 8032), 32 bytes.
    PeerId, "a peer id"
}

id32! {
    /// A topic: 32 bytes that say nothing about the data behind it.
    TopicId, "a topic id"
}

/// A relay node's number within its cluster.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct NodeId(pub u16);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}", self.0)
    }
}

/// Address of one connection: the node's number in the upper 16 bits, 48 random bits below.
///
/// The route is in the address, so forwarding needs no table of who is where; the random part makes
/// a stale or guessed address harmless.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

impl ConnId {
    /// No connection: the value of the header field where a frame addresses nobody.
    pub const NONE: ConnId = ConnId(0);

    /// Puts an address together; only the lower 48 bits of `random` are used.
    pub fn new(node: NodeId, random: u64) -> Self {
        Self((u64::from(node.0) << 48) | (random & 0xffff_ffff_ffff))
    }

    /// The node this connection lives on.
    pub fn node(self) -> NodeId {
        let [high, low, ..] = self.0.to_be_bytes();
        NodeId(u16::from_be_bytes([high, low]))
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnId({self})")
    }
}

/// A connection's own number for one of its topics, given by `Joined`; 0 is none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Handle(pub u16);

impl Handle {
    /// No topic: the value of the header field where a frame concerns none.
    pub const NONE: Handle = Handle(0);
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Orders the connections of one peer: the highest is the newest, whatever arrives when.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Generation(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_its_node() {
        let conn = ConnId::new(NodeId(0xabcd), 0xffff_1234_5678_9abc);
        assert_eq!(conn.node(), NodeId(0xabcd));
        assert_eq!(conn.to_string(), "abcd123456789abc");
    }

    #[test]
    fn the_full_form_reads_back_and_anything_else_is_refused() {
        let peer = PeerId([0x5a; 32]);
        assert_eq!(peer.to_string().parse(), Ok(peer));
        assert_eq!(peer.to_string().to_uppercase().parse(), Ok(peer));
        assert_eq!(peer.short(), "5a5a5a5a5a");
        for bad in ["", "5a", &"5a".repeat(33), &"zz".repeat(32)] {
            let error = bad.parse::<PeerId>().unwrap_err();
            assert_eq!(error.to_string(), "a peer id must be 64 hexadecimal digits");
        }
    }
}

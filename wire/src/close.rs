//! How a connection ends: one table, used as WebSocket close code, log field and metric label.

use crate::limits::MAX_CLOSE_REASON;

/// First code of the range after which a peer does not come back by itself.
pub const FIRST_TERMINAL: u16 = 4500;

macro_rules! closes {
    ($($(#[$doc:meta])+ $variant:ident = $code:literal, $name:literal, $sentence:literal;)+) => {
        /// Why a relay, or a client, ended a connection.
        ///
        /// Codes 4000–4499 say "may reconnect", 4500–4999 "terminal": the same attempt would fail again.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Close {
            $($(#[$doc])+ $variant,)+
        }

        impl Close {
            /// Every way to end, in the order of the codes.
            pub const ALL: &'static [Close] = &[$(Close::$variant),+];

            /// The WebSocket close code.
            pub const fn code(self) -> u16 {
                match self { $(Close::$variant => $code),+ }
            }

            /// Stable name: log field and metric label.
            pub const fn name(self) -> &'static str {
                match self { $(Close::$variant => $name),+ }
            }

            /// One sentence that says what happened and what to do; sent as the close reason.
            pub const fn sentence(self) -> &'static str {
                match self { $(Close::$variant => $sentence),+ }
            }

            /// The variant with this code; `None` for codes of other versions and of RFC 6455.
            pub const fn from_code(code: u16) -> Option<Close> {
                match code { $($code => Some(Close::$variant),)+ _ => None }
            }
        }

        $(const _: () = assert!($sentence.len() <= MAX_CLOSE_REASON);)+
    };
}

closes! {
    /// The client is done.
    Done = 4000, "done", "the peer closed the connection";
    /// The node is going away and its drain is over.
    Drained = 4001, "drained", "this node is going away; connect again, another one answers";
    /// Nothing came for the announced idle time.
    Idle = 4002, "idle", "nothing was received for the idle timeout; send a ping every keepalive interval";
    /// The peer took nothing for the write deadline, or its control backlog is full.
    Slow = 4003, "slow", "the peer did not read what was sent to it in time; read faster or connect again";
    /// The whole of TCP, TLS, upgrade and hello took longer than allowed.
    HandshakeTimeout = 4004, "handshake_timeout", "the handshake was not finished in time; connect again";
    /// A limit on connections or handshakes is reached for this node, tenant, peer or address.
    Overloaded = 4005, "overloaded", "a connection limit is reached; wait before connecting again";
    /// The node lost its number in the cluster, so its addresses are void.
    Fenced = 4006, "fenced", "this node lost its place in the cluster; connect again";
    /// A defect in the relay.
    Internal = 4007, "internal", "the relay had an internal error; connect again";
    /// The node has never had some of the keys that tickets are checked with, and the ticket may be by one of those.
    NoKeys = 4008, "no_keys", "this node has not got all keys yet that tickets are checked with; connect again";
    /// Bytes that are no frame, or a frame that is not allowed at this point.
    Protocol = 4500, "protocol", "the peer sent something that protocol v1 does not allow at this point";
    /// A message larger than a frame can be.
    TooLarge = 4501, "too_large", "the peer sent a message larger than 16396 bytes; split payloads at 16384 bytes";
    /// No version in common.
    Version = 4502, "version", "the client speaks no protocol version of this relay; update the older of the two";
    /// The hello names another host than this relay is known by.
    WrongHost = 4503, "wrong_host", "the hello was made for another host; use the relay's public name, see its setting `names`";
    /// The hello's signature is not by the peer, or not over this handshake.
    BadSignature = 4504, "bad_signature", "the hello's signature does not verify for this peer and this handshake";
    /// The relay asks for admission and got none, or the wrong kind.
    NotAdmitted = 4505, "not_admitted", "this relay admits by ticket or access token; the hello carried none that it accepts";
    /// The ticket is malformed, or no configured key signed it.
    TicketInvalid = 4506, "ticket_invalid", "the ticket is not signed by a key this relay trusts, or is malformed; get a new one";
    /// The ticket is past its expiry.
    TicketExpired = 4507, "ticket_expired", "the ticket has expired; renew it in time or get a new one";
    /// The ticket is bound to another peer.
    TicketForeign = 4508, "ticket_foreign", "the ticket is bound to another peer's key; use the identity it was issued for";
    /// The invitation is malformed, expired, not signed by the ticket's holder, or for another guest.
    InvitationInvalid = 4509, "invitation_invalid", "the invitation does not verify or has expired; ask for a new link";
    /// The ticket or the peer was revoked.
    Revoked = 4510, "revoked", "the ticket or the peer was revoked; ask the operator";
}

impl Close {
    /// Whether a client may come back by itself, with back-off.
    pub const fn may_reconnect(self) -> bool {
        Self::code_may_reconnect(self.code())
    }

    /// The same for a code that this version may not know, RFC 6455's codes included.
    ///
    /// Trying again is useless after a code of the terminal range, and after those of RFC 6455 that say
    /// that one side cannot understand or will not take what the other sends.
    pub const fn code_may_reconnect(code: u16) -> bool {
        !(matches!(code, 1002 | 1003 | 1007 | 1008 | 1009 | 1010) || (code >= FIRST_TERMINAL && code < 5000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_are_unique_and_read_back() {
        for close in Close::ALL {
            assert_eq!(Close::from_code(close.code()), Some(*close));
            assert_eq!(Close::ALL.iter().filter(|other| other.name() == close.name()).count(), 1);
            assert!((4000..5000).contains(&close.code()));
        }
    }

    #[test]
    fn the_range_says_who_may_come_back() {
        assert!(Close::Drained.may_reconnect());
        assert!(Close::NoKeys.may_reconnect(), "another node has them, or this one will");
        assert!(!Close::TicketExpired.may_reconnect());
        assert!(Close::code_may_reconnect(1006), "a connection that just died");
        assert!(Close::code_may_reconnect(4242), "an unknown code of the reconnect range");
        assert!(!Close::code_may_reconnect(4999), "an unknown code of the terminal range");
    }
}

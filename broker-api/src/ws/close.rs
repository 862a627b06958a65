//! Why a WebSocket ends.

use culvert_broker_wire::ErrorCode;

/// Why a WebSocket ends: close code, log field and metric label in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// The client is done, or gone.
    Done,
    /// This replica goes away; others are there.
    GoingAway,
    /// Bytes that are no WebSocket messages.
    Protocol,
    /// A message longer than a message may be.
    TooLarge,
    /// Text that is not UTF-8, after which RFC 6455 section 8.1 lets no connection go on.
    NotUtf8,
    /// Nobody said in time who they are.
    Unproven,
    /// What proved who is there holds no longer.
    SessionOver,
    /// Nothing came for longer than the heartbeat timeout.
    Silent,
    /// It does not take what is written to it.
    Slow,
    /// It goes on sending more than it may.
    Flood,
}

impl Close {
    /// Every reason.
    pub const ALL: &'static [Self] = &[
        Self::Done,
        Self::GoingAway,
        Self::Protocol,
        Self::TooLarge,
        Self::NotUtf8,
        Self::Unproven,
        Self::SessionOver,
        Self::Silent,
        Self::Slow,
        Self::Flood,
    ];

    /// The label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::GoingAway => "going_away",
            Self::Protocol => "protocol",
            Self::TooLarge => "too_large",
            Self::NotUtf8 => "not_utf8",
            Self::Unproven => "unproven",
            Self::SessionOver => "session_over",
            Self::Silent => "silent",
            Self::Slow => "slow",
            Self::Flood => "flood",
        }
    }

    /// The close code: of RFC 6455 where it has one, of those for applications otherwise, each behind 4000
    /// as the HTTP status that means the same. After 4401 and 4429 a client changes something before it
    /// comes back; after the others it may come back as it is.
    pub const fn code(self) -> u16 {
        match self {
            Self::Done => 1000,
            Self::GoingAway => 1001,
            Self::Protocol => 1002,
            Self::NotUtf8 => 1007,
            Self::TooLarge => 1009,
            Self::Unproven | Self::SessionOver => 4401,
            Self::Silent | Self::Slow => 4408,
            Self::Flood => 4429,
        }
    }

    /// The error that a client is told before the close, if it can still learn something from it.
    pub const fn error(self) -> Option<(ErrorCode, &'static str)> {
        match self {
            Self::Done | Self::Protocol | Self::Slow => None,
            Self::GoingAway => {
                Some((ErrorCode::Unavailable, "this replica goes away; connect again to reach another one"))
            }
            Self::TooLarge => Some((ErrorCode::TooLarge, "a message may have 1 MiB; send less at once")),
            Self::NotUtf8 => Some((ErrorCode::ParseError, "a text message must be UTF-8")),
            Self::Unproven => Some((
                ErrorCode::AuthRequired,
                "say who you are with register_user sooner, or at the upgrade",
            )),
            Self::SessionOver => {
                Some((ErrorCode::AuthRequired, "the session is over; prove again who you are"))
            }
            Self::Silent => Some((ErrorCode::UserNotFound, "no heartbeat came in time; connect again")),
            Self::Flood => Some((ErrorCode::RateLimited, "far more messages than the limit; send fewer")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_reason_has_a_name_of_its_own_and_a_code_that_may_be_sent() {
        let names: HashSet<_> = Close::ALL.iter().map(|close| close.name()).collect();
        assert_eq!(names.len(), Close::ALL.len());
        for close in Close::ALL {
            assert!(matches!(close.code(), 1000..=1002 | 1007..=1011 | 4000..=4999), "{close:?}");
            // Payload of a control frame, less the code.
            assert!(close.error().is_none_or(|(_, sentence)| sentence.len() <= 123), "{close:?}");
        }
    }
}

//! What a session counted.

use std::time::Duration;

/// Totals since the session began. Read with [`Session::counters`](crate::Session::counters).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    /// Datagrams written, handshake included.
    pub packets_sent: u64,
    /// Bytes of these datagrams.
    pub bytes_sent: u64,
    /// Authentic packets received, each once.
    pub packets_received: u64,
    /// Bytes of these packets.
    pub bytes_received: u64,
    /// Stream bytes that were sent again.
    pub bytes_retransmitted: u64,
    /// Packets that were declared lost.
    pub packets_lost: u64,
    /// Datagrams that were malformed, forged, for other keys, or unusable for the handshake.
    pub rejected: u64,
    /// Packets that had been received before, or are too old to tell.
    pub replayed: u64,
    /// Authentic packets put aside because a stream's reassembly was too fragmented.
    pub deferred: u64,
    /// Times the path changed.
    pub path_changes: u64,
    /// Keys that replaced an earlier one, both directions.
    pub rekeys: u64,
    /// Smoothed round-trip time; zero until measured.
    pub rtt: Duration,
    /// The congestion window, in bytes.
    pub congestion_window: u64,
}

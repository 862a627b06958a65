//! What can be wrong with a connection.

use std::time::Duration;

/// How one direction behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Bytes move.
    #[default]
    Pass,
    /// Nothing is read and nothing is written: the sender's buffers fill, then it blocks.
    Stall,
    /// Everything is read and thrown away: the sender believes it was heard.
    Deaf,
}

/// One direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flow {
    /// Whether bytes move.
    pub mode: Mode,
    /// At most so many bytes a second; `None` is no limit.
    pub bytes_per_second: Option<u32>,
    /// How much later than they were read bytes are written.
    pub delay: Duration,
}

/// Both directions of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// From the client to the target.
    pub up: Flow,
    /// From the target to the client.
    pub down: Flow,
}

/// How a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// A reset to both ends, as when a machine in the middle forgets the connection.
    Reset,
    /// An orderly end of both streams, as when a machine in the middle shuts down; inside TLS with
    /// `close_notify`.
    Finish,
}

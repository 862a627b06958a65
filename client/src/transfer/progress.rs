//! What a transfer tells whoever shows it to a person.

use std::sync::Arc;

/// One thing that happened. Paths are as they are shown: components joined by `/`, made harmless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Sender: the paths are listed; hashing begins.
    Listed {
        /// Files and folders.
        entries: u64,
        /// Bytes in them.
        bytes: u64,
    },
    /// Either: the sender has hashed this many bytes of all it offers; 0 in total for a stream.
    Hashing {
        /// Bytes hashed.
        done: u64,
        /// Bytes to hash.
        total: u64,
    },
    /// Receiver: what the sender offers; both counts are 0 for a stream.
    Offered {
        /// What it is called.
        name: String,
        /// Whether its size is not known beforehand.
        stream: bool,
        /// Files and folders.
        entries: u64,
        /// Bytes in them.
        bytes: u64,
    },
    /// Receiver: a file begins, of which an earlier attempt has left some.
    Started {
        /// Its path.
        path: String,
        /// Bytes.
        size: u64,
        /// Bytes that are there already.
        present: u64,
    },
    /// Either: this many bytes in total are verified on the receiver's disk.
    Advanced {
        /// Bytes, those of earlier attempts included.
        have: u64,
    },
    /// Receiver: a file is complete and has its name.
    Finished {
        /// Its path.
        path: String,
    },
    /// Either: something will not be transferred, and why; the rest goes on.
    Skipped {
        /// Its path.
        path: String,
        /// A sentence.
        reason: String,
    },
    /// Receiver: a name that this system would misread was replaced.
    Renamed {
        /// As the sender has it, control characters removed.
        from: String,
        /// As it is here.
        to: String,
    },
}

/// Takes events as they happen; called from the transfer's own task, so it must be quick.
pub type Progress = Arc<dyn Fn(Event) + Send + Sync>;

/// Nobody looks.
pub fn ignore() -> Progress {
    Arc::new(|_| {})
}

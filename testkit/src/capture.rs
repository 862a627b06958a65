//! What went over a connection, byte for byte, and whether a secret is in it.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

/// Bytes in a window that [`Capture::find`] looks for.
pub const WINDOW: usize = 16;

/// The bytes of one connection in both directions. Cheap to clone; all clones see the same.
#[derive(Clone, Default)]
pub struct Tape {
    up: Arc<Mutex<Vec<u8>>>,
    down: Arc<Mutex<Vec<u8>>>,
}

impl Tape {
    /// Adds bytes from the side that connected.
    pub fn push_up(&self, bytes: &[u8]) {
        self.up.lock().extend_from_slice(bytes);
    }

    /// Adds bytes from the side that was connected to.
    pub fn push_down(&self, bytes: &[u8]) {
        self.down.lock().extend_from_slice(bytes);
    }

    /// What the connecting side has sent so far.
    pub fn up(&self) -> Vec<u8> {
        self.up.lock().clone()
    }

    /// What it was sent so far.
    pub fn down(&self) -> Vec<u8> {
        self.down.lock().clone()
    }
}

/// The tapes of all connections of a proxy that was asked to record.
#[derive(Clone, Default)]
pub struct Capture {
    tapes: Arc<Mutex<Vec<Tape>>>,
}

impl Capture {
    /// A tape for one more connection.
    pub fn tape(&self) -> Tape {
        let tape = Tape::default();
        self.tapes.lock().push(tape.clone());
        tape
    }

    /// The tapes so far, in the order in which the connections came.
    pub fn tapes(&self) -> Vec<Tape> {
        self.tapes.lock().clone()
    }

    /// Bytes on all tapes.
    pub fn len(&self) -> usize {
        self.tapes().iter().map(|tape| tape.up.lock().len() + tape.down.lock().len()).sum()
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where any 16 bytes of `secret`, at any alignment, occur on any tape at any position.
    pub fn find(&self, secret: &[u8]) -> Option<Finding> {
        let windows = Windows::of(secret);
        self.tapes().iter().enumerate().find_map(|(connection, tape)| {
            let found = |direction, bytes: &Mutex<Vec<u8>>| {
                let at = windows.first_in(&bytes.lock())?;
                Some(Finding { connection, direction, at })
            };
            found("up", &tape.up).or_else(|| found("down", &tape.down))
        })
    }
}

/// Where a secret was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    /// Which connection, counted from 0.
    pub connection: usize,
    /// `up` or `down`.
    pub direction: &'static str,
    /// Offset of the first byte in that direction's stream.
    pub at: usize,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection {}, {}, byte {}", self.connection, self.direction, self.at)
    }
}

/// Every 16-byte window of some bytes.
pub struct Windows(HashSet<[u8; WINDOW]>);

impl Windows {
    /// All windows, at every alignment.
    pub fn of(secret: &[u8]) -> Self {
        Self(secret.array_windows::<WINDOW>().copied().collect())
    }

    /// Offset of the first window in `haystack` that is one of these.
    pub fn first_in(&self, haystack: &[u8]) -> Option<usize> {
        haystack.array_windows::<WINDOW>().position(|window| self.0.contains(window))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Vec<u8> {
        (0u32..4096).flat_map(|n| (n.wrapping_mul(2_654_435_761)).to_be_bytes()).collect()
    }

    #[test]
    fn sixteen_bytes_at_any_alignment_are_found_and_fifteen_are_not() {
        let secret = secret();
        for start in [0, 1, 7, 4095, secret.len() - WINDOW] {
            let capture = Capture::default();
            capture.tape().push_up(b"nothing here");
            let tape = capture.tape();
            tape.push_down(&[0xee; 13]);
            tape.push_down(&secret[start..start + 9]);
            assert_eq!(capture.find(&secret), None);
            tape.push_down(&secret[start + 9..start + WINDOW]);
            let found = capture.find(&secret).unwrap();
            assert_eq!(found, Finding { connection: 1, direction: "down", at: 13 });
        }
        assert_eq!(Windows::of(&secret).first_in(&secret[5..5 + WINDOW - 1]), None);
    }
}

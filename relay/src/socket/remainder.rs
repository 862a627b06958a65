//! Bytes that are kept because somebody did not take them yet.

/// Bytes to be taken from the front. Holds no memory while empty.
#[derive(Default)]
pub struct Remainder {
    bytes: Vec<u8>,
    taken: usize,
}

impl Remainder {
    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.taken == self.bytes.len()
    }

    /// What is left.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    /// Takes `len` bytes from the front.
    pub fn advance(&mut self, len: usize) {
        self.taken += len;
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Keeps more, behind what is left.
    pub fn keep(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.bytes.is_empty() {
            // Exactly as much as there is: it is taken away soon, and seldom added to.
            self.bytes.reserve_exact(bytes.len());
        }
        self.bytes.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_gone_and_an_empty_one_holds_no_memory() {
        let mut remainder = Remainder::default();
        remainder.keep(b"abc");
        remainder.keep(b"");
        remainder.keep(b"de");
        remainder.advance(2);
        assert_eq!(remainder.bytes(), b"cde");
        remainder.advance(3);
        assert!(remainder.is_empty());
        assert_eq!(remainder.bytes.capacity(), 0);
    }
}

//! Buffers that belong to threads, not to connections: an idle connection holds none.
//!
//! Each is borrowed within one poll and never across an `.await`.

use std::cell::RefCell;

thread_local! {
    static READ: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static GATHERED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static SEALED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

type Buffer = std::thread::LocalKey<RefCell<Vec<u8>>>;

fn with<T>(buffer: &'static Buffer, len: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
    buffer.with_borrow_mut(|buffer| {
        if buffer.len() < len {
            buffer.resize(len, 0);
        }
        work(&mut buffer[..len])
    })
}

/// Lends `len` bytes for what is read from a socket.
pub(super) fn for_reading<T>(len: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
    with(&READ, len, work)
}

/// Lends `len` bytes for small messages that are written together.
pub(super) fn for_gathering<T>(len: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
    with(&GATHERED, len, work)
}

/// Lends `len` bytes for TLS records to be written.
pub(super) fn for_sealing<T>(len: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
    with(&SEALED, len, work)
}

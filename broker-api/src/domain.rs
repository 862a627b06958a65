//! Being written.
pub mod keys;

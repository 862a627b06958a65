//! Being written.
/// Seals what the database must not know.
pub struct Sealer;

//! Being written.
/// Who is who.
pub struct Identity;

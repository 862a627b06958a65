//! Being written.
/// Signs tickets and grants.
pub struct SigningKeys;

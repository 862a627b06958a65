//! How long things may be. Lengths are bytes of UTF-8.

/// A share token.
pub const MAX_TOKEN: usize = 128;
/// A token that a client chose for a share that is not public: as long as 16 random bytes in base64url.
pub const MIN_PRIVATE_TOKEN: usize = 22;
/// A user's id.
pub const MAX_USER_ID: usize = 256;
/// The id of a result.
pub const MAX_RESULT_ID: usize = 256;
/// The title of a share, and the name of a team, a device or a credential.
pub const MAX_TITLE: usize = 512;
/// The description of a share.
pub const MAX_DESCRIPTION: usize = 4096;
/// A URL at which a user's own server answers.
pub const MAX_ENDPOINT: usize = 2048;
/// Users named in one policy.
pub const MAX_POLICY_USERS: usize = 256;
/// One message of the WebSocket; REST bodies have a setting of their own.
pub const MAX_MESSAGE: usize = 1 << 20;
/// What a client chose to recognise an answer by.
pub const MAX_REQUEST_ID: usize = 128;
/// A password; longer ones would only cost the broker time.
pub const MAX_PASSWORD: usize = 1024;

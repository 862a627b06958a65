//! What the broker signs so that an owner can let somebody download without asking it.

use culvert_wire::PeerId;
use serde::{Deserialize, Serialize};

/// `typ` in the header of a grant.
pub const GRANT_TYPE: &str = "culvert-grant+jwt";
/// `aud` of a grant.
pub const AUDIENCE: &str = "culvert-owner";
/// HTTP header in which a requester presents it to the owner's server.
pub const HEADER: &str = "X-Share-Token";

/// Claims of a grant: a JSON Web Token (RFC 7519) signed with Ed25519 (RFC 8037) by a key of the broker's
/// `/.well-known/jwks.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantClaims {
    /// The broker, by the URL that clients use.
    pub iss: String,
    /// Always [`AUDIENCE`].
    pub aud: String,
    /// Who may download; absent for a public share that was asked for without an identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// The requester's key, which their session with the owner must prove; absent means that whoever
    /// presents the grant may download.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cnf: Option<PeerId>,
    /// Whose share it is; an owner refuses those of others.
    pub owner: String,
    /// What may be downloaded.
    pub result_id: String,
    /// SHA-256 of the share's token, lowercase hexadecimal.
    pub share: String,
    /// When it was issued, seconds since 1970.
    pub iat: u64,
    /// When it ends, seconds since 1970.
    pub exp: u64,
    /// Its own id.
    pub jti: String,
}

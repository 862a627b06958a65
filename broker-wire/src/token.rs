//! What names a share.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};

use crate::limits::{MAX_TOKEN, MIN_PRIVATE_TOKEN};

/// A share's token: whoever knows it may ask for the share.
///
/// 16 random bytes in base64url, or whatever up to [`MAX_TOKEN`] visible ASCII characters a client chose.
/// `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ShareToken(String);

/// Text that cannot be a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a share token has 1 to {MAX_TOKEN} characters of letters, digits and -._~")]
pub struct ParseTokenError;

impl ShareToken {
    /// A new one, from 16 random bytes.
    pub fn generate() -> Self {
        let mut bytes = [0; 16];
        rand::fill(&mut bytes);
        Self(BASE64URL_NOPAD.encode(&bytes))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is long enough to keep a share from those who should not find it.
    pub fn is_private(&self) -> bool {
        self.0.len() >= MIN_PRIVATE_TOKEN
    }

    /// SHA-256 of the text: what is stored, and written where the token must not be.
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, self.0.as_bytes()).as_ref());
        hash
    }
}

impl fmt::Debug for ShareToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShareToken(***)")
    }
}

impl FromStr for ShareToken {
    type Err = ParseTokenError;

    fn from_str(text: &str) -> Result<Self, ParseTokenError> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for ShareToken {
    type Error = ParseTokenError;

    fn try_from(text: String) -> Result<Self, ParseTokenError> {
        let fits = (1..=MAX_TOKEN).contains(&text.len());
        let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
        if fits && plain { Ok(Self(text)) } else { Err(ParseTokenError) }
    }
}

impl From<ShareToken> for String {
    fn from(token: ShareToken) -> Self {
        token.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_token_has_22_characters_and_never_comes_twice() {
        let (one, two) = (ShareToken::generate(), ShareToken::generate());
        assert_eq!(one.as_str().len(), 22);
        assert!(one.is_private() && one != two && one.hash() != two.hash());
    }

    #[test]
    fn a_token_is_refused_when_it_is_empty_too_long_or_odd() {
        for bad in ["", "a b", "ä", "a/b", "a\0", &"x".repeat(129)] {
            assert!(bad.parse::<ShareToken>().is_err(), "{bad}");
        }
        assert!(!"abc123xyz".parse::<ShareToken>().unwrap().is_private());
        assert_eq!(format!("{:?}", ShareToken::generate()), "ShareToken(***)");
    }
}

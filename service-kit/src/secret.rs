//! Values that never reach a log.
//!
//! A [`Secret`] prints as `***` in every format, is wiped from memory when dropped, and gives its value
//! only to a caller that says [`Secret::expose`]. Secrets come from a file or the environment
//! ([`Problems::read_secret`](crate::config::Problems::read_secret)), never from a flag: flags are readable
//! by every process of the machine.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::{Zeroize, Zeroizing};

/// What is printed instead of a secret.
pub const MASK: &str = "***";

/// Files larger than this are not secrets but mistakes.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// A value that is masked when printed and wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T: Zeroize>(Zeroizing<T>);

impl<T: Zeroize> Secret<T> {
    /// Wraps a value.
    pub fn new(value: T) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The value itself; the caller keeps it out of logs.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl Secret<String> {
    /// Reads a secret from a file and removes one newline from its end.
    pub fn from_file(path: &Path) -> Result<Self, SecretError> {
        let fault = |source| SecretError::Read { path: path.display().to_string(), source };
        let length = std::fs::metadata(path).map_err(fault)?.len();
        if length > MAX_FILE_BYTES {
            return Err(SecretError::TooLarge { path: path.display().to_string(), length });
        }
        let text = Zeroizing::new(std::fs::read_to_string(path).map_err(fault)?);
        let trimmed = text.strip_suffix('\n').map_or(&**text, |t| t.strip_suffix('\r').unwrap_or(t));
        if trimmed.is_empty() {
            return Err(SecretError::Empty { path: path.display().to_string() });
        }
        Ok(Self::new(trimmed.to_owned()))
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl<T: Zeroize> fmt::Display for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl<T: Zeroize> From<T> for Secret<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<'de, T: Zeroize + Deserialize<'de>> Deserialize<'de> for Secret<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self::new)
    }
}

/// Serialises as [`MASK`]: effective settings are printed, secrets are not.
impl<T: Zeroize> Serialize for Secret<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(MASK)
    }
}

/// Why a secret could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file is missing, unreadable or not text.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is far too large for a secret.
    #[error("{path} has {length} bytes, a secret has at most {MAX_FILE_BYTES}")]
    TooLarge {
        /// The file.
        path: String,
        /// Its length.
        length: u64,
    },
    /// The file is there and holds nothing.
    #[error("{path} is empty")]
    Empty {
        /// The file.
        path: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        file
    }

    #[test]
    fn a_secret_is_masked_in_every_format() {
        let secret = Secret::new("hunter2".to_owned());
        assert_eq!(format!("{secret} {secret:?} {secret:#?}"), "*** *** ***");
        assert_eq!(serde_json::to_string(&secret).unwrap(), r#""***""#);
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn one_newline_is_trimmed_from_a_file_and_nothing_else() {
        for (content, value) in
            [("token", "token"), ("token\n", "token"), ("token\r\n", "token"), (" token \n\n", " token \n")]
        {
            let file = file(content.as_bytes());
            assert_eq!(Secret::from_file(file.path()).unwrap().expose(), value);
        }
    }

    #[test]
    fn an_empty_missing_binary_or_huge_file_is_an_error_that_names_it() {
        let missing = Path::new("/nonexistent/token");
        assert!(Secret::from_file(missing).unwrap_err().to_string().contains("/nonexistent/token"));
        for content in [&b""[..], b"\n", b"\xff\xfe", &[b'a'; 70_000]] {
            let file = file(content);
            let error = Secret::from_file(file.path()).unwrap_err().to_string();
            assert!(error.contains(file.path().to_str().unwrap()), "{error}");
        }
    }
}

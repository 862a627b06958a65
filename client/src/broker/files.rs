//! Small private files in the user's data folder: read whole, replaced whole.

use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::SyncError;

/// Longest file that is read, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// Reads a file; `None` if there is none.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, SyncError> {
    let failed = |source| SyncError::Disk { path: path.to_owned(), source: Arc::new(source) };
    let bytes = match std::fs::metadata(path) {
        Ok(meta) if meta.len() > MAX_FILE => return Err(failed(io::ErrorKind::FileTooLarge.into())),
        Ok(_) => std::fs::read(path).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))
}

/// Replaces a file in one step; only this user can read it.
pub(crate) fn write(path: &Path, value: &impl Serialize) -> Result<(), SyncError> {
    let write = || {
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(folder)?;
        // Mode 0600, by this crate's promise.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(|source| SyncError::disk(path, source))
}

/// A file name for what belongs to a user of a broker, whatever characters their names have.
pub(crate) fn name_for(broker: &str, user: &str) -> String {
    let hash = digest(&SHA256, format!("{broker}\0{user}").as_bytes());
    HEXLOWER.encode(&hash.as_ref()[..10])
}

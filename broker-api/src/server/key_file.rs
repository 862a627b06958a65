//! The data key of a broker with a database file of its own: a file beside it.
//!
//! Whoever copies the database without this file has no secrets. It is made on first use, readable by its
//! owner only; one that others can read is refused, because then it protects nothing.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use culvert_service_kit::Secret;
use culvert_service_kit::secret::SecretError;
use data_encoding::BASE64;
use zeroize::Zeroizing;

use crate::args::parse_keys;
use crate::config::{Config, Database};

/// Bytes of a key: AES-256.
const KEY_BYTES: usize = 32;

/// There is no key to seal with.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// Postgres has no place beside it.
    #[error("a data key is required with Postgres; give data-keys-file")]
    Missing,
    /// The file cannot be made.
    #[error("cannot make the key file {path}")]
    Make {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file cannot be read.
    #[error("cannot read the key file")]
    Read(#[from] SecretError),
    /// Others can read it.
    #[error("the key file {path} can be read by others; run: chmod 600 {path}")]
    Open {
        /// Which.
        path: PathBuf,
    },
    /// It holds something else.
    #[error("the key file {path} does not hold keys of 32 bytes in base64")]
    Form {
        /// Which.
        path: PathBuf,
    },
}

/// The configuration with data keys: its own, or those of the file beside its database.
///
/// # Errors
/// See [`KeyFileError`].
pub fn with_keys(mut config: Config) -> Result<Config, KeyFileError> {
    if config.data_keys.is_empty() {
        let Database::Sqlite(database) = &config.database else { return Err(KeyFileError::Missing) };
        config.data_keys = keys_beside(database)?;
    }
    Ok(config)
}

fn keys_beside(database: &Path) -> Result<Vec<Secret<Vec<u8>>>, KeyFileError> {
    let mut path = database.as_os_str().to_owned();
    path.push(".key");
    let path = PathBuf::from(path);
    match make(&path) {
        Ok(()) => {
            tracing::info!(path = %path.display(), "made a data key; keep a copy of it apart from the database's");
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(KeyFileError::Make { path, source }),
    }
    let text = Secret::from_file(&path)?;
    let mode =
        fs::metadata(&path).map_err(|source| KeyFileError::Make { path: path.clone(), source })?.mode();
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Open { path });
    }
    parse_keys(text.expose()).ok_or(KeyFileError::Form { path })
}

/// Writes a new key; one that exists is left alone and is an error.
fn make(path: &Path) -> io::Result<()> {
    // Looked for first, so that the usual start writes nothing.
    if path.exists() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    rand::fill(&mut key[..]);
    let text = Zeroizing::new(BASE64.encode(&key[..]) + "\n");
    // Complete before it has its name: of two at once, one wins and both read the same.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let draft = folder.join(format!(".culvert-key-{:016x}", rand::random::<u64>()));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::hard_link(&draft, path)
    })();
    let removed = fs::remove_file(&draft);
    written.and(removed)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn config(database: Database) -> Config {
        let mut config =
            Config::embedded((Ipv4Addr::LOCALHOST, 0).into(), Path::new("x"), vec![0; 32].into());
        config.data_keys.clear();
        config.database = database;
        config
    }

    #[test]
    fn a_key_is_made_once_beside_the_database_and_only_its_owner_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("broker.db");
        let keys = |config| with_keys(config).unwrap().data_keys;
        let first = keys(config(Database::Sqlite(database.clone())));
        assert_eq!(first[0].expose().len(), 32);
        assert_ne!(first[0].expose(), &vec![0; 32]);
        assert_eq!(first, keys(config(Database::Sqlite(database))));
        let file = folder.path().join("broker.db.key");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a draft was left behind");
    }

    #[test]
    fn a_key_file_that_others_can_read_or_that_holds_something_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (database, file) = (folder.path().join("b.db"), folder.path().join("b.db.key"));
        fs::write(&file, BASE64.encode(&[1; 32])).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let refused = |database: &PathBuf| with_keys(config(Database::Sqlite(database.clone()))).unwrap_err();
        assert!(matches!(refused(&database), KeyFileError::Open { .. }));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&file, BASE64.encode(&[1; 31])).unwrap();
        assert!(matches!(refused(&database), KeyFileError::Form { .. }));
    }

    #[test]
    fn postgres_has_no_key_unless_one_is_given() {
        let database = Database::Postgres("postgres://x".to_owned().into());
        assert!(matches!(with_keys(config(database)).unwrap_err(), KeyFileError::Missing));
    }
}

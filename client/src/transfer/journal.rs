//! What is verified in a partial file, in 4 KiB beside it.
//!
//! Two slots are written in turn, each with its number and checksum, so a torn write leaves the other.
//! The space is taken when the journal is created: on a full disk it can still be updated. A record is
//! written only after the data it speaks of is synced, so what it says survives a power cut; what it
//! does not say yet is fetched again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ranges::Ranges;
use super::tree::Root;

const SLOT: usize = 2048;
const CHECKSUM: usize = 8;
/// Ranges that fit a slot whatever their numbers; a transfer in order has one or two.
const MAX_RANGES: usize = 32;

/// What a journal says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The root of the file, or the id of the stream.
    pub(super) identity: Root,
    /// Bytes that are verified and synced.
    pub(super) verified: Ranges,
    /// Entries of a stream that are complete; 0 for a file.
    pub(super) entries: u64,
}

/// The journal of one partial file, locked while it is open.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    path: PathBuf,
    number: u64,
}

/// What is in the journal's place.
#[derive(Debug)]
pub(super) enum Found {
    /// Nothing.
    Nothing,
    /// A journal of ours.
    Ours(Journal, Record),
    /// Something else, which is left alone.
    Foreign,
}

#[derive(Serialize, Deserialize)]
struct Slot {
    number: u64,
    #[serde(flatten)]
    record: Record,
}

impl Journal {
    /// Creates one where nothing is.
    pub(super) fn create(path: PathBuf, record: &Record) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        lock(&file)?;
        let mut journal = Self { file, path, number: 0 };
        journal.file.write_all(&[0; 2 * SLOT])?;
        journal.store(record)?;
        Ok(journal)
    }

    /// Looks at what is there. Never follows a link.
    pub(super) fn find(path: PathBuf) -> io::Result<Found> {
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(error),
            Ok(meta) if !meta.is_file() => return Ok(Found::Foreign),
            Ok(_) => {}
        }
        let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
        let mut bytes = Vec::new();
        (&mut file).take(2 * SLOT as u64 + 1).read_to_end(&mut bytes)?;
        let slots = if bytes.len() == 2 * SLOT { bytes.chunks(SLOT) } else { [].chunks(SLOT) };
        let Some(newest) = slots.filter_map(read_slot).max_by_key(|slot| slot.number) else {
            return Ok(Found::Foreign);
        };
        lock(&file)?;
        Ok(Found::Ours(Self { file, path, number: newest.number }, newest.record))
    }

    /// Replaces the record and syncs it.
    pub(super) fn store(&mut self, record: &Record) -> io::Result<()> {
        self.number += 1;
        let record = Record { verified: record.verified.first(MAX_RANGES), ..record.clone() };
        let json = serde_json::to_vec(&Slot { number: self.number, record })?;
        let mut slot = vec![0; CHECKSUM];
        slot[..CHECKSUM].copy_from_slice(&blake3::hash(&json).as_bytes()[..CHECKSUM]);
        slot.extend_from_slice(&json);
        if slot.len() > SLOT {
            return Err(io::Error::other("a journal record does not fit its slot"));
        }
        slot.resize(SLOT, 0);
        self.file.seek(SeekFrom::Start((self.number % 2) * SLOT as u64))?;
        self.file.write_all(&slot)?;
        self.file.sync_data()
    }

    /// Removes it: the file it spoke of is complete.
    pub(super) fn remove(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

fn lock(file: &File) -> io::Result<()> {
    file.try_lock().map_err(|error| match error {
        fs::TryLockError::WouldBlock => {
            io::Error::new(io::ErrorKind::ResourceBusy, "another culvert is receiving this file")
        }
        fs::TryLockError::Error(error) => error,
    })
}

fn read_slot(slot: &[u8]) -> Option<Slot> {
    let (checksum, json) = slot.split_at_checked(CHECKSUM)?;
    let len = json.iter().rposition(|b| *b != 0)? + 1;
    let json = &json[..len];
    if blake3::hash(json).as_bytes()[..CHECKSUM] != *checksum {
        return None;
    }
    serde_json::from_slice(json).ok()
}

/// Where the journal of a partial file is.
pub(super) fn beside(part: &Path) -> PathBuf {
    let mut name = part.as_os_str().to_owned();
    name.push(".journal");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(end: u64) -> Record {
        let mut verified = Ranges::default();
        verified.insert(0, end);
        Record { identity: Root([7; 32]), verified, entries: 0 }
    }

    fn reopen(path: &Path) -> Option<Record> {
        match Journal::find(path.to_owned()).unwrap() {
            Found::Ours(_, record) => Some(record),
            Found::Nothing | Found::Foreign => None,
        }
    }

    #[test]
    fn the_newest_record_is_read_back_and_a_torn_one_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        let mut journal = Journal::create(path.clone(), &record(0)).unwrap();
        journal.store(&record(16384)).unwrap();
        journal.store(&record(32768)).unwrap();
        drop(journal);
        assert_eq!(reopen(&path), Some(record(32768)));
        // Number 3 went to slot 1; a torn write leaves half of it.
        let mut bytes = fs::read(&path).unwrap();
        bytes[SLOT + 40..2 * SLOT].fill(0);
        fs::write(&path, bytes).unwrap();
        assert_eq!(reopen(&path), Some(record(16384)));
    }

    #[test]
    fn many_ranges_with_the_longest_numbers_fit_a_slot() {
        let dir = tempfile::tempdir().unwrap();
        let mut verified = Ranges::default();
        for i in 0..100 {
            verified.insert(u64::MAX - 1000 + 4 * i, u64::MAX - 1000 + 4 * i + 1);
        }
        let full = Record { identity: Root([255; 32]), verified: verified.clone(), entries: u64::MAX };
        let path = dir.path().join("j");
        drop(Journal::create(path.clone(), &full).unwrap());
        assert_eq!(reopen(&path).unwrap().verified, verified.first(MAX_RANGES));
    }

    #[test]
    fn foreign_files_are_left_alone_and_a_journal_in_use_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let foreign = dir.path().join("f");
        fs::write(&foreign, "mine").unwrap();
        assert!(matches!(Journal::find(foreign).unwrap(), Found::Foreign));
        let path = dir.path().join("j");
        let _held = Journal::create(path.clone(), &record(0)).unwrap();
        assert_eq!(Journal::find(path).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
    }
}

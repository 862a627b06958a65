//! Publications and revocations that the broker has not answered yet.
//!
//! Every change goes through here, so that one that was under way when the connection broke is made again:
//! both are idempotent. In order, one at a time, bounded; with a file they outlive the process.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use culvert_broker_wire::{ClientMessage, ShareToken};
use serde::{Deserialize, Serialize};

use super::error::SyncError;
use super::files;

/// A publication or revocation, with a number of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) id: u64,
    pub(crate) message: ClientMessage,
    /// Whether it was sent before and its answer lost.
    #[serde(default)]
    pub(crate) tried: bool,
}

impl Change {
    /// Which share it concerns.
    pub(crate) fn token(&self) -> Option<ShareToken> {
        match &self.message {
            ClientMessage::PublishShare { token, .. } | ClientMessage::RevokeShare { token } => {
                token.parse().ok()
            }
            _ => None,
        }
    }

    pub(crate) fn is_revocation(&self) -> bool {
        matches!(self.message, ClientMessage::RevokeShare { .. })
    }
}

/// What waits, in order.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    changes: VecDeque<Change>,
    most: usize,
    next: u64,
    file: Option<PathBuf>,
}

impl Queue {
    /// What an earlier process left, if there is a file. Blocks.
    pub(crate) fn load(file: Option<PathBuf>, most: usize) -> Result<Self, SyncError> {
        let changes: VecDeque<Change> = match &file {
            Some(path) => files::read(path)?.unwrap_or_default(),
            None => VecDeque::new(),
        };
        let next = changes.iter().map(|change| change.id + 1).max().unwrap_or(0);
        Ok(Self { changes, most, next, file })
    }

    pub(crate) fn push(&mut self, message: ClientMessage) -> Result<u64, SyncError> {
        if self.changes.len() >= self.most {
            return Err(SyncError::QueueFull(self.most));
        }
        let id = self.next;
        self.next += 1;
        self.changes.push_back(Change { id, message, tried: false });
        self.save().inspect_err(|_| drop(self.changes.pop_back()))?;
        Ok(id)
    }

    pub(crate) fn first(&self) -> Option<&Change> {
        self.changes.front()
    }

    /// The first one is on its way.
    pub(crate) fn tried(&mut self) -> Result<(), SyncError> {
        match self.changes.front_mut() {
            Some(first) if !first.tried => {
                first.tried = true;
                self.save()
            }
            _ => Ok(()),
        }
    }

    /// The first one was answered.
    pub(crate) fn pop(&mut self) -> Result<Option<Change>, SyncError> {
        let change = self.changes.pop_front();
        self.save()?;
        Ok(change)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.changes.len()
    }

    /// A few changes of some hundred bytes: written in less time than handing it to a thread takes.
    fn save(&self) -> Result<(), SyncError> {
        match &self.file {
            Some(path) if self.changes.is_empty() => match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(SyncError::disk(path, error)),
                _ => Ok(()),
            },
            Some(path) => files::write(path, &self.changes),
            None => Ok(()),
        }
    }
}

/// Where the queue of a user of a broker is.
pub(crate) fn file_in(folder: &Path, broker: &str, user: &str) -> PathBuf {
    folder.join(format!("changes-{}.json", files::name_for(broker, user)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revoke(token: &str) -> ClientMessage {
        ClientMessage::RevokeShare { token: token.to_owned() }
    }

    #[test]
    fn changes_outlive_the_process_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let file = file_in(dir.path(), "wss://broker.example/ws", "alice");
        let mut queue = Queue::load(Some(file.clone()), 10).unwrap();
        for token in ["one", "two", "three"] {
            queue.push(revoke(token)).unwrap();
        }
        queue.pop().unwrap();
        queue.tried().unwrap();
        drop(queue);
        let mut queue = Queue::load(Some(file.clone()), 10).unwrap();
        assert_eq!(queue.first().unwrap(), &Change { id: 1, message: revoke("two"), tried: true });
        assert_eq!(queue.push(revoke("four")).unwrap(), 3);
        let rest: Vec<_> = std::iter::from_fn(|| queue.pop().unwrap()).map(|change| change.id).collect();
        assert_eq!(rest, [1, 2, 3]);
        assert!(!file.exists());
    }

    #[test]
    fn a_full_queue_says_so() {
        let mut queue = Queue::load(None, 2).unwrap();
        queue.push(revoke("one")).unwrap();
        queue.push(revoke("two")).unwrap();
        assert!(matches!(queue.push(revoke("three")), Err(SyncError::QueueFull(2))));
        assert_eq!(queue.len(), 2);
    }

    #[test]
    fn a_file_that_cannot_be_written_loses_no_change_silently() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("not-a-folder").join("queue.json");
        std::fs::write(dir.path().join("not-a-folder"), "x").unwrap();
        // Reading finds the file missing or not a folder; writing must fail.
        if let Ok(mut queue) = Queue::load(Some(file), 2) {
            assert!(matches!(queue.push(revoke("one")), Err(SyncError::Disk { .. })));
            assert_eq!(queue.len(), 0);
        }
    }
}

//! The channel between coordinator and worker: JSON messages over TCP, for both kinds of workers.
//!
//! Both sides know a secret. The channel is Noise `NNpsk0_25519_ChaChaPoly_BLAKE2s` with that secret: nobody
//! without it can start a worker, read what it is told (which may be a key) or pass as one. Keys are fresh
//! for each connection, so that a secret that gets out later opens no old recording. Each side hears of the
//! other's end when the connection ends.
//!
//! A message is cut into Noise messages of at most 64 KiB, each behind its length (two bytes); the first
//! four bytes of its text are the length of all of it.

mod channel;

use std::time::Duration;

use aws_lc_rs::{digest, rand};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use crate::measure::Sample;
use crate::plan::Plan;
use crate::stage::Ending;

pub use channel::{ControlError, Receiver, Sender, accept, dial};

/// How often a worker says something.
pub const WORD_EVERY: Duration = crate::stage::SAMPLED;
/// Silence after which a worker is held to hang: its thread did not get to run for so long.
pub const SILENCE: Duration = Duration::from_secs(10);

/// What coordinator and worker know.
#[derive(Clone)]
pub struct Secret([u8; 32]);

impl Secret {
    /// From the text in a file.
    pub fn of(text: &str) -> Self {
        let mut secret = [0; 32];
        let text = format!("culvert-loadtest control\n{text}");
        secret.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
        Self(secret)
    }

    /// A random text for one.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn random() -> anyhow::Result<String> {
        let mut bytes = [0; 32];
        rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system gives no random bytes"))?;
        Ok(HEXLOWER.encode(&bytes))
    }
}

/// What the coordinator tells a worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// What to do: connect, and say when ready.
    Plan(Box<Plan>),
    /// Everybody is ready: warm up, measure for as long as the plan says, and account for it.
    Go,
    /// Stop measuring now, and account for what was measured.
    Over,
}

/// What a worker tells the coordinator, at least every [`WORD_EVERY`] from its plan on.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// Who it is; the first word.
    Here {
        /// Its process.
        pid: u32,
        /// What it has used so far.
        used: Used,
    },
    /// All its peers are connected.
    Ready,
    /// What happened since its last sample.
    Sample {
        /// When that was.
        moment: Moment,
        /// What it measured.
        sample: Box<Sample>,
        /// What its process has used so far.
        used: Used,
    },
    /// It has accounted for everything; its last word.
    Done {
        /// How the scenario ended.
        ending: Ending,
        /// What was counted while it did the accounts.
        rest: Box<Sample>,
    },
    /// It cannot go on, a sentence; its last word.
    Failed(String),
}

/// The part of a run that a sample is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// Peers connect.
    Connecting,
    /// Load that does not count.
    WarmUp,
    /// The measured second of this number, from 1; the last one may be shorter.
    Second(u32),
    /// The measuring is over, the accounts are not.
    Accounts,
}

/// What a process has used since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// Processor time.
    pub cpu: Duration,
    /// Resident bytes now.
    pub resident: u64,
}

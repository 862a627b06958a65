//! What every worker is told: the load to make, and where.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::scenario::Scenario;

/// One run, as one worker sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// The load.
    pub scenario: Scenario,
    /// Where it goes.
    pub reach: Reach,
    /// This worker's part of it.
    pub share: Share,
    /// From the moment at which every worker is connected; what happens then is not counted.
    pub warm_up: Duration,
    /// What is counted.
    pub duration: Duration,
    /// For everything that is random, so that a run can be repeated.
    pub seed: u64,
}

/// How peers get to the relays.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reach {
    /// Relays or balancers, `ws` or `wss`; peers are spread over them evenly.
    pub urls: Vec<Url>,
    /// Why peers are let in.
    pub admission: Admission,
    /// PEM of an authority that is trusted beside those of the system.
    pub authority: Option<String>,
}

/// Why peers are let in.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Admission {
    /// The relays are open.
    Open,
    /// The access token.
    AccessToken(String),
    /// Every peer gets a ticket of its own, for all topics.
    Tickets {
        /// PKCS#8 PEM of the Ed25519 key that signs them.
        key: String,
        /// The key's id, where the relays have several.
        key_id: Option<String>,
        /// The tenant they are for.
        tenant: String,
    },
}

/// Names the kind only: the rest lets its reader in.
impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Admission::Open => "Open",
            Admission::AccessToken(_) => "AccessToken(***)",
            Admission::Tickets { .. } => "Tickets(***)",
        })
    }
}

/// Which worker of how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// From 0.
    pub index: usize,
    /// All workers.
    pub of: usize,
}

impl Share {
    /// A worker that has no others beside it.
    pub const WHOLE: Share = Share { index: 0, of: 1 };

    /// This worker's part of so many; the parts of all workers add up.
    pub fn part(self, of_all: usize) -> usize {
        of_all / self.of + usize::from(self.index < of_all % self.of)
    }

    /// This worker's part of a rate.
    pub fn rate(self, of_all: f64) -> f64 {
        of_all / self.of as f64
    }
}

impl Plan {
    /// Checks what no single setting shows.
    ///
    /// # Errors
    /// A sentence that says which setting to change.
    pub fn check(&self) -> Result<()> {
        ensure!(!self.reach.urls.is_empty(), "no relay to load: give --url or --spawn");
        ensure!(!self.duration.is_zero(), "--duration must be longer than 0s");
        self.scenario.check(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_all_workers_add_up() {
        for (all, of) in [(10, 3), (2, 5), (0, 1), (7, 7), (1000, 6)] {
            let parts = (0..of).map(|index| Share { index, of }.part(all));
            assert_eq!(parts.sum::<usize>(), all, "{all} over {of}");
        }
    }

    #[test]
    fn an_admission_never_prints_its_secret() {
        let key = Admission::Tickets { key: "secret".into(), key_id: None, tenant: "secret".into() };
        for admission in [Admission::AccessToken("secret".into()), key] {
            assert!(!format!("{admission:?}").contains("secret"));
        }
    }
}

//! Which processes serve a cluster: one that is new there lacks what was registered with another.
//!
//! A master that comes back without its keys, or a replica that takes over, is not seen by its slots. What
//! it lacks would stay lost, because leases may be with another master and fine. So each is asked for its
//! run id, which every start of a server has anew.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;
use redis::RedisError;
use redis::aio::{ConnectionLike, MultiplexedConnection};

use super::Place;
use super::link::Link;

/// The masters, as they were last seen.
pub(super) struct Masters {
    link: Arc<Link>,
    seen: HashMap<Place, Master>,
}

#[derive(Clone, Default)]
struct Master {
    run: Option<String>,
    connection: Option<MultiplexedConnection>,
}

impl Masters {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self { link, seen: HashMap::new() }
    }

    /// Asks those who serve now; says how many processes are among them that were not, of those that could
    /// be asked. The first answer of all is what later ones are compared with. Cancel safe.
    pub(super) async fn look(&mut self, places: Vec<Place>) -> usize {
        let first = self.seen.values().all(|master| master.run.is_none());
        let asked = places.into_iter().map(|place| {
            let mut master = self.seen.get(&place).cloned().unwrap_or_default();
            let link = &self.link;
            async move {
                let before = master.run.clone();
                master.ask(link, &place).await;
                let is_new = master.run != before;
                (place, master, is_new)
            }
        });
        let answers = join_all(asked).await;
        let new = answers.iter().filter(|(.., is_new)| *is_new).count();
        // Whoever serves nothing any more is forgotten: when it serves again, it is somebody new.
        self.seen = answers.into_iter().map(|(place, master, _)| (place, master)).collect();
        if first { 0 } else { new }
    }
}

impl Master {
    /// Learns the run id; without an answer the one before stays.
    async fn ask(&mut self, link: &Link, place: &Place) {
        let connection = match self.connection.take() {
            Some(connection) => Ok(connection),
            None => link.open(&place.0, None).await,
        };
        let Ok(mut connection) = connection else { return };
        if let Ok(run) = run_id(&mut connection).await {
            self.run = Some(run);
            self.connection = Some(connection);
        }
    }
}

/// Which process of Redis answers here.
///
/// # Errors
/// It does not answer.
pub async fn run_id(connection: &mut impl ConnectionLike) -> Result<String, RedisError> {
    let info: String = redis::cmd("INFO").arg("server").query_async(connection).await?;
    let id = info.lines().find_map(|line| line.strip_prefix("run_id:"));
    Ok(id.unwrap_or_default().trim().to_owned())
}

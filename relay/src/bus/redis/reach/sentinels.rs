//! Asking Sentinels which server is the master.
//!
//! All are asked at once, over connections that are kept, and the answer of the latest configuration
//! epoch counts: a Sentinel that was cut off still names the master from before.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use tokio::time::{Instant, sleep_until};

use super::ReachError;
use super::link::Link;
use crate::bus::redis::settings::Server;

/// How much longer the others are waited for once one has answered.
const GRACE: Duration = Duration::from_millis(100);

/// The Sentinels of one master.
pub(super) struct Sentinels {
    master: String,
    link: Arc<Link>,
    members: Vec<Member>,
}

struct Member {
    server: Server,
    connection: Option<MultiplexedConnection>,
}

/// What one of them says.
struct Answer {
    epoch: u64,
    master: Server,
}

impl Sentinels {
    pub(super) fn new(master: String, servers: Vec<Server>, link: Arc<Link>) -> Self {
        let members = servers.into_iter().map(|server| Member { server, connection: None }).collect();
        Self { master, link, members }
    }

    /// Where the master is.
    ///
    /// # Errors
    /// None of them says so within the limit.
    pub(super) async fn master(&mut self, limit: Duration) -> Result<Server, ReachError> {
        let (link, name) = (&*self.link, self.master.as_str());
        let mut asked: FuturesUnordered<_> =
            self.members.iter_mut().map(|member| member.ask(link, name)).collect();
        let mut until = Instant::now() + limit;
        let (mut best, mut reason): (Option<Answer>, String) = (None, format!("no answer within {limit:?}"));
        loop {
            let answer = tokio::select! {
                answer = asked.next() => answer,
                () = sleep_until(until) => None,
            };
            match answer {
                None => break,
                Some(Err(error)) => reason = error,
                Some(Ok(answer)) => {
                    until = until.min(Instant::now() + GRACE);
                    if best.as_ref().is_none_or(|best| answer.epoch > best.epoch) {
                        best = Some(answer);
                    }
                }
            }
        }
        match best {
            Some(answer) => Ok(answer.master),
            None => Err(ReachError::NoMaster { master: self.master.clone(), reason }),
        }
    }
}

impl Member {
    async fn ask(&mut self, link: &Link, name: &str) -> Result<Answer, String> {
        // Put back only after an answer: a connection that was given up on is not used again.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => link.open(&self.server, None).await.map_err(|error| error.to_string())?,
        };
        let asked = redis::cmd("SENTINEL").arg("MASTER").arg(name).query_async(&mut connection).await;
        let said: HashMap<String, String> =
            asked.map_err(|error| format!("the Sentinel at {} says: {error}", self.server))?;
        self.connection = Some(connection);
        let (host, port) = (said.get("ip"), said.get("port").and_then(|port| port.parse().ok()));
        let (Some(host), Some(port)) = (host, port) else {
            return Err(format!("the Sentinel at {} gives no address", self.server));
        };
        let epoch = said.get("config-epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
        Ok(Answer { epoch, master: Server { host: host.clone(), port, tls: self.server.tls } })
    }
}

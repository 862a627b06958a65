//! Asking a cluster which master serves which slot.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, Value};
use tokio::time::timeout;

use super::link::Link;
use super::topology::SlotMap;
use super::{Place, ReachError};
use crate::bus::redis::settings::Server;

/// More masters are not asked at once; a cluster of any size has one among so many that answers.
const AT_ONCE: usize = 8;

/// Servers of a cluster that can be asked.
pub(super) struct Seeds {
    link: Arc<Link>,
    /// From the settings; they may all have been replaced since.
    given: Vec<Server>,
    /// Masters of the last answer.
    masters: Vec<Server>,
    /// Who answered last.
    kept: Option<(Server, MultiplexedConnection)>,
}

impl Seeds {
    pub(super) fn new(given: Vec<Server>, link: Arc<Link>) -> Self {
        Self { link, given, masters: Vec::new(), kept: None }
    }

    /// Asks somebody else next time.
    pub(super) fn distrust(&mut self) {
        self.kept = None;
    }

    /// Who serves what: from whoever answered last, else from the first of all who answers.
    ///
    /// # Errors
    /// None of them does within the limit.
    pub(super) async fn slots(&mut self, limit: Duration) -> Result<SlotMap, ReachError> {
        if let Some((server, mut connection)) = self.kept.take()
            && let Ok(Ok(map)) = timeout(limit / 2, ask(&self.link, &server, &mut connection)).await
        {
            return Ok(self.keep(server, connection, map));
        }
        let mut candidates = self.masters.clone();
        candidates.extend(self.given.iter().filter(|server| !self.masters.contains(server)).cloned());
        let first = rand::random_range(0..candidates.len());
        candidates.rotate_left(first);
        candidates.truncate(AT_ONCE);
        let link = &self.link;
        let mut asked: FuturesUnordered<_> = candidates
            .into_iter()
            .map(|server| async move {
                let mut connection = link.open(&server, None).await?;
                let map = ask(link, &server, &mut connection).await?;
                Ok::<_, ReachError>((server, connection, map))
            })
            .collect();
        let answered = timeout(limit, async {
            let mut last = None;
            while let Some(answer) = asked.next().await {
                match answer {
                    Ok(answer) => return Ok(answer),
                    Err(error) => last = Some(error),
                }
            }
            Err(last.unwrap_or(ReachError::Unserved(0)))
        })
        .await;
        drop(asked);
        match answered {
            Ok(Ok((server, connection, map))) => Ok(self.keep(server, connection, map)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ReachError::Timeout { server: "every known address".to_owned(), limit }),
        }
    }

    fn keep(&mut self, server: Server, connection: MultiplexedConnection, answer: Answer) -> SlotMap {
        self.masters = answer.masters;
        self.kept = Some((server, connection));
        answer.map
    }
}

struct Answer {
    map: SlotMap,
    masters: Vec<Server>,
}

async fn ask(
    link: &Link,
    server: &Server,
    connection: &mut MultiplexedConnection,
) -> Result<Answer, ReachError> {
    let asked = redis::cmd("CLUSTER").arg("SLOTS").query_async(connection).await;
    let ranges: Vec<Vec<Value>> = asked.map_err(|error| link.error(server, error))?;
    let answer = read(server, &ranges);
    if answer.masters.is_empty() {
        return Err(ReachError::Unserved(0));
    }
    Ok(answer)
}

/// Reads `CLUSTER SLOTS`: each range is its first slot, its last slot, its master and its replicas, a
/// server being its host, its port and more.
fn read(asked: &Server, ranges: &[Vec<Value>]) -> Answer {
    let mut answer = Answer { map: SlotMap::default(), masters: Vec::new() };
    for range in ranges {
        let [first, last, Value::Array(master), ..] = range.as_slice() else { continue };
        let [host, port, ..] = master.as_slice() else { continue };
        let (Ok(first), Ok(last)) = (number(first), number(last)) else { continue };
        let Ok(port) = number(port) else { continue };
        let host = match String::from_redis_value_ref(host) {
            Ok(host) if host == "?" => continue,
            Ok(host) if !host.is_empty() => host,
            // Who does not know its own name is reached by the one that was used to ask it.
            _ => asked.host.clone(),
        };
        let server = Server { host, port, tls: asked.tls };
        answer.map.insert(first, last, Place::from(server.clone()));
        if !answer.masters.contains(&server) {
            answer.masters.push(server);
        }
    }
    answer
}

fn number(value: &Value) -> Result<u16, redis::ParsingError> {
    u16::from_redis_value_ref(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: i64, last: i64, host: Value, port: i64) -> Vec<Value> {
        let master = Value::Array(vec![host, Value::Int(port), Value::BulkString(b"id".to_vec())]);
        vec![Value::Int(first), Value::Int(last), master]
    }

    #[test]
    fn a_master_without_a_name_is_the_server_that_was_asked() {
        let asked = Server { host: "asked".to_owned(), port: 1, tls: true };
        let named = Value::BulkString(b"10.0.0.1".to_vec());
        let answer = read(
            &asked,
            &[
                range(0, 10, named, 7000),
                range(11, 20, Value::Nil, 7001),
                range(21, 30, Value::BulkString(Vec::new()), 7002),
                range(31, 40, Value::BulkString(b"?".to_vec()), 7003),
            ],
        );
        let at = |slot| answer.map.get(slot).map(|place| place.to_string());
        assert_eq!(at(5).as_deref(), Some("10.0.0.1:7000"));
        assert_eq!(at(15).as_deref(), Some("asked:7001"));
        assert_eq!(at(25).as_deref(), Some("asked:7002"));
        assert_eq!(at(35), None);
        assert!(answer.masters.iter().all(|server| server.tls));
    }
}

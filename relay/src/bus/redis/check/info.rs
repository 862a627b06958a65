//! What a server says about itself.

use std::collections::HashMap;

use redis::aio::MultiplexedConnection;

use super::super::reach::{Place, Reach, ReachError};

/// The fields of `INFO`.
pub(super) struct Info(HashMap<String, String>);

impl Info {
    /// Asks a server; `None` if it does not let this user ask, which [`rights`](super::rights) says.
    pub(super) async fn read(
        reach: &Reach,
        place: &Place,
        connection: &mut MultiplexedConnection,
    ) -> Result<Option<Self>, ReachError> {
        let text: String = match redis::cmd("INFO").query_async(connection).await {
            Ok(text) => text,
            Err(error) if error.code() == Some("NOPERM") => return Ok(None),
            Err(error) => return Err(reach.error(place, error)),
        };
        Ok(Some(Self::parse(&text)))
    }

    /// Reads lines such as `redis_version:7.0.15`.
    pub(super) fn parse(text: &str) -> Self {
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        Self(fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
    }

    /// A field.
    pub(super) fn text(&self, field: &str) -> Option<&str> {
        self.0.get(field).map(String::as_str)
    }
}

//! Pages: one statement for the first and every other one.

use culvert_broker_wire::Timestamp;

use super::StoreError;
use super::pool::Row;
use crate::store::{Cursor, Page, PageRequest};

/// After every entry that there can be: where the first page begins.
const LAST_MICROSECOND: i64 = 253_402_300_799_999_999;
const LAST_ID: &str = "\u{10ffff}";

/// What is given in a request, spelled for a statement.
pub(super) struct Wanted {
    pub(super) at: Option<Timestamp>,
    pub(super) id: String,
    /// One more than the page may hold, to see whether there is another one.
    pub(super) rows: i64,
    limit: usize,
}

impl Wanted {
    pub(super) fn of(page: PageRequest) -> Self {
        let limit = page.limit.clamp(1, 1000);
        let (at, id) = match page.after {
            Some(cursor) => (Some(cursor.at), cursor.id),
            None => (Timestamp::from_unix_micros(LAST_MICROSECOND), LAST_ID.to_owned()),
        };
        Self { at, id, rows: i64::from(limit) + 1, limit: limit as usize }
    }

    /// The page, from rows whose place in the list `place` knows.
    pub(super) fn page<T>(
        self,
        rows: &[Row],
        read: impl Fn(&Row) -> Result<T, StoreError>,
        place: impl Fn(&T) -> Cursor,
    ) -> Result<Page<T>, StoreError> {
        let items: Vec<T> = rows.iter().take(self.limit).map(read).collect::<Result<_, _>>()?;
        let next = if rows.len() > self.limit { items.last().map(place) } else { None };
        Ok(Page { items, next })
    }
}

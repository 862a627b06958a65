//! A statement with its values, and the columns of what it gives.

use std::borrow::Cow;

use culvert_broker_wire::Timestamp;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Database, Decode, Row as _, Type};

use super::dialect::Moment;
use super::pool::Row;
use super::{Db, StoreError};

/// A statement and its values: unlike a query of sqlx it can be given twice.
pub(super) struct Sql<'q> {
    text: Cow<'static, str>,
    values: Vec<Value<'q>>,
}

/// One value.
pub(super) enum Value<'q> {
    Text(Option<Cow<'q, str>>),
    Number(Option<i64>),
    Bytes(Option<&'q [u8]>),
    At(Option<Timestamp>),
}

impl<'q> Sql<'q> {
    /// A statement that stays prepared.
    pub(super) fn new(text: &'static str) -> Self {
        Self { text: Cow::Borrowed(text), values: Vec::new() }
    }

    /// `INSERT` of several rows: `head` up to `VALUES`, and the values of each row.
    pub(super) fn insert<const N: usize>(
        head: &'static str,
        rows: impl IntoIterator<Item = [Value<'q>; N]>,
    ) -> Self {
        let values: Vec<Value<'q>> = rows.into_iter().flatten().collect();
        let row = |first: usize| {
            let numbers: Vec<String> = (first..first + N).map(|number| format!("${number}")).collect();
            format!("({})", numbers.join(", "))
        };
        let rows: Vec<String> = (1..=values.len()).step_by(N).map(row).collect();
        Self { text: Cow::Owned(format!("{head} VALUES {}", rows.join(", "))), values }
    }

    /// The value of the next parameter.
    pub(super) fn bind(mut self, value: impl Into<Value<'q>>) -> Self {
        self.values.push(value.into());
        self
    }

    /// As sqlx takes it.
    ///
    /// A NUL is refused here, because Postgres refuses it in text and SQLite does not.
    pub(super) fn query(&self) -> Result<Query<'static, Db, <Db as Database>::Arguments>, StoreError> {
        let mut query = match &self.text {
            Cow::Borrowed(text) => sqlx::query::<Db>(*text),
            // Made of constants and numbers of parameters, above. As many as there are lengths of lists.
            Cow::Owned(text) => sqlx::query::<Db>(AssertSqlSafe(text.clone())).persistent(false),
        };
        for value in &self.values {
            query = match value {
                Value::Text(Some(text)) if text.contains('\0') => {
                    return Err(StoreError::Invalid("text must not contain a NUL character"));
                }
                Value::Text(text) => query.bind(text.as_deref()),
                Value::Number(number) => query.bind(*number),
                Value::Bytes(bytes) => query.bind(*bytes),
                Value::At(at) => query.bind(at.map(Moment)),
            };
        }
        Ok(query)
    }
}

impl<'q> From<&'q str> for Value<'q> {
    fn from(text: &'q str) -> Self {
        Self::Text(Some(Cow::Borrowed(text)))
    }
}

impl<'q> From<&'q String> for Value<'q> {
    fn from(text: &'q String) -> Self {
        Self::Text(Some(Cow::Borrowed(text)))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Text(Some(Cow::Owned(text)))
    }
}

impl<'q> From<Option<&'q str>> for Value<'q> {
    fn from(text: Option<&'q str>) -> Self {
        Self::Text(text.map(Cow::Borrowed))
    }
}

impl<'q> From<Option<Cow<'q, str>>> for Value<'q> {
    fn from(text: Option<Cow<'q, str>>) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Number(Some(number))
    }
}

impl From<u32> for Value<'_> {
    fn from(number: u32) -> Self {
        Self::Number(Some(number.into()))
    }
}

impl From<Option<i64>> for Value<'_> {
    fn from(number: Option<i64>) -> Self {
        Self::Number(number)
    }
}

impl From<Option<u32>> for Value<'_> {
    fn from(number: Option<u32>) -> Self {
        Self::Number(number.map(i64::from))
    }
}

impl<'q> From<&'q [u8]> for Value<'q> {
    fn from(bytes: &'q [u8]) -> Self {
        Self::Bytes(Some(bytes))
    }
}

impl<'q> From<&'q Vec<u8>> for Value<'q> {
    fn from(bytes: &'q Vec<u8>) -> Self {
        Self::Bytes(Some(bytes))
    }
}

impl<'q> From<&'q [u8; 32]> for Value<'q> {
    fn from(bytes: &'q [u8; 32]) -> Self {
        Self::Bytes(Some(bytes))
    }
}

impl<'q> From<Option<&'q [u8; 32]>> for Value<'q> {
    fn from(bytes: Option<&'q [u8; 32]>) -> Self {
        Self::Bytes(bytes.map(<[u8; 32]>::as_slice))
    }
}

impl From<Timestamp> for Value<'_> {
    fn from(at: Timestamp) -> Self {
        Self::At(Some(at))
    }
}

impl From<Option<Timestamp>> for Value<'_> {
    fn from(at: Option<Timestamp>) -> Self {
        Self::At(at)
    }
}

/// The columns of a row, from the first to the last.
pub(super) struct Columns<'r> {
    row: &'r Row,
    next: usize,
}

impl<'r> Columns<'r> {
    /// From the first one.
    pub(super) fn of(row: &'r Row) -> Self {
        Self { row, next: 0 }
    }

    fn next<T: Decode<'r, Db> + Type<Db>>(&mut self) -> Result<T, StoreError> {
        let value = self.row.try_get(self.next).map_err(broken);
        self.next += 1;
        value
    }

    pub(super) fn text(&mut self) -> Result<String, StoreError> {
        self.next()
    }

    pub(super) fn text_or_none(&mut self) -> Result<Option<String>, StoreError> {
        self.next()
    }

    /// One of the names that a type has for its values.
    pub(super) fn name<T>(&mut self, known: impl Fn(&str) -> Option<T>) -> Result<T, StoreError> {
        let name: &str = self.next()?;
        known(name).ok_or_else(|| broken(format!("{name} is no value of its column")))
    }

    pub(super) fn flag(&mut self) -> Result<bool, StoreError> {
        self.next()
    }

    pub(super) fn number(&mut self) -> Result<i64, StoreError> {
        self.next()
    }

    pub(super) fn number_or_none(&mut self) -> Result<Option<i64>, StoreError> {
        self.next()
    }

    /// A number that is not negative and not larger than `T` can be.
    pub(super) fn count<T: TryFrom<i64, Error: std::error::Error + Send + Sync + 'static>>(
        &mut self,
    ) -> Result<T, StoreError> {
        T::try_from(self.number()?).map_err(broken)
    }

    pub(super) fn bytes(&mut self) -> Result<Vec<u8>, StoreError> {
        self.next()
    }

    pub(super) fn bytes_or_none(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        self.next()
    }

    /// A hash, or a key.
    pub(super) fn bytes32(&mut self) -> Result<[u8; 32], StoreError> {
        self.bytes32_or_none()?.ok_or_else(|| broken("32 bytes are missing"))
    }

    pub(super) fn bytes32_or_none(&mut self) -> Result<Option<[u8; 32]>, StoreError> {
        let bytes: Option<&[u8]> = self.next()?;
        bytes.map(|bytes| bytes.try_into().map_err(broken)).transpose()
    }

    pub(super) fn at(&mut self) -> Result<Timestamp, StoreError> {
        Ok(self.next::<Moment>()?.0)
    }

    pub(super) fn at_or_none(&mut self) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.next::<Option<Moment>>()?.map(|moment| moment.0))
    }
}

/// A broken promise between this program and its database.
pub(super) fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Broken(error.into())
}

//! A statement with its values, and the columns of what it gives.

use std::borrow::Cow;
use std::fmt::Write;

use culvert_broker_wire::Timestamp;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Database, Decode, Row as _, Type};

use super::dialect::Moment;
use super::pool::Row;
use super::{Db, StoreError};

/// Lists of so many rows are each a statement that stays prepared; longer ones would be too many.
const SHORT: usize = 16;

/// A statement and its values: unlike a query of sqlx it can be given twice.
pub(super) struct Sql<'q> {
    text: Cow<'static, str>,
    values: Vec<Value<'q>>,
    /// Whether it stays prepared on the connection.
    kept: bool,
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
        Self { text: Cow::Borrowed(text), values: Vec::new(), kept: true }
    }

    /// A statement with a list of rows between `head` and `tail`. It stays prepared if the list is short.
    pub(super) fn rows<const N: usize>(
        head: &'static str,
        rows: impl IntoIterator<Item = [Value<'q>; N]>,
        tail: &'static str,
    ) -> Self {
        let values: Vec<Value<'q>> = rows.into_iter().flatten().collect();
        let mut text = format!("{head}VALUES ");
        for first in (1..=values.len()).step_by(N) {
            text.push_str(if first == 1 { "(" } else { ", (" });
            for number in first..first + N {
                let comma = if number == first { "" } else { ", " };
                // Writing to a string cannot fail.
                let _ = write!(text, "{comma}${number}");
            }
            text.push(')');
        }
        text.push_str(tail);
        let kept = values.len() <= SHORT * N;
        Self { text: Cow::Owned(text), values, kept }
    }

    /// Goes on with a part of a statement, in which `$` is the next parameter, and its value. The whole is
    /// not kept prepared: it is planned for its values.
    pub(super) fn with(mut self, part: &'static str, value: impl Into<Value<'q>>) -> Self {
        self.values.push(value.into());
        let number = self.values.len();
        self.kept = false;
        self.text = Cow::Owned(self.text.into_owned() + &part.replace('$', &format!("${number}")));
        self
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
            // Made of constants and numbers of parameters, above.
            Cow::Owned(text) => sqlx::query::<Db>(AssertSqlSafe(text.clone())),
        };
        query = query.persistent(self.kept);
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

macro_rules! values {
    ($($from:ty => $value:pat => $to:expr;)+) => {
        $(impl<'q> From<$from> for Value<'q> {
            fn from($value: $from) -> Self {
                $to
            }
        })+
    };
}

values! {
    &'q str => text => Self::Text(Some(Cow::Borrowed(text)));
    &'q String => text => Self::Text(Some(Cow::Borrowed(text)));
    String => text => Self::Text(Some(Cow::Owned(text)));
    Option<&'q str> => text => Self::Text(text.map(Cow::Borrowed));
    Option<Cow<'q, str>> => text => Self::Text(text);
    i64 => number => Self::Number(Some(number));
    Option<i64> => number => Self::Number(number);
    u32 => number => Self::Number(Some(number.into()));
    Option<u32> => number => Self::Number(number.map(i64::from));
    &'q [u8] => bytes => Self::Bytes(Some(bytes));
    &'q Vec<u8> => bytes => Self::Bytes(Some(bytes));
    &'q [u8; 32] => bytes => Self::Bytes(Some(bytes));
    Option<&'q [u8; 32]> => bytes => Self::Bytes(bytes.map(<[u8; 32]>::as_slice));
    Timestamp => at => Self::At(Some(at));
    Option<Timestamp> => at => Self::At(at);
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

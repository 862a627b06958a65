//! Lists in pages.

use culvert_broker_wire::Timestamp;
use data_encoding::BASE64URL_NOPAD;

/// Where a list goes on: after the entry with this moment and id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Creation of the last entry seen.
    pub at: Timestamp,
    /// Its id.
    pub id: String,
}

impl Cursor {
    /// As a client gets it: opaque, but not secret.
    pub fn encode(&self) -> String {
        BASE64URL_NOPAD.encode(format!("{}.{}", self.at.unix_micros(), self.id).as_bytes())
    }

    /// What [`Cursor::encode`] made, or `None`.
    pub fn decode(text: &str) -> Option<Self> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (micros, id) = text.split_once('.')?;
        let fits = !id.is_empty() && id.len() <= 512 && !id.contains('\0');
        let at = Timestamp::from_unix_micros(micros.parse().ok()?)?;
        fits.then(|| Self { at, id: id.to_owned() })
    }
}

/// Which part of a list is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    /// Entries after this one; `None` is the beginning.
    pub after: Option<Cursor>,
    /// At most so many; callers keep it between 1 and 1,000.
    pub limit: u32,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// Where the list goes on; `None` at its end.
    pub next: Option<Cursor>,
}

impl<T> Page<T> {
    /// The same page of something else.
    pub fn map<U>(self, change: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(change).collect(), next: self.next }
    }
}

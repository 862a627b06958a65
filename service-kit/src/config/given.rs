//! What was typed for one setting.

use std::ffi::OsStr;
use std::fmt;
use std::marker::PhantomData;

use clap::builder::{TypedValueParser, ValueParserFactory};
use clap::error::ErrorKind;
use clap::parser::ValueSource;

/// The text given for a setting of type `T`, not looked at yet.
///
/// A clap field of this type accepts every text; [`Problems::read`](super::Problems::read) makes a value of
/// it. That way a bad value is one problem among all, instead of the first and only one.
pub struct Given<T> {
    key: String,
    text: String,
    origin: Origin,
    /// The type is a promise about the text, no value of it is held.
    meaning: PhantomData<fn() -> T>,
}

/// Where the text of a setting comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A flag.
    Flag,
    /// An environment variable of this name.
    Environment(String),
    /// The file.
    File,
    /// Nobody gave one.
    Default,
}

impl<T> Given<T> {
    /// Name of the setting.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What was typed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where; a text of the file shows as the default here, because clap takes it as one.
    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }
}

impl<T> Clone for Given<T> {
    fn clone(&self) -> Self {
        Self {
            key: self.key.clone(),
            text: self.text.clone(),
            origin: self.origin.clone(),
            meaning: PhantomData,
        }
    }
}

impl<T> fmt::Debug for Given<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the text, which may be a secret.
        f.debug_struct("Given").field("key", &self.key).field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl<T: 'static> ValueParserFactory for Given<T> {
    type Parser = GivenParser<T>;

    fn value_parser() -> Self::Parser {
        GivenParser(PhantomData)
    }
}

/// Takes any text for a setting and notes where it came from.
pub struct GivenParser<T>(PhantomData<fn() -> T>);

impl<T> Clone for GivenParser<T> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

impl<T: 'static> TypedValueParser for GivenParser<T> {
    type Value = Given<T>;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Self::Value, clap::Error> {
        self.parse_ref_(command, arg, value, ValueSource::CommandLine)
    }

    fn parse_ref_(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &OsStr,
        source: ValueSource,
    ) -> Result<Self::Value, clap::Error> {
        let key = arg.and_then(|arg| arg.get_long()).unwrap_or("value").to_owned();
        let Some(text) = value.to_str() else {
            let message = format!("{key} was given bytes that are not valid UTF-8\n");
            return Err(clap::Error::raw(ErrorKind::InvalidUtf8, message).with_cmd(command));
        };
        let origin = match source {
            ValueSource::EnvVariable => Origin::Environment(arg.and_then(variable).unwrap_or_default()),
            ValueSource::DefaultValue => Origin::Default,
            _ => Origin::Flag,
        };
        Ok(Given { key, text: text.to_owned(), origin, meaning: PhantomData })
    }
}

/// The environment variable of a setting.
pub(super) fn variable(arg: &clap::Arg) -> Option<String> {
    arg.get_env().map(|name| name.to_string_lossy().into_owned())
}

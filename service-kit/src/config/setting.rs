//! How a value is written.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;

use crate::proxy_protocol::TrustedSources;
use crate::secret::Secret;
use crate::telemetry::LogFormat;

/// A type that a setting can have.
pub trait Setting: Sized {
    /// The accepted form, to follow "is not": `a duration such as 30s or 500ms`.
    const FORM: &'static str;

    /// The value of a text; `None` if it does not have the form.
    fn parse(text: &str) -> Option<Self>;
}

/// Types whose [`FromStr`](std::str::FromStr) is the accepted form.
macro_rules! settings_from_str {
    ($($type:ty = $form:literal),+ $(,)?) => {
        $(impl Setting for $type {
            const FORM: &'static str = $form;

            fn parse(text: &str) -> Option<Self> {
                text.parse().ok()
            }
        })+
    };
}

settings_from_str! {
    bool = "true or false",
    u16 = "a whole number up to 65535",
    u32 = "a whole number up to 4294967295",
    u64 = "a whole number",
    usize = "a whole number",
    SocketAddr = "an address with a port such as 0.0.0.0:8443 or [::]:8443",
    TrustedSources = "a list of networks or addresses such as 10.0.0.0/8,192.0.2.7",
    ByteSize = "a size such as 64KiB or 1MiB",
}

impl Setting for String {
    const FORM: &'static str = "a text that is not empty";

    fn parse(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| text.to_owned())
    }
}

impl Setting for Secret<String> {
    const FORM: &'static str = "a text that is not empty";

    fn parse(text: &str) -> Option<Self> {
        String::parse(text).map(Secret::new)
    }
}

impl Setting for PathBuf {
    const FORM: &'static str = "the path of a file";

    fn parse(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| text.into())
    }
}

impl Setting for Duration {
    const FORM: &'static str = "a duration such as 30s or 500ms";

    fn parse(text: &str) -> Option<Self> {
        humantime::parse_duration(text).ok()
    }
}

impl Setting for LogFormat {
    const FORM: &'static str = "text or json";

    fn parse(text: &str) -> Option<Self> {
        clap::ValueEnum::from_str(text, false).ok()
    }
}

/// A list, separated by commas; spaces around an entry do not count.
impl<T: Setting> Setting for Vec<T> {
    const FORM: &'static str = "a list separated by commas";

    fn parse(text: &str) -> Option<Self> {
        text.split(',').map(|entry| T::parse(entry.trim())).collect()
    }
}

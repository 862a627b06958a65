//! `culvert://share/<token>`: what is passed on to whoever should use a share.

use std::fmt;
use std::str::FromStr;

use culvert_broker_wire::ShareToken;

/// What a share's link begins with; the second one is the first protocol's.
const PREFIXES: [&str; 2] = ["culvert://share/", "ddalab://share/"];

/// A share by its token. `Debug` hides it; [`ShareLink::culvert`] and [`ShareLink::ddalab`] give the text.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ShareLink(pub ShareToken);

/// Text that names no share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this names no share: a share's link is culvert://share/TOKEN or ddalab://share/TOKEN")]
pub struct ParseShareLinkError;

impl ShareLink {
    /// As `culvert share` prints it.
    pub fn culvert(&self) -> String {
        format!("{}{}", PREFIXES[0], self.0.as_str())
    }

    /// As the first protocol's applications know it.
    pub fn ddalab(&self) -> String {
        format!("{}{}", PREFIXES[1], self.0.as_str())
    }
}

impl FromStr for ShareLink {
    type Err = ParseShareLinkError;

    /// Accepts either link, or the token alone; also quoted or in angle brackets.
    fn from_str(text: &str) -> Result<Self, ParseShareLinkError> {
        let text = text.trim().trim_matches(['<', '>', '"', '\'', '`']);
        let token = PREFIXES
            .iter()
            .find_map(|prefix| {
                text.get(..prefix.len())
                    .filter(|head| head.eq_ignore_ascii_case(prefix))
                    .map(|_| &text[prefix.len()..])
            })
            .unwrap_or(text);
        token.trim_end_matches('/').parse().map(Self).map_err(|_| ParseShareLinkError)
    }
}

impl fmt::Debug for ShareLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShareLink(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_link_or_the_token_alone_names_a_share() {
        let token: ShareToken = "abc123xyz".parse().unwrap();
        for text in [
            "abc123xyz",
            "ddalab://share/abc123xyz",
            "culvert://share/abc123xyz",
            " <Culvert://share/abc123xyz>\n",
            "\"ddalab://share/abc123xyz/\"",
        ] {
            assert_eq!(text.parse::<ShareLink>().unwrap().0, token, "{text}");
        }
        for bad in ["", "culvert:AQabc", "ddalab://share/", "https://share/abc", "a b"] {
            assert!(bad.parse::<ShareLink>().is_err(), "{bad}");
        }
        assert_eq!(ShareLink(token).ddalab(), "ddalab://share/abc123xyz");
    }
}

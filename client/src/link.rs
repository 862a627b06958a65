//! What one person pastes to another: `culvert:…`, all that a receiver needs.
//!
//! A [`Link`] names the relay, the sender's key and a secret. The topic and the pre-shared key of the
//! handshake are derived from the secret, so the relay, which never sees it, can neither join nor pose
//! as someone; and the receiver talks to no other key than the sender's. Where the relay asks for a
//! reason to let someone in, the link carries one: the relay's access token, or an invitation with the
//! guest's key.
//!
//! The text is base64url over a version, flags, the fields and a checksum, so that a link that lost
//! its end or a letter is told apart from one that is refused. It is not an admission ticket: those
//! begin with `eyJ`, name a peer, and open a relay rather than a file.

use std::fmt;
use std::str::FromStr;

use culvert_wire::PeerId;
use culvert_wire::limits::{MAX_INVITATION, MAX_TICKET};
use data_encoding::BASE64URL_NOPAD;
use zeroize::Zeroizing;

use crate::dial::RelayUrl;
use crate::identity::{Identity, SystemRng};
use crate::options::{AccessToken, AdmissionSource};
use crate::topic::TopicSecret;

/// What every link begins with.
pub const SCHEME: &str = "culvert:";

const VERSION: u8 = 1;
const CHECKSUM: usize = 4;
const PLAIN: u8 = 1;
const TOKEN: u8 = 2;
const INVITED: u8 = 4;
/// Longest text that is looked at, far above the longest link.
const MAX_TEXT: usize = 16 * 1024;
/// Separates the key derivation from every other use of BLAKE3.
const SECRET_CONTEXT: &str = "culvert 2026-11-20 link secret to topic secret v1";
const CHECKSUM_CONTEXT: &str = "culvert 2026-11-20 link checksum v1";

/// How a receiver finds a sender and is let in.
///
/// Whoever has it can receive: `Debug` hides the secrets, and only [`Link::reveal`] gives the text.
#[derive(Clone, PartialEq, Eq)]
pub struct Link {
    /// The relay where the sender waits.
    pub relay: RelayUrl,
    /// The sender's key: the only peer to receive from.
    pub sender: PeerId,
    /// Why the relay lets the receiver in.
    pub entry: Entry,
    secret: Zeroizing<[u8; 16]>,
}

/// Why the relay lets the holder of a link in.
#[derive(Clone, PartialEq, Eq)]
pub enum Entry {
    /// The receiver needs no reason, or has its own.
    Open,
    /// The relay's access token. It opens the relay for everything, not for this file only.
    AccessToken(AccessToken),
    /// An invitation by the sender to a key made for this link.
    Invitation(Invitation),
}

/// An invitation with all that belongs to it.
#[derive(Clone, PartialEq, Eq)]
pub struct Invitation {
    /// The sender's ticket.
    pub ticket: String,
    /// Signed by the sender for the guest's key.
    pub invitation: String,
    /// The guest's private key.
    pub seed: Zeroizing<[u8; 32]>,
}

/// Text that is no link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Something else.
    #[error("this is not a link: a link begins with `{SCHEME}` and is what `culvert send` prints")]
    NotALink,
    /// An admission ticket.
    #[error(
        "this is an admission ticket, not a link: a ticket opens a relay (--ticket), a link names a file"
    )]
    Ticket,
    /// A relay's URL.
    #[error("this is a relay's URL, not a link: ask the sender for the line that begins with `{SCHEME}`")]
    RelayUrl,
    /// A part is missing or changed.
    #[error("the link is damaged: a part of it is missing or was changed; copy it again, as a whole")]
    Damaged,
    /// Made by a newer program.
    #[error("the link is of version {0}, which this culvert does not know: update it")]
    Version(u8),
    /// A ticket or invitation that is not a JSON Web Token.
    #[error("the {0} is not a JSON Web Token and cannot be put into a link")]
    NotAToken(&'static str),
    /// A field is longer than a link may carry.
    #[error("the {0} is too long for a link")]
    TooLong(&'static str),
}

impl Link {
    /// A link with a fresh secret.
    pub fn new(relay: RelayUrl, sender: PeerId, entry: Entry) -> Self {
        let mut secret = Zeroizing::new([0; 16]);
        culvert_session::Rng::fill(&mut SystemRng, &mut secret[..]);
        Self { relay, sender, entry, secret }
    }

    /// What the members of the link's topic share.
    pub fn topic_secret(&self) -> TopicSecret {
        TopicSecret::from_bytes(blake3::derive_key(SECRET_CONTEXT, &self.secret[..]))
    }

    /// The key that the receiver must use: the guest's, if there is an invitation.
    pub fn identity(&self) -> Option<Identity> {
        match &self.entry {
            Entry::Invitation(invitation) => Some(Identity::from_seed(&invitation.seed)),
            Entry::Open | Entry::AccessToken(_) => None,
        }
    }

    /// What the receiver shows the relay.
    pub fn admission(&self) -> AdmissionSource {
        match &self.entry {
            Entry::Open => AdmissionSource::None,
            Entry::AccessToken(token) => AdmissionSource::AccessToken(token.clone()),
            Entry::Invitation(Invitation { ticket, invitation, .. }) => {
                AdmissionSource::Invitation { ticket: ticket.clone(), invitation: invitation.clone() }
            }
        }
    }

    /// The text to paste. Whoever reads it can receive.
    ///
    /// # Errors
    /// A ticket or invitation is none, or something is too long.
    pub fn reveal(&self) -> Result<Zeroizing<String>, LinkError> {
        let mut out = Zeroizing::new(vec![VERSION, 0]);
        if !self.relay.is_secure() {
            out[1] |= PLAIN;
        }
        out.extend_from_slice(&self.secret[..]);
        out.extend_from_slice(&self.sender.0);
        let url = self.relay.to_string();
        let authority = url.split_once("://").map_or("", |(_, authority)| authority);
        put(&mut out, authority.as_bytes(), "relay's URL")?;
        match &self.entry {
            Entry::Open => {}
            Entry::AccessToken(token) => {
                out[1] |= TOKEN;
                put(&mut out, token.reveal().as_bytes(), "access token")?;
            }
            Entry::Invitation(Invitation { ticket, invitation, seed }) => {
                out[1] |= INVITED;
                out.extend_from_slice(&seed[..]);
                put_jwt(&mut out, ticket, MAX_TICKET, "ticket")?;
                put_jwt(&mut out, invitation, MAX_INVITATION, "invitation")?;
            }
        }
        let sum = checksum(&out);
        out.extend_from_slice(&sum);
        Ok(Zeroizing::new(format!("{SCHEME}{}", BASE64URL_NOPAD.encode(&out))))
    }
}

impl FromStr for Link {
    type Err = LinkError;

    /// Accepts a link that was wrapped, quoted or set in angle brackets on its way.
    fn from_str(text: &str) -> Result<Self, LinkError> {
        let text: Zeroizing<String> =
            Zeroizing::new(text.chars().take(MAX_TEXT).filter(|c| !c.is_whitespace()).collect());
        let text = text.trim_matches(['<', '>', '"', '\'', '`', '.', ',']);
        let Some(body) = text.get(..SCHEME.len()).filter(|s| s.eq_ignore_ascii_case(SCHEME)) else {
            return Err(match text {
                _ if text.starts_with("eyJ") => LinkError::Ticket,
                _ if text.starts_with("wss:") || text.starts_with("ws:") => LinkError::RelayUrl,
                _ => LinkError::NotALink,
            });
        };
        let body = BASE64URL_NOPAD.decode(&text.as_bytes()[body.len()..]);
        let bytes = Zeroizing::new(body.map_err(|_| LinkError::Damaged)?);
        let (fields, sum) = bytes.split_last_chunk::<CHECKSUM>().ok_or(LinkError::Damaged)?;
        match fields.first() {
            None => return Err(LinkError::Damaged),
            // The checksum of another version may be another.
            Some(&version) if version != VERSION => return Err(LinkError::Version(version)),
            Some(_) if checksum(fields) != *sum => return Err(LinkError::Damaged),
            Some(_) => {}
        }
        Self::parse(&mut &fields[1..]).ok_or(LinkError::Damaged)
    }
}

impl Link {
    fn parse(rest: &mut &[u8]) -> Option<Self> {
        let [flags] = *take::<1>(rest)?;
        let secret = Zeroizing::new(*take(rest)?);
        let sender = PeerId(*take(rest)?);
        let scheme = if flags & PLAIN == 0 { "wss" } else { "ws" };
        let authority = std::str::from_utf8(get(rest)?).ok()?;
        let relay = format!("{scheme}://{authority}").parse().ok()?;
        let entry = match flags & !PLAIN {
            0 => Entry::Open,
            TOKEN => Entry::AccessToken(AccessToken::new(std::str::from_utf8(get(rest)?).ok()?)),
            INVITED => {
                let seed = Zeroizing::new(*take(rest)?);
                Entry::Invitation(Invitation { seed, ticket: get_jwt(rest)?, invitation: get_jwt(rest)? })
            }
            _ => return None,
        };
        rest.is_empty().then_some(Self { relay, sender, entry, secret })
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("relay", &self.relay)
            .field("sender", &self.sender)
            .field("entry", &self.entry)
            .field("secret", &"***")
            .finish()
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Entry::Open => "Open",
            Entry::AccessToken(_) => "AccessToken(***)",
            Entry::Invitation(_) => "Invitation(***)",
        })
    }
}

impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Invitation(***)")
    }
}

fn checksum(fields: &[u8]) -> [u8; CHECKSUM] {
    let [a, b, c, d, ..] = blake3::derive_key(CHECKSUM_CONTEXT, fields);
    [a, b, c, d]
}

fn put(out: &mut Vec<u8>, bytes: &[u8], what: &'static str) -> Result<(), LinkError> {
    let len = u16::try_from(bytes.len()).map_err(|_| LinkError::TooLong(what))?;
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

/// Without its own base64, which would be encoded a second time.
fn put_jwt(out: &mut Vec<u8>, jwt: &str, most: usize, what: &'static str) -> Result<(), LinkError> {
    if jwt.len() > most {
        return Err(LinkError::TooLong(what));
    }
    let parts: Vec<&str> = jwt.split('.').collect();
    let [header, claims, signature] = parts[..] else { return Err(LinkError::NotAToken(what)) };
    for part in [header, claims, signature] {
        let bytes = BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| LinkError::NotAToken(what))?;
        put(out, &bytes, what)?;
    }
    Ok(())
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (bytes, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(bytes)
}

fn get<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, after) = rest.split_first_chunk()?;
    let (bytes, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
    *rest = after;
    Some(bytes)
}

fn get_jwt(rest: &mut &[u8]) -> Option<String> {
    let mut part = || Some(BASE64URL_NOPAD.encode(get(rest)?));
    Some([part()?, part()?, part()?].join("."))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn link(relay: &str, entry: Entry) -> Link {
        Link::new(relay.parse().unwrap(), PeerId([7; 32]), entry)
    }

    fn invitation() -> Entry {
        // Three parts of base64url; what they mean is the relay's to judge.
        let ticket = "eyJhbGciOiJFZERTQSJ9.eyJhdWQiOiJ4In0.c2lnbmF0dXJl".to_owned();
        let invitation = "eyJ0eXAiOiJ5In0.eyJhdWQiOiJ6In0.c2ln".to_owned();
        Entry::Invitation(Invitation { ticket, invitation, seed: Zeroizing::new([9; 32]) })
    }

    #[test]
    fn a_link_reads_back_whatever_it_carries() {
        for relay in ["wss://relay.example", "ws://127.0.0.1:8080", "wss://[::1]:8443"] {
            let token = Entry::AccessToken(AccessToken::new("hunter2"));
            for entry in [Entry::Open, token, invitation()] {
                let link = link(relay, entry);
                let text = link.reveal().unwrap();
                assert_eq!(text.parse::<Link>().unwrap(), link);
            }
        }
        let text = link("wss://relay.example.com", Entry::Open).reveal().unwrap();
        assert!(text.len() < 110, "{} characters is not short", text.len());
    }

    #[test]
    fn a_link_survives_mail() {
        let link = link("wss://relay.example", Entry::Open);
        let text = link.reveal().unwrap();
        let (front, back) = text.split_at(40);
        assert_eq!(format!(" <{front}\r\n {back}>\n").parse::<Link>().unwrap(), link);
        assert_eq!(text.replacen("culvert", "CULVERT", 1).parse::<Link>().unwrap(), link);
    }

    #[test]
    fn what_is_not_a_link_is_told_what_it_is() {
        assert_eq!("hello".parse::<Link>(), Err(LinkError::NotALink));
        assert_eq!("".parse::<Link>(), Err(LinkError::NotALink));
        assert_eq!("eyJhbGciOi.x.y".parse::<Link>(), Err(LinkError::Ticket));
        assert_eq!("wss://relay.example".parse::<Link>(), Err(LinkError::RelayUrl));
        assert_eq!("culvert:".parse::<Link>(), Err(LinkError::Damaged));
        let newer = BASE64URL_NOPAD.encode(&[2; 80]);
        assert_eq!(format!("culvert:{newer}").parse::<Link>(), Err(LinkError::Version(2)));
    }

    #[test]
    fn a_letter_that_changed_or_is_missing_is_noticed() {
        let text = link("wss://relay.example", Entry::Open).reveal().unwrap();
        assert_eq!(text[..text.len() - 1].parse::<Link>(), Err(LinkError::Damaged));
        for at in SCHEME.len() + 2..text.len() {
            let mut changed = text.as_bytes().to_vec();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(changed.parse::<Link>(), Err(LinkError::Damaged), "letter {at}");
        }
    }

    #[test]
    fn two_links_share_no_topic_and_debug_shows_no_secret() {
        let token = Entry::AccessToken(AccessToken::new("hunter2"));
        let (one, two) = (link("wss://a", token), link("wss://a", invitation()));
        assert_ne!(one.topic_secret().topic(), two.topic_secret().topic());
        let shown = format!("{one:?}{two:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("eyJ") && shown.contains("***"), "{shown}");
        assert_eq!(two.identity().unwrap().peer_id(), Identity::from_seed(&[9; 32]).peer_id());
        assert!(one.identity().is_none());
    }

    #[test]
    fn only_tokens_go_where_tokens_belong() {
        let Entry::Invitation(mut inner) = invitation() else { unreachable!() };
        inner.ticket = "not a token".to_owned();
        let error = link("wss://a", Entry::Invitation(inner.clone())).reveal().unwrap_err();
        assert_eq!(error, LinkError::NotAToken("ticket"));
        inner.ticket = "a".repeat(MAX_TICKET + 1);
        let error = link("wss://a", Entry::Invitation(inner)).reveal().unwrap_err();
        assert_eq!(error, LinkError::TooLong("ticket"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in ".{0,60}") {
            let sum = checksum(&bytes);
            let whole = [&bytes[..], &sum].concat();
            let _ = format!("culvert:{}", BASE64URL_NOPAD.encode(&whole)).parse::<Link>();
            let _ = text.parse::<Link>();
            let versioned = [&[VERSION], &bytes[..]].concat();
            let whole = [&versioned[..], &checksum(&versioned)].concat();
            let _ = format!("culvert:{}", BASE64URL_NOPAD.encode(&whole)).parse::<Link>();
        }
    }
}

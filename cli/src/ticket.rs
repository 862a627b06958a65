//! `culvert ticket`: keys, admission tickets, and what a ticket says.

use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use culvert_client::{Identity, SystemRng};
use culvert_wire::limits::MAX_TICKET;
use culvert_wire::ticket::{AUDIENCE, TICKET_TYPE, TicketClaims, TicketLimits, Topics};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::Serialize;

use crate::cli::{IssueArgs, TicketCommand};
use crate::failure::Code;
use crate::{folders, keys};

mod revoke;

pub(crate) fn run(command: TicketCommand) -> Result<()> {
    match command {
        TicketCommand::Keygen { path } => keygen(&path),
        TicketCommand::Issue(args) => issue(args),
        TicketCommand::Show { ticket, key } => show(&ticket, key.as_deref()),
        TicketCommand::Revoke(args) => crate::on_runtime(async |_| revoke::run(*args).await),
    }
}

/// The topics of a ticket, as typed.
#[derive(Debug, Clone)]
pub(crate) struct TopicList(Topics);

impl FromStr for TopicList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self(Topics::All));
        }
        let list: Result<_, _> = text.split(',').map(|id| id.trim().parse()).collect();
        list.map(|list| Self(Topics::Only(list))).map_err(|error| format!("{error}; or `*` for all topics"))
    }
}

/// A length of time, as typed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Duration(u64);

impl Duration {
    pub(crate) fn seconds(self) -> u64 {
        self.0
    }
}

impl FromStr for Duration {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "write a number and s, m, h or d, such as 8h";
        let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or(wrong)?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return Err(wrong),
        };
        let number: u64 = number.parse().map_err(|_| wrong)?;
        number.checked_mul(seconds).filter(|s| (1..=10 * 365 * 86_400).contains(s)).map(Self).ok_or(wrong)
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Signs claims as a JSON Web Token of a type.
pub(crate) fn sign(
    identity: &Identity,
    kind: &str,
    kid: Option<String>,
    claims: &impl Serialize,
) -> Result<String> {
    let header = Header { typ: Some(kind.to_owned()), kid, ..Header::new(Algorithm::EdDSA) };
    let key = EncodingKey::from_ed_der(&keys::private_der(identity));
    Ok(jsonwebtoken::encode(&header, claims, &key)?)
}

/// What a ticket claims, without asking whether it is true: for its holder, who did not make it.
pub(crate) fn claims(ticket: &str) -> Result<TicketClaims> {
    let mut parts = ticket.split('.');
    let (Some(header), Some(claims), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        anyhow::bail!(
            "this is not a ticket: a ticket is a JSON Web Token, three parts with dots between them"
        );
    };
    #[derive(serde::Deserialize)]
    struct Kind {
        typ: String,
    }
    let decode =
        |part: &str| BASE64URL_NOPAD.decode(part.as_bytes()).context("the ticket is damaged: copy it again");
    let kind: Kind =
        serde_json::from_slice(&decode(header)?).context("the ticket's header cannot be read")?;
    anyhow::ensure!(
        kind.typ == TICKET_TYPE,
        "this token is of the type {:?}, not an admission ticket",
        kind.typ
    );
    serde_json::from_slice(&decode(claims)?).context("the ticket's claims cannot be read")
}

fn keygen(path: &Path) -> Result<()> {
    let with_ending = |ending: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    let (private, public) = (with_ending(".key"), with_ending(".pub"));
    let identity = Identity::generate(&mut SystemRng);
    let write = |path: &Path, content: &[u8]| {
        folders::write_private(path, content).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                anyhow::anyhow!(
                    "{} exists: move it away first, tickets signed by it would stop to verify",
                    path.display()
                )
            }
            _ => anyhow::Error::new(error).context(format!("cannot write {}", path.display())),
        })
    };
    write(&private, keys::private_pem(&identity).as_bytes())?;
    write(&public, keys::public_pem(&identity.peer_id()).as_bytes())?;
    writeln!(io::stdout(), "{}\n{}", private.display(), public.display())?;
    writeln!(
        io::stderr(),
        "Keep {} secret; give {} to the relays: culvert relay --ticket-keys {}",
        private.display(),
        public.display(),
        public.display()
    )?;
    Ok(())
}

fn issue(args: IssueArgs) -> Result<()> {
    folders::check_private(&args.key)?;
    let identity = keys::read_private(&args.key)?;
    let mut id = [0; 16];
    rand::fill(&mut id);
    let iat = now();
    let claims = TicketClaims {
        aud: AUDIENCE.to_owned(),
        sub: args.peer,
        tenant: args.tenant,
        topics: args.topics.0,
        limits: TicketLimits {
            frames_per_second: args.frames_per_second,
            bytes_per_second: args.bytes_per_second,
            topics: args.topics_per_connection,
            connections: args.connections,
            highest_class: None,
        },
        invites: args.invites,
        iat,
        exp: iat + args.expires.0,
        jti: HEXLOWER.encode(&id),
    };
    let ticket = sign(&identity, TICKET_TYPE, None, &claims)?;
    anyhow::ensure!(
        ticket.len() <= MAX_TICKET,
        "the ticket has {} bytes and may have {MAX_TICKET}: name fewer topics, or `*`",
        ticket.len()
    );
    writeln!(io::stdout(), "{ticket}")?;
    Ok(())
}

fn show(path: &Path, key: Option<&Path>) -> Result<()> {
    let text = if path == Path::new("-") { from_stdin()? } else { crate::network::read_ticket(path)? };
    let ticket = text.trim();
    let claims = claims(ticket)?;
    let mut out = io::stdout();
    writeln!(out, "{}", serde_json::to_string_pretty(&claims)?)?;
    let left = claims.exp.saturating_sub(now());
    match left {
        0 => writeln!(io::stderr(), "It has expired.")?,
        left => writeln!(io::stderr(), "It is valid for {} more.", Span(left))?,
    }
    let Some(key) = key else {
        writeln!(io::stderr(), "Its signature was not checked; give the public key with --key.")?;
        return Ok(());
    };
    let public = keys::public_pem(&keys::read_public(key)?);
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_audience(&[AUDIENCE]);
    validation.leeway = 0;
    let decoded = DecodingKey::from_ed_pem(public.as_bytes())
        .and_then(|key| jsonwebtoken::decode::<TicketClaims>(ticket, &key, &validation));
    match decoded {
        Ok(_) => {
            writeln!(io::stderr(), "The signature verifies.")?;
            Ok(())
        }
        Err(error) => {
            Err(Code::Refused.because(format!("the ticket does not verify with {}: {error}", key.display())))
        }
    }
}

/// What is on standard input, as far as a ticket can be long.
fn from_stdin() -> Result<String> {
    let mut text = String::new();
    io::stdin().take(MAX_TICKET as u64 + 64).read_to_string(&mut text)?;
    Ok(text)
}

/// Seconds, for people.
pub(crate) struct Span(pub(crate) u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, hours, minutes) = (self.0 / 86_400, self.0 / 3600 % 24, self.0 / 60 % 60);
        match (days, hours, minutes) {
            (0, 0, 0) => write!(f, "{} s", self.0),
            (0, 0, m) => write!(f, "{m} min"),
            (0, h, m) => write!(f, "{h} h {m} min"),
            (d, h, _) => write!(f, "{d} d {h} h"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_topics_are_read_or_refused() {
        assert_eq!("8h".parse::<Duration>().unwrap().0, 8 * 3600);
        for bad in ["", "8", "h", "0s", "-1h", "1y", "99999999999999999999d", "10000d"] {
            assert!(bad.parse::<Duration>().is_err(), "{bad}");
        }
        assert!(matches!("*".parse(), Ok(TopicList(Topics::All))));
        let two = format!("{}, {}", "ab".repeat(32), "cd".repeat(32));
        assert!(matches!(two.parse(), Ok(TopicList(Topics::Only(list))) if list.len() == 2));
        assert!("abc".parse::<TopicList>().unwrap_err().contains("64 hexadecimal digits"));
    }

    #[test]
    fn a_ticket_says_what_was_signed_and_other_tokens_are_refused() {
        let identity = Identity::from_seed(&[1; 32]);
        let claims_in = TicketClaims {
            aud: AUDIENCE.into(),
            sub: identity.peer_id(),
            tenant: "t".into(),
            topics: Topics::All,
            limits: TicketLimits::default(),
            invites: 1,
            iat: 1,
            exp: 2,
            jti: "j".into(),
        };
        let ticket = sign(&identity, TICKET_TYPE, None, &claims_in).unwrap();
        assert_eq!(claims(&ticket).unwrap(), claims_in);
        let other = sign(&identity, "JWT", None, &claims_in).unwrap();
        assert!(claims(&other).unwrap_err().to_string().contains("not an admission ticket"));
        assert!(claims("a.b").is_err() && claims("a.b.c.d").is_err() && claims("?.?.?").is_err());
    }
}

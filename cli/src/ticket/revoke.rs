//! `culvert ticket revoke`: every node refuses a ticket or a peer from now on.

use std::io::{self, Write};

use anyhow::Result;
use culvert_relay::admission::Revoked;

use super::{Span, claims, from_stdin, now};
use crate::cli::{RevokeArgs, RevokedArgs};
use crate::cluster::control;
use crate::failure::Code;

/// As long as relays let a ticket live unless they are told (`ticket-longest-life`).
const DEFAULT_LIFE: u64 = 24 * 3600;

pub(crate) async fn run(args: RevokeArgs) -> Result<()> {
    let (revoked, ends) = what(&args.what)?;
    let until = match (args.lasting, ends) {
        (Some(lasting), _) => now() + lasting.seconds(),
        (None, Some(ends)) if ends <= now() => {
            return Err(Code::Failed.because("the ticket has expired, it admits nobody any more"));
        }
        (None, Some(ends)) => ends,
        (None, None) => now() + DEFAULT_LIFE,
    };
    control(&args.redis)?.revoke(revoked.clone(), until).await?;
    let what = match revoked {
        Revoked::Ticket(id) => format!("the ticket {id}"),
        Revoked::Peer(peer) => format!("the peer {peer}"),
    };
    writeln!(io::stderr(), "Revoked {what} for {}.", Span(until.saturating_sub(now())))?;
    Ok(())
}

/// What is revoked, and when it would have ended by itself if that is known.
fn what(args: &RevokedArgs) -> Result<(Revoked, Option<u64>)> {
    match (&args.ticket, args.peer) {
        (Some(ticket), _) => {
            let text = if ticket == "-" { from_stdin()? } else { ticket.clone() };
            let text = text.trim();
            // An id of an issuer's own may hold anything, but hardly the two dots of a token.
            if ticket == "-" || text.matches('.').count() == 2 {
                let claims = claims(text).map_err(|error| Code::Usage.with(error))?;
                return Ok((Revoked::Ticket(claims.jti), Some(claims.exp)));
            }
            Ok((Revoked::Ticket(text.to_owned()), None))
        }
        (None, Some(peer)) => Ok((Revoked::Peer(peer), None)),
        (None, None) => Err(Code::Usage.because("say what to revoke: --ticket or --peer")),
    }
}

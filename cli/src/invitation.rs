//! Why the receiver of a link gets in where the relay asks for a reason.

use anyhow::{Result, ensure};
use culvert_client::dial::RelayUrl;
use culvert_client::link::{Entry, Invitation, Link};
use culvert_client::{Identity, SystemRng};
use culvert_wire::TopicId;
use culvert_wire::ticket::{AUDIENCE, INVITATION_TYPE, InvitationClaims, TicketLimits, Topics};
use zeroize::Zeroizing;

use crate::cli::NetworkArgs;
use crate::failure::Code;
use crate::ticket;

/// A fresh link to this sender, and what the person should know about it.
pub(crate) fn link(
    relay: RelayUrl,
    sender: &Identity,
    network: &NetworkArgs,
) -> Result<(Link, Option<&'static str>)> {
    if let Some(token) = network.access_token()? {
        let link = Link::new(relay, sender.peer_id(), Entry::AccessToken(token));
        return Ok((
            link,
            Some("The link carries the relay's access token: whoever has it can use the relay for anything."),
        ));
    }
    let Some(ticket) = network.ticket()? else {
        return Ok((Link::new(relay, sender.peer_id(), Entry::Open), None));
    };
    let claims = ticket::claims(&ticket)?;
    let me = sender.peer_id();
    ensure!(
        claims.sub == me,
        Code::Refused.because(format!(
            "the ticket is for the peer {}, and this one is {me}: ask for one for this peer",
            claims.sub
        ))
    );
    ensure!(claims.exp > ticket::now(), Code::Refused.because("the ticket has expired: ask for a new one"));
    ensure!(
        claims.topics == Topics::All,
        Code::Refused.because("the ticket opens certain topics only, and every link has a topic of its own: ask for a ticket for all topics (*)")
    );
    if claims.invites == 0 {
        let link = Link::new(relay, me, Entry::Open);
        return Ok((
            link,
            Some("The ticket allows no invitations: the receiver needs a ticket too (receive --ticket)."),
        ));
    }
    let guest = Identity::generate(&mut SystemRng);
    let seed = Zeroizing::new(*guest.seed());
    let mut link = Link::new(relay, me, Entry::Open);
    let invitation = InvitationClaims {
        aud: AUDIENCE.to_owned(),
        iss: me,
        sub: guest.peer_id(),
        topic: TopicId(link.topic_secret().topic()),
        limits: TicketLimits::default(),
        iat: ticket::now(),
        exp: claims.exp,
    };
    let invitation = ticket::sign(sender, INVITATION_TYPE, None, &invitation)?;
    link.entry = Entry::Invitation(Invitation { ticket, invitation, seed });
    Ok((
        link,
        Some(
            "The link carries an invitation: it opens the relay for this transfer only, until the ticket expires.",
        ),
    ))
}

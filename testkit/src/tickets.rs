//! Admission tickets and invitations, issued by hand so that bad ones can be issued as well.
//!
//! The JSON Web Token is put together here, byte by byte, and not by the library that the relay
//! verifies with: what both read in the same way is what the standard says.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use culvert_wire::ticket::{AUDIENCE, INVITATION_TYPE, InvitationClaims, TICKET_TYPE, TicketClaims};
use culvert_wire::ticket::{TicketLimits, Topics};
use culvert_wire::{PeerId, TopicId};
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use crate::identity::Identity;

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Claims that admit `peer` for an hour to `topics`, under the tenant `default`.
pub fn claims(peer: PeerId, topics: Topics) -> TicketClaims {
    TicketClaims {
        aud: AUDIENCE.into(),
        sub: peer,
        tenant: "default".into(),
        topics,
        limits: TicketLimits::default(),
        invites: 0,
        iat: now(),
        exp: now() + 3600,
        jti: format!("test-{}", peer.short()),
    }
}

/// The ticket with these claims, signed by `issuer`, under the given key id.
///
/// # Errors
/// The claims are no JSON, which they always are.
pub fn ticket(issuer: &Identity, kid: Option<&str>, claims: &TicketClaims) -> Result<String> {
    Ok(token(issuer, &header(TICKET_TYPE, kid), &serde_json::to_value(claims)?))
}

/// An invitation by the ticket's holder for `guest` to one topic, for an hour.
///
/// # Errors
/// As for [`ticket`].
pub fn invitation(holder: &Identity, guest: PeerId, topic: TopicId) -> Result<String> {
    let claims = InvitationClaims {
        aud: AUDIENCE.into(),
        iss: holder.peer(),
        sub: guest,
        topic,
        limits: TicketLimits::default(),
        iat: now(),
        exp: now() + 3600,
    };
    invitation_with(holder, &claims)
}

/// The invitation with these claims.
///
/// # Errors
/// As for [`ticket`].
pub fn invitation_with(holder: &Identity, claims: &InvitationClaims) -> Result<String> {
    Ok(token(holder, &header(INVITATION_TYPE, None), &serde_json::to_value(claims)?))
}

/// The header of a token of this type.
pub fn header(token_type: &str, kid: Option<&str>) -> Value {
    let mut header = json!({ "alg": "EdDSA", "typ": token_type });
    if let Some(kid) = kid {
        header["kid"] = kid.into();
    }
    header
}

/// Any header over any claims, signed with Ed25519 whatever the header says.
pub fn token(signer: &Identity, header: &Value, claims: &Value) -> String {
    let signed = format!("{}.{}", encode(header), encode(claims));
    let signature = BASE64URL_NOPAD.encode(&signer.sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

/// A token that says `alg: none` and carries no signature (RFC 7519 section 6).
pub fn unsigned_token(token_type: &str, claims: &Value) -> String {
    format!("{}.{}.", encode(&json!({ "alg": "none", "typ": token_type })), encode(claims))
}

/// The same token with one bit of its claims changed.
pub fn tampered(token: &str) -> String {
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    if let Some(part) = parts.get_mut(1)
        && let Ok(mut bytes) = BASE64URL_NOPAD.decode(part.as_bytes())
        && let Some(digit) = bytes.iter_mut().rev().find(|byte| byte.is_ascii_digit())
    {
        *digit ^= 1;
        *part = BASE64URL_NOPAD.encode(&bytes);
    }
    parts.join(".")
}

fn encode(value: &Value) -> String {
    BASE64URL_NOPAD.encode(value.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    #[test]
    fn a_ticket_carries_its_claims_and_a_signature_over_both_parts() {
        let (issuer, peer) = (Identity::from_seed([1; 32]).unwrap(), PeerId([2; 32]));
        let claims = claims(peer, Topics::All);
        let ticket = ticket(&issuer, Some("k1"), &claims).unwrap();
        let (signed, signature) = ticket.rsplit_once('.').unwrap();
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
        let key = UnparsedPublicKey::new(&ED25519, issuer.peer().0);
        assert!(key.verify(signed.as_bytes(), &signature).is_ok());
        let body = BASE64URL_NOPAD.decode(signed.split('.').nth(1).unwrap().as_bytes()).unwrap();
        assert_eq!(serde_json::from_slice::<TicketClaims>(&body).unwrap(), claims);
    }

    #[test]
    fn a_tampered_ticket_differs_in_its_claims_only_and_still_reads_as_json() {
        let issuer = Identity::from_seed([1; 32]).unwrap();
        let good = ticket(&issuer, None, &claims(PeerId([2; 32]), Topics::All)).unwrap();
        let bad = tampered(&good);
        let (good, bad): (Vec<&str>, Vec<&str>) = (good.split('.').collect(), bad.split('.').collect());
        assert_eq!((good[0], good[2]), (bad[0], bad[2]));
        assert_ne!(good[1], bad[1]);
        let body = BASE64URL_NOPAD.decode(bad[1].as_bytes()).unwrap();
        assert!(serde_json::from_slice::<TicketClaims>(&body).is_ok());
    }
}

//! What admission tickets and invitations claim.
//!
//! Both are JSON Web Tokens (RFC 7519) signed with Ed25519 (`alg: EdDSA`, RFC 8037), because operators
//! can issue them from what they already run. Algorithm, `typ` and `aud` are pinned. This module has
//! the shapes only; signing and verifying happen where the keys are.

use serde::{Deserialize, Serialize};

use crate::frame::Class;
use crate::id::{PeerId, TopicId};

/// `typ` in the header of an admission ticket.
pub const TICKET_TYPE: &str = "culvert-ticket+jwt";
/// `typ` in the header of an invitation.
pub const INVITATION_TYPE: &str = "culvert-invitation+jwt";
/// `aud` of both.
pub const AUDIENCE: &str = "culvert-relay";

/// Claims of an admission ticket: who may come in, under which tenant, to which topics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketClaims {
    /// Always [`AUDIENCE`].
    pub aud: String,
    /// The peer the ticket is bound to.
    pub sub: PeerId,
    /// The tenant whose limits it shares.
    pub tenant: String,
    /// The topics it opens.
    pub topics: Topics,
    /// Limits narrower than the relay's own; absent ones are the relay's.
    #[serde(default, skip_serializing_if = "TicketLimits::is_empty")]
    pub limits: TicketLimits,
    /// How many guests may be connected to one node at once on invitations under this ticket.
    #[serde(default)]
    pub invites: u32,
    /// When it was issued, seconds since 1970.
    pub iat: u64,
    /// When it stops to admit, seconds since 1970.
    pub exp: u64,
    /// Its own id, by which it can be revoked.
    pub jti: String,
}

/// Claims of an invitation: the holder of a ticket lets one guest key into one topic.
///
/// It is signed by the ticket's holder (the key in the ticket's `sub`) and travels with the ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvitationClaims {
    /// Always [`AUDIENCE`].
    pub aud: String,
    /// The inviting peer: the `sub` of the ticket that comes with it.
    pub iss: PeerId,
    /// The guest's key; its seed travels in the link.
    pub sub: PeerId,
    /// The only topic the guest may join.
    pub topic: TopicId,
    /// Limits narrower than the ticket's.
    #[serde(default, skip_serializing_if = "TicketLimits::is_empty")]
    pub limits: TicketLimits,
    /// When it was issued, seconds since 1970.
    pub iat: u64,
    /// When it stops to admit, seconds since 1970; the ticket's own expiry holds as well.
    pub exp: u64,
}

/// The topics that a ticket opens: `"*"`, or a list of topic ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "TopicsForm", into = "TopicsForm")]
pub enum Topics {
    /// Every topic.
    All,
    /// These and no others.
    Only(Vec<TopicId>),
}

impl Topics {
    /// Whether the topic is one of them.
    pub fn contains(&self, topic: &TopicId) -> bool {
        match self {
            Topics::All => true,
            Topics::Only(list) => list.contains(topic),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum TopicsForm {
    Star(String),
    List(Vec<TopicId>),
}

impl TryFrom<TopicsForm> for Topics {
    type Error = &'static str;

    fn try_from(form: TopicsForm) -> Result<Self, Self::Error> {
        match form {
            TopicsForm::Star(star) if star == "*" => Ok(Topics::All),
            TopicsForm::Star(_) => Err("topics must be \"*\" or a list of topic ids"),
            TopicsForm::List(list) => Ok(Topics::Only(list)),
        }
    }
}

impl From<Topics> for TopicsForm {
    fn from(topics: Topics) -> Self {
        match topics {
            Topics::All => TopicsForm::Star("*".to_owned()),
            Topics::Only(list) => TopicsForm::List(list),
        }
    }
}

/// Limits that a ticket or an invitation may narrow.
///
/// Unknown names are refused: a limit that a relay does not understand must not become no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TicketLimits {
    /// Frames a second that one connection may send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frames_per_second: Option<u32>,
    /// Payload bytes a second that one connection may send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// Topics that one connection may be in at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topics: Option<u16>,
    /// Connections that the peer may have on one node at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// The most urgent class it may send in; absent means all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub highest_class: Option<Class>,
}

impl TicketLimits {
    /// Whether nothing is narrowed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The narrower of both in every field.
    pub fn narrowed_by(&self, other: &Self) -> Self {
        fn least<T: Ord + Copy>(a: Option<T>, b: Option<T>) -> Option<T> {
            a.into_iter().chain(b).min()
        }
        Self {
            frames_per_second: least(self.frames_per_second, other.frames_per_second),
            bytes_per_second: least(self.bytes_per_second, other.bytes_per_second),
            topics: least(self.topics, other.topics),
            connections: least(self.connections, other.connections),
            // Classes are ordered from the most urgent down, so the narrower one is the greater.
            highest_class: self.highest_class.into_iter().chain(other.highest_class).max(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_read_back_and_a_star_is_a_star() {
        let claims = TicketClaims {
            aud: AUDIENCE.into(),
            sub: PeerId([1; 32]),
            tenant: "default".into(),
            topics: Topics::All,
            limits: TicketLimits { frames_per_second: Some(10), ..Default::default() },
            invites: 2,
            iat: 1,
            exp: 2,
            jti: "a".into(),
        };
        let json = serde_json::to_string(&claims).unwrap();
        assert!(json.contains(r#""topics":"*""#), "{json}");
        assert_eq!(serde_json::from_str::<TicketClaims>(&json).unwrap(), claims);
        let some = Topics::Only(vec![TopicId([2; 32])]);
        let json = serde_json::to_string(&some).unwrap();
        assert_eq!(serde_json::from_str::<Topics>(&json).unwrap(), some);
        assert!(serde_json::from_str::<Topics>(r#""all""#).is_err());
    }

    #[test]
    fn an_unknown_limit_is_refused() {
        assert!(serde_json::from_str::<TicketLimits>(r#"{"frames_per_minute":1}"#).is_err());
    }

    #[test]
    fn the_narrower_limit_wins() {
        let ticket = TicketLimits { topics: Some(4), connections: Some(9), ..Default::default() };
        let invitation =
            TicketLimits { topics: Some(1), highest_class: Some(Class::Bulk), ..Default::default() };
        let both = ticket.narrowed_by(&invitation);
        assert_eq!((both.topics, both.connections), (Some(1), Some(9)));
        assert_eq!(both.highest_class, Some(Class::Bulk));
    }
}

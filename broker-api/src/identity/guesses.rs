//! Guesses at passwords are limited: for each source, for each user, and in all.
//!
//! A guess is charged before anything is computed, so that a thousand at once are not a thousand for free,
//! and given back when it turns out to be no guess. All three buckets are charged or none: whoever has used
//! up their own source's bucket takes nothing from the others, so one source can neither lock a user out
//! nor use up what there is in all.
//!
//! Only passwords can be guessed. Sessions, device keys and API secrets have 256 random bits and keep working
//! while somebody floods the broker with passwords. A wrong one costs a look into the database all the same,
//! so one source may present as many as it may make requests.

use std::net::{IpAddr, Ipv6Addr};

use aws_lc_rs::digest::{SHA256, digest};
use culvert_broker_wire::ErrorCode;
use data_encoding::HEXLOWER;

use crate::core::{Core, Refusal, Visitor};
use crate::live::{Rate, Taken};

/// A guess at a password, or something that may turn out to be one.
pub(super) struct Guess {
    buckets: Vec<(String, Rate)>,
}

impl Guess {
    /// At this user's password, or at the institution's if no user is named.
    pub(super) fn new(core: &Core, visitor: Visitor, user: Option<&str>) -> Self {
        let limits = &core.config.limits;
        let mut buckets = vec![
            (format!("guess:source:{}", network(visitor.source)), limits.guesses_per_source),
            ("guess:all".to_owned(), limits.guesses),
        ];
        if let Some(user) = user {
            let name = HEXLOWER.encode(&digest(&SHA256, user.as_bytes()).as_ref()[..16]);
            buckets.push((format!("guess:user:{name}"), limits.guesses_per_user));
        }
        Self { buckets }
    }

    /// With something that is too long to be guessed.
    pub(super) fn with_proof(core: &Core, visitor: Visitor) -> Self {
        let name = format!("proof:source:{}", network(visitor.source));
        Self { buckets: vec![(name, core.config.limits.requests)] }
    }

    /// Charges for it, before anything is computed.
    pub(super) async fn charge(&self, core: &Core) -> Result<(), Refusal> {
        match core.live.charge(&self.buckets, 1).await? {
            Taken::Allowed => Ok(()),
            Taken::Wait(wait) => {
                core.metrics.guesses_refused.increment(1);
                let text = "too many wrong passwords or proofs; wait as long as the answer says";
                Err(Refusal::new(ErrorCode::RateLimited, text).after(wait))
            }
        }
    }

    /// It was charged and was no guess.
    pub(super) async fn give_back(&self, core: &Core) {
        if let Err(error) = core.live.refund(&self.buckets, 1).await {
            tracing::warn!(%error, "a login that was right counts as a guess");
        }
    }
}

/// What counts as one source: an IPv4 address, or the /64 of an IPv6 address, which is what one customer
/// of a provider gets at least.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::from(u64::MAX) << 64)))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_an_ipv4_address_or_an_ipv6_network_of_64_bits() {
        let of = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2:ffff::1"));
        assert_ne!(of("2001:db8:1:2::"), of("2001:db8:1:3::"));
    }
}

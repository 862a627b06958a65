//! What every request to `/api` passes: rate limit, then identity.
//!
//! A request without proof is counted by its source address before anything else happens. One with proof is
//! counted by its user, before the proof is checked if that proof was seen before, so that a user who
//! floods costs no database either; failed proofs are counted by [`crate::identity`].

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use culvert_broker_wire::auth::API_KEY_HEADER;
use quick_cache::sync::Cache;

use super::extract::{Presented, visitor, whole};
use super::limit::Limiter;
use super::problem::Problem;
use crate::core::{Caller, Core, Visitor};
use crate::identity;

/// Proofs whose users are remembered, to know which bucket to ask before they are checked.
const REMEMBERED: usize = 65_536;

/// What requests pass.
pub(super) struct Gate {
    core: Arc<Core>,
    limiter: Limiter,
    hasher: RandomState,
    /// The bucket of whoever presented a proof with this hash.
    seen: Cache<u64, Arc<str>>,
}

impl Gate {
    pub(super) fn new(core: Arc<Core>) -> Self {
        let limiter = Limiter::new(core.live.clone(), core.clock.clone(), core.config.limits.requests);
        Self { core, limiter, hasher: RandomState::new(), seen: Cache::new(REMEMBERED) }
    }

    /// Counts a request and says whose it is.
    async fn pass(&self, request: Request) -> Result<Request, Problem> {
        let (mut parts, body) = request.into_parts();
        let visitor = visitor(&parts)?;
        let Some(proof) = self.proof(&parts.headers) else {
            self.limiter.charge(&source_bucket(visitor)).await?;
            parts.extensions.insert(Presented(None));
            return Ok(Request::from_parts(parts, body));
        };
        let charged = self.seen.get(&proof);
        if let Some(bucket) = &charged {
            self.limiter.charge(bucket).await?;
        }
        let (body, caller) = self.identify(visitor, &parts.headers, body).await?;
        if let Some(caller) = &caller {
            let bucket = user_bucket(caller);
            if charged.is_none_or(|charged| *charged != *bucket) {
                self.limiter.charge(&bucket).await?;
                self.seen.insert(proof, bucket.into());
            }
        } else {
            self.limiter.charge(&source_bucket(visitor)).await?;
        }
        parts.extensions.insert(Presented(caller));
        Ok(Request::from_parts(parts, body))
    }

    /// Signatures of keyed requests cover the body, which is read for them; others are not touched.
    async fn identify(
        &self,
        visitor: Visitor,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<(Body, Option<Caller>), Problem> {
        if !headers.contains_key(API_KEY_HEADER) {
            let caller = identity::from_headers(&self.core, visitor, headers, &[]).await?;
            return Ok((body, caller));
        }
        let body = Body::new(http_body_util::Limited::new(body, self.core.config.limits.body_bytes));
        let bytes = whole(Request::new(body), &()).await?;
        let caller = identity::from_headers(&self.core, visitor, headers, &bytes).await?;
        Ok((Body::from(bytes), caller))
    }

    /// A hash of what proves who is there; keyed, so that nobody can aim at another's.
    fn proof(&self, headers: &HeaderMap) -> Option<u64> {
        let proof = headers.get(API_KEY_HEADER).or_else(|| headers.get(AUTHORIZATION))?;
        Some(self.hasher.hash_one(proof.as_bytes()))
    }
}

pub(super) async fn pass(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    match gate.pass(request).await {
        Ok(request) => next.run(request).await,
        Err(problem) => {
            let response = problem.into_response();
            if response.status() == StatusCode::TOO_MANY_REQUESTS {
                gate.core.metrics.rate_limited.increment(1);
            }
            response
        }
    }
}

fn user_bucket(caller: &Caller) -> String {
    format!("requests:user:{}", caller.user)
}

/// An IPv4 address, or the /64 of an IPv6 address, which is what one household has.
fn source_bucket(visitor: Visitor) -> String {
    let source = match visitor.source.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    };
    format!("requests:source:{source}")
}

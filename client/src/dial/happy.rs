//! Many addresses, one connection: happy eyeballs (RFC 8305).
//!
//! Addresses of the two families alternate, the next attempt starts 250 ms after the one before or as
//! soon as one fails, and the first connection wins. So a broken IPv6 costs a quarter of a second, not
//! a time-out.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

/// Time between two attempts: the recommendation of RFC 8305, section 5.
const STAGGER: Duration = Duration::from_millis(250);

/// The first of `addresses` that `connect` succeeds with.
///
/// # Errors
/// The last failure, when all have failed; `AddrNotAvailable` without any address.
pub(crate) async fn first_of<T, F>(
    addresses: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let mut waiting = alternating(addresses);
    let mut trying = FuturesUnordered::new();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        trying.extend(waiting.pop_front().map(&connect));
        if trying.is_empty() {
            return Err(last);
        }
        let next_attempt = tokio::time::sleep(STAGGER);
        tokio::select! {
            Some(result) = trying.next() => match result {
                Ok(connected) => return Ok(connected),
                Err(error) => last = error,
            },
            () = next_attempt, if !waiting.is_empty() => {}
        }
    }
}

/// Takes turns between the families, beginning with the one that the system put first.
fn alternating(addresses: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let Some(first) = addresses.first() else { return VecDeque::new() };
    let first_is_v6 = first.is_ipv6();
    let (mut one, mut two): (VecDeque<_>, VecDeque<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let mut out = VecDeque::with_capacity(one.len() + two.len());
    while !one.is_empty() || !two.is_empty() {
        out.extend(one.pop_front());
        out.extend(two.pop_front());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use tokio::time::Instant;

    fn v4(n: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, n], 443))
    }

    fn v6(n: u16) -> SocketAddr {
        SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, n], 443))
    }

    #[test]
    fn the_families_take_turns() {
        assert_eq!(alternating(vec![v6(1), v6(2), v6(3), v4(1)]), [v6(1), v4(1), v6(2), v6(3)]);
        assert_eq!(alternating(vec![v4(1), v6(1), v4(2)]), [v4(1), v6(1), v4(2)]);
        assert!(alternating(Vec::new()).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_family_that_never_answers_costs_250_ms() {
        let start = Instant::now();
        let winner = first_of(vec![v6(1), v6(2), v4(1)], |address| async move {
            if address.is_ipv6() { std::future::pending().await } else { Ok(address) }
        });
        assert_eq!(winner.await.unwrap(), v4(1));
        assert_eq!(start.elapsed(), STAGGER);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_starts_the_next_attempt_at_once() {
        let start = Instant::now();
        let tried = Mutex::new(Vec::new());
        let winner = first_of(vec![v6(1), v4(1), v4(2)], |address| {
            tried.lock().unwrap().push(address);
            async move { if address == v4(2) { Ok(()) } else { Err(io::ErrorKind::ConnectionRefused.into()) } }
        });
        winner.await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(*tried.lock().unwrap(), [v6(1), v4(1), v4(2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_first_address_still_wins_if_it_is_the_first_to_connect() {
        let winner = first_of(vec![v6(1), v4(1)], |address| async move {
            let takes = if address.is_ipv6() { 400 } else { 1000 };
            tokio::time::sleep(Duration::from_millis(takes)).await;
            Ok(address)
        });
        assert_eq!(winner.await.unwrap(), v6(1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_failure_is_told_when_all_failed() {
        let refused =
            first_of::<(), _>(vec![v6(1), v4(1)], |_| async { Err(io::ErrorKind::ConnectionRefused.into()) });
        assert_eq!(refused.await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let none = first_of::<(), _>(Vec::new(), |_| async { unreachable!() }).await;
        assert_eq!(none.unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
    }
}

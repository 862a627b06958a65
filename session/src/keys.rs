//! Record keys and their succession.
//!
//! Each direction has a chain of secrets: epoch `e` seals with a key derived from secret `e`, and
//! secret `e + 1` is derived from secret `e`, which is then wiped; a key that leaks later opens nothing
//! from before. Packet numbers run on across epochs, so no nonce repeats under any key.

use std::time::Duration;

use zeroize::Zeroizing;

use crate::Rekey;
use crate::crypto::{Aead, Crypto, TAG_LEN};

/// How long packets of the previous epoch are still opened: far longer than any retransmission.
const PREVIOUS_LIFETIME: Duration = Duration::from_secs(30);

struct Epoch {
    number: u64,
    secret: Zeroizing<[u8; 32]>,
    key: Box<dyn Aead>,
}

impl Epoch {
    fn new(crypto: &dyn Crypto, number: u64, secret: Zeroizing<[u8; 32]>) -> Self {
        let key = Zeroizing::new(crypto.derive(&secret, b"culvert session v1 key"));
        Self { number, secret, key: crypto.aead(&key) }
    }

    fn next(&self, crypto: &dyn Crypto) -> Self {
        let secret = Zeroizing::new(crypto.derive(&self.secret, b"culvert session v1 next epoch"));
        Self::new(crypto, self.number + 1, secret)
    }

    /// The epoch's number in a packet header, which has one byte for it.
    fn byte(number: u64) -> u8 {
        number.to_le_bytes()[0]
    }
}

/// The key this end seals with.
pub(crate) struct SendKeys {
    crypto: &'static dyn Crypto,
    epoch: Epoch,
    since: Duration,
    packets: u64,
    bytes: u64,
    /// The first packet number of this epoch, once there is one.
    first: Option<u64>,
    /// Whether the peer was asked to acknowledge a packet of this epoch.
    asked: bool,
}

/// What became of an attempt to go to the next epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Renewal {
    NotDue,
    Done,
    /// The peer has acknowledged nothing of this epoch: it has to be asked to, this once.
    Ask,
    /// It was asked.
    Waiting,
}

impl SendKeys {
    pub(crate) fn new(crypto: &'static dyn Crypto, secret: Zeroizing<[u8; 32]>, now: Duration) -> Self {
        let epoch = Epoch::new(crypto, 0, secret);
        Self { crypto, epoch, since: now, packets: 0, bytes: 0, first: None, asked: false }
    }

    /// Goes to the next epoch if a limit is reached, once the peer has acknowledged a packet of this
    /// one: it follows one step at a time. An end that sends nothing but acknowledgements has to ask.
    pub(crate) fn renew(&mut self, limits: &Rekey, largest_acked: Option<u64>, now: Duration) -> Renewal {
        let due = self.packets >= limits.packets
            || self.bytes >= limits.bytes
            || now.saturating_sub(self.since) >= limits.age;
        if !due {
            return Renewal::NotDue;
        }
        let followed = self.first.is_some() && largest_acked >= self.first;
        if !followed {
            return if std::mem::replace(&mut self.asked, true) { Renewal::Waiting } else { Renewal::Ask };
        }
        self.epoch = self.epoch.next(self.crypto);
        (self.since, self.packets, self.bytes, self.first, self.asked) = (now, 0, 0, None, false);
        Renewal::Done
    }

    /// What goes into the header of the next packet.
    pub(crate) fn epoch(&self) -> u8 {
        Epoch::byte(self.epoch.number)
    }

    /// Seals a packet whose header is the first `header` bytes, in place, and appends the tag.
    pub(crate) fn seal(&mut self, number: u64, header: usize, packet: &mut Vec<u8>) {
        let (aad, body) = packet.split_at_mut(header);
        let tag = self.epoch.key.seal(number, aad, body);
        packet.extend_from_slice(&tag);
        self.first.get_or_insert(number);
        self.packets += 1;
        self.bytes += packet.len() as u64;
    }
}

/// The keys this end opens with: the current epoch and its two neighbours.
pub(crate) struct ReceiveKeys {
    crypto: &'static dyn Crypto,
    previous: Option<(Box<dyn Aead>, Duration)>,
    current: Epoch,
    next: Epoch,
}

impl ReceiveKeys {
    pub(crate) fn new(crypto: &'static dyn Crypto, secret: Zeroizing<[u8; 32]>) -> Self {
        let current = Epoch::new(crypto, 0, secret);
        let next = current.next(crypto);
        Self { crypto, previous: None, current, next }
    }

    /// Opens a packet in place and returns its frames and whether the peer moved to a new epoch.
    pub(crate) fn open<'a>(
        &mut self,
        now: Duration,
        epoch: u8,
        number: u64,
        header: usize,
        packet: &'a mut [u8],
    ) -> Option<(&'a mut [u8], bool)> {
        if packet.len() < header + TAG_LEN {
            return None;
        }
        let (aad, body) = packet.split_at_mut(header);
        let current = self.current.number;
        if epoch == Epoch::byte(current) {
            return self.current.key.open(number, aad, body).map(|frames| (frames, false));
        }
        if epoch == Epoch::byte(current.wrapping_sub(1)) {
            let (key, _) = self.previous.as_ref()?;
            return key.open(number, aad, body).map(|frames| (frames, false));
        }
        if epoch != Epoch::byte(current + 1) {
            return None;
        }
        let frames = self.next.key.open(number, aad, body)?;
        let after = self.next.next(self.crypto);
        let old = std::mem::replace(&mut self.current, std::mem::replace(&mut self.next, after));
        self.previous = Some((old.key, now + PREVIOUS_LIFETIME));
        Some((frames, true))
    }

    /// When the previous epoch's key is due to be wiped.
    pub(crate) fn expiry(&self) -> Option<Duration> {
        self.previous.as_ref().map(|(_, expiry)| *expiry)
    }

    /// Wipes the previous epoch's key if it is due.
    pub(crate) fn expire(&mut self, now: Duration) {
        self.previous.take_if(|(_, expiry)| *expiry <= now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::AWS_LC;

    const HEADER: usize = 3;
    const T0: Duration = Duration::ZERO;

    fn pair() -> (SendKeys, ReceiveKeys) {
        let secret = Zeroizing::new([7; 32]);
        (SendKeys::new(&AWS_LC, secret.clone(), T0), ReceiveKeys::new(&AWS_LC, secret))
    }

    fn sealed(keys: &mut SendKeys, number: u64) -> (u8, Vec<u8>) {
        let mut packet = b"HDRbody".to_vec();
        keys.seal(number, HEADER, &mut packet);
        (keys.epoch(), packet)
    }

    fn opens(keys: &mut ReceiveKeys, now: Duration, number: u64, (epoch, packet): &(u8, Vec<u8>)) -> bool {
        let mut packet = packet.clone();
        keys.open(now, *epoch, number, HEADER, &mut packet).is_some_and(|(frames, _)| frames == b"body")
    }

    #[test]
    fn a_packet_opens_only_with_its_own_number_header_and_epoch() {
        let (mut send, mut receive) = pair();
        let packet = sealed(&mut send, 5);
        assert!(opens(&mut receive, T0, 5, &packet));
        assert!(!opens(&mut receive, T0, 6, &packet));
        for epoch in [1, 2, 255] {
            assert!(!opens(&mut receive, T0, 5, &(epoch, packet.1.clone())));
        }
        for index in 0..packet.1.len() {
            let mut tampered = packet.clone();
            tampered.1[index] ^= 1;
            assert!(!opens(&mut receive, T0, 5, &tampered), "byte {index}");
        }
        assert!(!opens(&mut receive, T0, 5, &(0, b"HDR".to_vec())));
    }

    #[test]
    fn keys_follow_each_other_past_256_epochs_and_the_previous_one_expires() {
        let (mut send, mut receive) = pair();
        let limits = Rekey { packets: 1, ..Rekey::default() };
        let mut late = sealed(&mut send, 0);
        assert!(opens(&mut receive, T0, 0, &late));
        for number in 1..600 {
            assert_eq!(send.renew(&limits, None, T0), Renewal::Ask, "the peer must follow first");
            assert_eq!(send.renew(&limits, None, T0), Renewal::Waiting);
            assert_eq!(send.renew(&limits, Some(number - 1), T0), Renewal::Done);
            let packet = sealed(&mut send, number);
            assert!(opens(&mut receive, T0, number, &packet));
            assert!(opens(&mut receive, T0, number - 1, &late), "one epoch back");
            late = packet;
        }
        let previous = (Epoch::byte(598), late.1.clone());
        assert!(!opens(&mut receive, T0, 599, &previous), "another epoch's key");
        assert_eq!(receive.expiry(), Some(PREVIOUS_LIFETIME));
        receive.expire(PREVIOUS_LIFETIME);
        assert_eq!(receive.expiry(), None);
        assert!(opens(&mut receive, T0, 599, &late));
    }

    #[test]
    fn bytes_and_age_renew_keys_too() {
        for limits in [
            Rekey { bytes: 20, ..Rekey::default() },
            Rekey { age: Duration::from_secs(1), ..Rekey::default() },
        ] {
            let (mut send, _) = pair();
            sealed(&mut send, 0);
            assert_eq!(send.renew(&limits, Some(0), T0) == Renewal::Done, limits.bytes == 20);
            sealed(&mut send, 1);
            assert_eq!(send.renew(&limits, Some(1), Duration::from_secs(1)), Renewal::Done);
        }
    }
}

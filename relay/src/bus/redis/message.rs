//! What one node publishes to another's inbox: a header, then items in order.
//!
//! All numbers are big-endian. The first byte is the version; 0 is an inbox's probe of itself and is never
//! a message. Version 2 differs from 1 in one item, `repeat`. Each node's lease says which versions it
//! speaks, and every pair of nodes uses the newest that both do; the golden bytes in the tests hold both.
//!
//! ```text
//! header (68): version 1, flags 1, source node 2, source instance 8, target instance 8, epoch 4,
//!              sequence 8, offset 8, letters 8, confirmed epoch 4, confirmed next 8, granted 8
//! item:        kind 1 (low half: what, high half: class), then by kind
//!   1 letter:      topic 32, from 8, to 8, length 2, payload
//!   2 broadcast:   topic 32, from 8, sender's peer 32, length 2, payload
//!   3 repeat:      length 2, payload; topic, from and to are those of the letter before
//!   4 arrived:     number 8, topic 32, conn 8, peer 32, generation 8, replaces 8
//!   5 departed:    number 8, topic 32, conn 8, peer 32, generation 8
//!   6 undelivered: number 8, topic 32 (zero: not known), from 8, to 8, verdict 1, count 4
//!   7 resynced:    number 8
//! ```

use std::ops::RangeInclusive;

use bytes::{Buf, BufMut, BytesMut, TryGetError};
use culvert_wire::{Class, ConnId, Generation, Member, NodeId, PeerId, TopicId, Verdict};

use crate::bus::{Arrival, Letter, Undelivered};

/// The versions that this program speaks.
pub const VERSIONS: RangeInclusive<u8> = 1..=2;
/// Bytes before the items.
pub const HEADER: usize = 68;

/// It carries no items and takes no sequence number.
pub const EMPTY: u8 = 1;
/// The receiver should say at once what it has.
pub const ASK: u8 = 2;
/// Something of the confirmed epoch never arrived; its sender must begin a new one.
pub const RESYNC: u8 = 4;

const LETTER: u8 = 1;
const BROADCAST: u8 = 2;
const REPEAT: u8 = 3;
const ARRIVED: u8 = 4;
const DEPARTED: u8 = 5;
const UNDELIVERED: u8 = 6;
const RESYNCED: u8 = 7;

/// Where a message belongs, and what its sender has of the other direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Layout of the items.
    pub version: u8,
    /// [`EMPTY`], [`ASK`], [`RESYNC`].
    pub flags: u8,
    /// Which node sent it.
    pub source: NodeId,
    /// Which process that node was.
    pub instance: u64,
    /// For which process it is; another one with the same number discards it.
    pub target: u64,
    /// Sequence, offset and letters count from zero in each.
    pub epoch: u32,
    /// Messages with items before this one.
    pub sequence: u64,
    /// Bytes of letters and membership before this one; what credit is counted in.
    pub offset: u64,
    /// Letters before this one.
    pub letters: u64,
    /// The epoch of the other direction that the next two speak of.
    pub confirmed_epoch: u32,
    /// Everything before this sequence number arrived.
    pub confirmed: u64,
    /// Offset up to which may be sent.
    pub granted: u64,
}

/// Bytes that are no message of a version that this program speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The bytes end too early.
    #[error("the message is cut off")]
    Short,
    /// The version is not one of [`VERSIONS`].
    #[error("bus version {0} is not spoken here")]
    Version(u8),
    /// An item or a field of it is not of this version.
    #[error("the message holds an item of kind {0} that its version does not have")]
    Item(u8),
}

impl From<TryGetError> for MessageError {
    fn from(_: TryGetError) -> Self {
        MessageError::Short
    }
}

impl Header {
    /// Whether a flag is set.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Appends the header.
    pub fn put(&self, to: &mut BytesMut) {
        to.put_u8(self.version);
        to.put_u8(self.flags);
        to.put_u16(self.source.0);
        to.put_u64(self.instance);
        to.put_u64(self.target);
        to.put_u32(self.epoch);
        to.put_u64(self.sequence);
        to.put_u64(self.offset);
        to.put_u64(self.letters);
        to.put_u32(self.confirmed_epoch);
        to.put_u64(self.confirmed);
        to.put_u64(self.granted);
    }

    /// Takes the header off the front.
    ///
    /// # Errors
    /// The bytes are cut off, or of another version.
    pub fn take(from: &mut &[u8]) -> Result<Self, MessageError> {
        let version = from.try_get_u8()?;
        if !VERSIONS.contains(&version) {
            return Err(MessageError::Version(version));
        }
        Ok(Self {
            version,
            flags: from.try_get_u8()?,
            source: NodeId(from.try_get_u16()?),
            instance: from.try_get_u64()?,
            target: from.try_get_u64()?,
            epoch: from.try_get_u32()?,
            sequence: from.try_get_u64()?,
            offset: from.try_get_u64()?,
            letters: from.try_get_u64()?,
            confirmed_epoch: from.try_get_u32()?,
            confirmed: from.try_get_u64()?,
            granted: from.try_get_u64()?,
        })
    }
}

/// What nodes tell each other beside letters. None is lost while both nodes live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// A connection entered a topic in which the receiving node has members.
    Arrived {
        /// The topic.
        topic: TopicId,
        /// Who.
        arrival: Arrival,
    },
    /// A connection left a topic; behind the letters it sent.
    Departed {
        /// The topic.
        topic: TopicId,
        /// Who.
        member: Member,
    },
    /// Letters were not delivered; for their sender.
    Undelivered(Undelivered),
    /// Everything that the sending node has to say after its term was raised has been said: members of it
    /// that it did not announce again are gone.
    Resynced,
}

/// One part of a message.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// For one connection, or, without an address, for every member of its topic.
    Letter(Letter<'a>),
    /// For the node. The number tells repetitions apart; `bytes` are the item as it came.
    Item {
        /// Rises with every item of a sender, separately for [`Item::Undelivered`] and the others.
        number: u64,
        /// What it says.
        item: Item,
        /// How it was written, to be sent again.
        bytes: &'a [u8],
    },
}

type Route = (TopicId, ConnId, ConnId);

/// Items that are being put together for one node.
#[derive(Debug)]
pub struct Chunk {
    bytes: BytesMut,
    letters: u32,
    route: Option<Route>,
    compact: bool,
}

impl Chunk {
    /// An empty one for a message of this version.
    pub fn new(version: u8) -> Self {
        Self { bytes: BytesMut::new(), letters: 0, route: None, compact: version >= 2 }
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Letters so far.
    pub fn letters(&self) -> u32 {
        self.letters
    }

    /// The items as they go into a message.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends a letter. Payloads longer than a frame can carry do not come this far.
    pub fn letter(&mut self, letter: &Letter<'_>) {
        let kind = |kind| kind | letter.class.number() << 4;
        let route = (letter.topic, letter.from, letter.to);
        if letter.to == ConnId::NONE {
            self.bytes.reserve(75 + letter.payload.len());
            self.bytes.put_u8(kind(BROADCAST));
            self.bytes.put_slice(&letter.topic.0);
            self.bytes.put_u64(letter.from.0);
            self.bytes.put_slice(&letter.sender.0);
            self.route = None;
        } else if self.compact && self.route == Some(route) {
            self.bytes.reserve(3 + letter.payload.len());
            self.bytes.put_u8(kind(REPEAT));
        } else {
            self.bytes.reserve(51 + letter.payload.len());
            self.bytes.put_u8(kind(LETTER));
            self.bytes.put_slice(&letter.topic.0);
            self.bytes.put_u64(letter.from.0);
            self.bytes.put_u64(letter.to.0);
            self.route = Some(route);
        }
        self.bytes.put_u16(u16::try_from(letter.payload.len()).unwrap_or(u16::MAX));
        self.bytes.put_slice(letter.payload);
        self.letters += 1;
    }

    /// Appends an item under its number.
    pub fn item(&mut self, number: u64, item: &Item) {
        let out = &mut self.bytes;
        let member = |out: &mut BytesMut, kind, topic: &TopicId, member: &Member| {
            out.put_u8(kind);
            out.put_u64(number);
            out.put_slice(&topic.0);
            out.put_u64(member.conn.0);
            out.put_slice(&member.peer.0);
            out.put_u64(member.generation.0);
        };
        match item {
            Item::Arrived { topic, arrival } => {
                member(out, ARRIVED, topic, &arrival.member);
                out.put_u64(arrival.replaces.0);
            }
            Item::Departed { topic, member: left } => member(out, DEPARTED, topic, left),
            Item::Undelivered(undelivered) => {
                out.put_u8(UNDELIVERED);
                out.put_u64(number);
                out.put_slice(&undelivered.topic.map_or([0; 32], |topic| topic.0));
                out.put_u64(undelivered.from.0);
                out.put_u64(undelivered.to.0);
                out.put_u8(undelivered.verdict.number());
                out.put_u32(undelivered.count);
            }
            Item::Resynced => {
                out.put_u8(RESYNCED);
                out.put_u64(number);
            }
        }
    }

    /// Appends an item that was written before.
    pub fn again(&mut self, item: &[u8]) {
        self.bytes.put_slice(item);
    }
}

/// Reads the items of a message, in order.
#[derive(Debug)]
pub struct Parts<'a> {
    rest: &'a [u8],
    route: Option<Route>,
    compact: bool,
}

impl<'a> Parts<'a> {
    /// The items in `bytes`, which follow a header of this version.
    pub fn new(version: u8, bytes: &'a [u8]) -> Self {
        Self { rest: bytes, route: None, compact: version >= 2 }
    }

    fn part(&mut self) -> Result<Part<'a>, MessageError> {
        let before = self.rest;
        let byte = self.rest.try_get_u8()?;
        let kind = byte & 0x0f;
        match kind {
            LETTER | BROADCAST | REPEAT => {
                let class = Class::from_number(byte >> 4).ok_or(MessageError::Item(byte))?;
                self.letter(kind, class).map(Part::Letter)
            }
            _ if byte >> 4 != 0 => Err(MessageError::Item(byte)),
            _ => {
                let (number, item) = self.item(kind)?;
                let bytes = &before[..before.len() - self.rest.len()];
                Ok(Part::Item { number, item, bytes })
            }
        }
    }

    fn letter(&mut self, kind: u8, class: Class) -> Result<Letter<'a>, MessageError> {
        let mut sender = PeerId([0; 32]);
        let (topic, from, to) = match kind {
            REPEAT if !self.compact => return Err(MessageError::Item(kind)),
            REPEAT => self.route.ok_or(MessageError::Item(kind))?,
            BROADCAST => {
                let (topic, from) = (TopicId(self.array()?), self.conn()?);
                sender = PeerId(self.array()?);
                (topic, from, ConnId::NONE)
            }
            _ => (TopicId(self.array()?), self.conn()?, self.conn()?),
        };
        self.route = (to != ConnId::NONE).then_some((topic, from, to));
        let length = usize::from(self.rest.try_get_u16()?);
        let (payload, rest) = self.rest.split_at_checked(length).ok_or(MessageError::Short)?;
        self.rest = rest;
        Ok(Letter { topic, from, to, sender, class, payload })
    }

    fn item(&mut self, kind: u8) -> Result<(u64, Item), MessageError> {
        let number = self.rest.try_get_u64()?;
        let item = match kind {
            ARRIVED => {
                let (topic, member) = (TopicId(self.array()?), self.member()?);
                Item::Arrived { topic, arrival: Arrival { member, replaces: self.conn()? } }
            }
            DEPARTED => Item::Departed { topic: TopicId(self.array()?), member: self.member()? },
            UNDELIVERED => {
                let topic = TopicId(self.array()?);
                let (from, to) = (self.conn()?, self.conn()?);
                let verdict = self.rest.try_get_u8()?;
                let verdict = Verdict::from_number(verdict).ok_or(MessageError::Item(kind))?;
                let topic = (topic.0 != [0; 32]).then_some(topic);
                Item::Undelivered(Undelivered { topic, from, to, verdict, count: self.rest.try_get_u32()? })
            }
            RESYNCED => Item::Resynced,
            other => return Err(MessageError::Item(other)),
        };
        Ok((number, item))
    }

    fn member(&mut self) -> Result<Member, MessageError> {
        let (conn, peer) = (self.conn()?, PeerId(self.array()?));
        Ok(Member { conn, peer, generation: Generation(self.rest.try_get_u64()?) })
    }

    fn conn(&mut self) -> Result<ConnId, MessageError> {
        Ok(ConnId(self.rest.try_get_u64()?))
    }

    fn array(&mut self) -> Result<[u8; 32], MessageError> {
        let mut array = [0; 32];
        self.rest.try_copy_to_slice(&mut array)?;
        Ok(array)
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = Result<Part<'a>, MessageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let part = self.part();
        if part.is_err() {
            // Nothing behind it can be told apart.
            self.rest = &[];
        }
        Some(part)
    }
}

#[cfg(test)]
mod tests;

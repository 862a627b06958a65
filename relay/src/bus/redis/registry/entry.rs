//! The bytes of one registration.

use culvert_wire::{ConnId, Generation, Member, PeerId, TopicId};

use crate::bus::redis::incarnation::Incarnation;

/// Peer, instance, term, generation.
const VALUE_LEN: usize = 32 + 8 + 4 + 8;

/// A member and under which incarnation of its node it is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who and where.
    pub member: Member,
    /// Of the node in its address.
    pub life: Incarnation,
}

impl Entry {
    /// The field of its topic's hash.
    pub fn field(conn: ConnId) -> [u8; 8] {
        conn.0.to_be_bytes()
    }

    /// The value under that field.
    pub fn value(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(VALUE_LEN);
        value.extend_from_slice(&self.member.peer.0);
        value.extend_from_slice(&life_bytes(self.life));
        value.extend_from_slice(&self.member.generation.0.to_be_bytes());
        value
    }

    /// Reads a field and its value; `None` if they are no registration.
    pub fn parse(field: &[u8], value: &[u8]) -> Option<Self> {
        let conn = conn(field)?;
        let (peer, rest) = value.split_first_chunk()?;
        let (instance, rest) = rest.split_first_chunk()?;
        let (term, rest) = rest.split_first_chunk()?;
        let generation = rest.try_into().ok()?;
        let generation = Generation(u64::from_be_bytes(generation));
        Some(Self {
            member: Member { conn, peer: PeerId(*peer), generation },
            life: Incarnation { instance: u64::from_be_bytes(*instance), term: u32::from_be_bytes(*term) },
        })
    }
}

/// Reads a field of a topic's hash.
pub fn conn(field: &[u8]) -> Option<ConnId> {
    Some(ConnId(u64::from_be_bytes(field.try_into().ok()?)))
}

/// The part of a value that says which incarnation it is of; it begins at byte 33, as Lua counts.
pub fn life_bytes(life: Incarnation) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&life.instance.to_be_bytes());
    bytes[8..].copy_from_slice(&life.term.to_be_bytes());
    bytes
}

/// A registration in the set of all that its incarnation has.
pub fn index(topic: &TopicId, conn: ConnId) -> [u8; 40] {
    let mut bytes = [0; 40];
    bytes[..32].copy_from_slice(&topic.0);
    bytes[32..].copy_from_slice(&conn.0.to_be_bytes());
    bytes
}

/// Reads a registration of that set.
pub fn from_index(bytes: &[u8]) -> Option<(TopicId, ConnId)> {
    let (topic, field) = bytes.split_first_chunk()?;
    Some((TopicId(*topic), conn(field)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_is_written_as_documented_and_read_back() {
        let member =
            Member { conn: ConnId(0x0102_0304_0506_0708), peer: PeerId([9; 32]), generation: Generation(5) };
        let entry = Entry { member, life: Incarnation { instance: 0xa0, term: 0xb0 } };
        let (field, value) = (Entry::field(member.conn), entry.value());
        assert_eq!(field, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(value.len(), VALUE_LEN);
        assert_eq!(value[32..44], life_bytes(entry.life));
        assert_eq!((value[39], value[43], value[51]), (0xa0, 0xb0, 5));
        assert_eq!(Entry::parse(&field, &value), Some(entry));
        for bad in [&value[1..], &[&value[..], &[0]].concat(), &[]] {
            assert_eq!(Entry::parse(&field, bad), None);
        }
        assert_eq!(Entry::parse(&field[1..], &value), None);
        let topic = TopicId([3; 32]);
        assert_eq!(from_index(&index(&topic, member.conn)), Some((topic, member.conn)));
        assert_eq!(from_index(&[0; 39]), None);
    }
}

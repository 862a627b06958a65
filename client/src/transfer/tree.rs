//! BLAKE3 as a tree: the root of a file, the hashes under it, and pieces that prove themselves.
//!
//! The tree is bao's (<https://github.com/oconnor663/bao>) with groups of 16 KiB, by `bao-tree`; the
//! root is the plain BLAKE3 hash of the content, as `b3sum` prints it. The hashes under it (the
//! outboard) are 64 bytes for every group, 0.39 %.

use std::fmt;
use std::io::{self, Read, Write};

use bao_tree::io::outboard::PostOrderOutboard;
use bao_tree::io::sync::{DecodeResponseIter, ReadAt, encode_ranges_validated, outboard_post_order};
use bao_tree::io::{BaoContentItem, EncodeError};
use bao_tree::{BaoTree, BlockSize, ChunkNum, ChunkRanges};
use serde::{Deserialize, Serialize};

/// Bytes of a group, the unit of verification.
pub(super) const GROUP: u64 = 16 * 1024;
/// Largest file: 1 PiB, far from where offsets in the tree overflow.
pub(super) const MAX_SIZE: u64 = 1 << 50;

const BLOCK: BlockSize = BlockSize::from_chunk_log(4);

/// A BLAKE3 hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Root(pub(super) [u8; 32]);

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Root({self})")
    }
}

impl TryFrom<String> for Root {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).ok();
        bytes.and_then(|b| b.try_into().ok()).map(Root).ok_or("a root must be 64 hexadecimal digits")
    }
}

impl From<Root> for String {
    fn from(root: Root) -> Self {
        root.to_string()
    }
}

/// Why a piece could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum EncodePieceError {
    /// The content is no longer what was hashed.
    #[error("the content is not what was hashed")]
    Changed,
    #[error("cannot read the content")]
    Read(#[from] io::Error),
}

/// Why a piece was refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum VerifyError {
    /// Hash, length or shape is wrong.
    #[error("the piece does not match the root")]
    Mismatch,
    #[error("cannot write the piece")]
    Write(#[from] io::Error),
}

/// Hashes exactly `size` bytes and writes the outboard.
pub(super) fn hash(content: impl Read, size: u64, outboard: impl Write) -> io::Result<Root> {
    Ok(Root(outboard_post_order(content, BaoTree::new(size, BLOCK), outboard)?.into()))
}

/// Hashes everything; no outboard.
pub(super) fn root_of(content: impl Read) -> io::Result<Root> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(content)?;
    Ok(Root(hasher.finalize().into()))
}

/// Bytes of the outboard of a file.
pub(super) fn outboard_len(size: u64) -> u64 {
    BaoTree::new(size, BLOCK).outboard_size()
}

/// Appends `start..end` of the content with its proof; verifies what it reads.
pub(super) fn encode(
    content: impl ReadAt,
    (size, root): (u64, Root),
    outboard: impl ReadAt,
    (start, end): (u64, u64),
    out: &mut Vec<u8>,
) -> Result<(), EncodePieceError> {
    let outboard = PostOrderOutboard { root: root.0.into(), tree: BaoTree::new(size, BLOCK), data: outboard };
    encode_ranges_validated(content, outboard, &chunks(start, end), out).map_err(|error| match error {
        // A file that became shorter.
        EncodeError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => EncodePieceError::Changed,
        EncodeError::Io(error) => EncodePieceError::Read(error),
        _ => EncodePieceError::Changed,
    })
}

/// Verifies a piece against the root and hands its groups on, in order.
pub(super) fn verify(
    encoded: &[u8],
    (size, root): (u64, Root),
    (start, end): (u64, u64),
    mut write: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> Result<(), VerifyError> {
    let mut rest = encoded;
    let ranges = chunks(start, end);
    let tree = BaoTree::new(size, BLOCK);
    for item in DecodeResponseIter::new(root.0.into(), tree, &mut rest, &ranges) {
        match item.map_err(|_| VerifyError::Mismatch)? {
            BaoContentItem::Parent(_) => {}
            BaoContentItem::Leaf(leaf) => write(leaf.offset, &leaf.data)?,
        }
    }
    if rest.is_empty() { Ok(()) } else { Err(VerifyError::Mismatch) }
}

fn chunks(start: u64, end: u64) -> ChunkRanges {
    ChunkRanges::from(ChunkNum::full_chunks(start)..ChunkNum::chunks(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|i| u8::try_from(i * 31 % 251).unwrap()).collect()
    }

    #[test]
    fn the_root_is_the_plain_blake3_hash_and_pieces_prove_themselves() {
        for len in [1, 16383, 16384, 16385, 1_000_000] {
            let data = content(len);
            let size = len as u64;
            let mut outboard = Vec::new();
            let root = hash(&data[..], size, &mut outboard).unwrap();
            assert_eq!(root.0, *blake3::hash(&data).as_bytes());
            assert_eq!(root, root_of(&data[..]).unwrap());
            assert_eq!(outboard.len() as u64, outboard_len(size));
            for start in (0..size).step_by(65536) {
                let end = size.min(start + 65536);
                let mut encoded = Vec::new();
                encode(&data[..], (size, root), &outboard[..], (start, end), &mut encoded).unwrap();
                let mut out = vec![0; len];
                verify(&encoded, (size, root), (start, end), |at, bytes| {
                    let at = usize::try_from(at).unwrap();
                    out[at..at + bytes.len()].copy_from_slice(bytes);
                    Ok(())
                })
                .unwrap();
                let here = usize::try_from(start).unwrap()..usize::try_from(end).unwrap();
                assert_eq!(out[here.clone()], data[here]);
            }
        }
    }

    #[test]
    fn a_flipped_bit_a_missing_byte_and_a_spare_byte_are_refused() {
        let data = content(100_000);
        let size = data.len() as u64;
        let mut outboard = Vec::new();
        let root = hash(&data[..], size, &mut outboard).unwrap();
        let mut good = Vec::new();
        encode(&data[..], (size, root), &outboard[..], (16384, 65536), &mut good).unwrap();
        let check = |bytes: &[u8]| verify(bytes, (size, root), (16384, 65536), |_, _| Ok(()));
        check(&good).unwrap();
        for at in (0..good.len()).step_by(997) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(matches!(check(&bad), Err(VerifyError::Mismatch)), "bit flipped at {at}");
        }
        assert!(check(&good[..good.len() - 1]).is_err());
        assert!(check(&[&good[..], &[0]].concat()).is_err());
    }

    #[test]
    fn content_that_changed_or_shrank_is_never_encoded() {
        let data = content(100_000);
        let size = data.len() as u64;
        let mut outboard = Vec::new();
        let root = hash(&data[..], size, &mut outboard).unwrap();
        let mut changed = data.clone();
        changed[20_000] ^= 1;
        for content in [&changed[..], &data[..50_000]] {
            let result = encode(content, (size, root), &outboard[..], (0, size), &mut Vec::new());
            assert!(matches!(result, Err(EncodePieceError::Changed)));
        }
    }
}

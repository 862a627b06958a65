//! Ports of 127.0.0.1 for servers that are told theirs; no two servers get the same.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::Range;

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;

/// All of them are below the range that outgoing connections are given (from 32,768 on Linux), so that no
/// connection of a parallel test takes one before its owner binds it.
const FIRST: u16 = 10_000;
const BLOCK: u16 = 250;
const BLOCKS: u16 = 88;

/// Ports that only this process gives away.
struct Block {
    /// Bound to the first port for UDP, which nothing here speaks: others see by it that the block is taken.
    _claim: UdpSocket,
    left: Range<u16>,
}

impl Block {
    fn next(&mut self) -> Option<u16> {
        self.left.find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
    }
}

/// A port of 127.0.0.1 that is free now, and that nobody who asks here is given again: not in this process,
/// and in no other while this one lives. A server may take seconds until it binds it.
///
/// # Errors
/// None is left.
pub fn free_port() -> Result<u16> {
    static OURS: Mutex<Vec<Block>> = Mutex::new(Vec::new());
    let mut ours = OURS.lock();
    loop {
        if let Some(port) = ours.last_mut().and_then(Block::next) {
            return Ok(port);
        }
        ours.push(claim()?);
    }
}

/// Takes a block that nobody has, beginning the search anywhere: what has just been given back may still be in
/// use by a server that is ending.
fn claim() -> Result<Block> {
    let mut random = [0; 2];
    aws_lc_rs::rand::fill(&mut random).context("no random bytes")?;
    let start = u16::from_be_bytes(random) % BLOCKS;
    for number in (start..BLOCKS).chain(0..start) {
        let first = FIRST + number * BLOCK;
        if let Ok(claim) = UdpSocket::bind((Ipv4Addr::LOCALHOST, first)) {
            return Ok(Block { _claim: claim, left: first..first + BLOCK });
        }
    }
    bail!("all ports from {FIRST} to {} of 127.0.0.1 are given away", FIRST + BLOCKS * BLOCK - 1)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_port_is_given_twice_nor_to_outgoing_connections() {
        let ports: HashSet<u16> = (0..600).map(|_| free_port().unwrap()).collect();
        assert_eq!(ports.len(), 600);
        assert!(ports.iter().all(|port| (10_000..32_000).contains(port)));
    }

    #[test]
    fn what_a_process_has_claimed_no_other_gets() {
        let (one, other) = (claim().unwrap(), claim().unwrap());
        assert!(other.left.clone().all(|port| !one.left.contains(&port)));
        let again = UdpSocket::bind((Ipv4Addr::LOCALHOST, one.left.start));
        assert_eq!(again.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_port_that_another_program_has_is_left_out() {
        let mut block = claim().unwrap();
        let first = block.left.start;
        let _other = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).unwrap();
        assert_eq!(block.next(), Some(first + 1));
    }
}

//! Who is there: Noise XX with Ed25519 identities.
//!
//! `Noise_XX_25519_ChaChaPoly_BLAKE2s`, or `XXpsk3` with a topic secret; the prologue binds protocol
//! version, topic and whether there is a secret. The Noise static keys live for one handshake. The
//! payloads of messages 2 and 3 carry the long-term identity and its signature over a label, the role,
//! all datagrams so far (with their headers) and the Noise static key.
//!
//! Nothing a stranger sends can damage a handshake: every attempt to read a message rebuilds the Noise
//! state from the secrets and the datagrams it rests on, and is kept only if all of it was right. The
//! price is half a dozen X25519 operations per forged message.
//!
//! Retransmission is the initiator's duty: it repeats message 1 until message 2 came, then message 3
//! until the first sealed packet came. The responder answers copies with copies, one for one, so it
//! amplifies nothing.

mod initiator;
mod responder;

pub(crate) use initiator::Initiator;
pub(crate) use responder::Responder;

use culvert_wire::PeerId;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};
use zeroize::Zeroizing;

use crate::crypto::Rng;
use crate::packet::VERSION;
use crate::{Config, HandshakeFault, Identity, SessionId};

/// Bytes of identity and signature in messages 2 and 3.
const PAYLOAD: usize = 32 + 64;

/// What a completed handshake yields.
pub(crate) struct Outcome {
    pub(crate) peer: PeerId,
    pub(crate) remote: SessionId,
    /// Secret of epoch 0 for sealing.
    pub(crate) send: Zeroizing<[u8; 32]>,
    /// Secret of epoch 0 for opening.
    pub(crate) receive: Zeroizing<[u8; 32]>,
    pub(crate) binding: [u8; 32],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Initiator = 1,
    Responder = 2,
}

/// The X25519 private keys of one handshake.
struct Ephemeral {
    ephemeral: Zeroizing<[u8; 32]>,
    fixed: Zeroizing<[u8; 32]>,
}

impl Ephemeral {
    fn generate(rng: &mut dyn Rng) -> Self {
        let mut keys = Self { ephemeral: Zeroizing::new([0; 32]), fixed: Zeroizing::new([0; 32]) };
        rng.fill(&mut keys.ephemeral[..]);
        rng.fill(&mut keys.fixed[..]);
        keys
    }

    /// The Noise state before message 1.
    fn noise(&self, config: &Config, role: Role) -> Result<HandshakeState, snow::Error> {
        let name = match config.psk {
            Some(_) => "Noise_XXpsk3_25519_ChaChaPoly_BLAKE2s",
            None => "Noise_XX_25519_ChaChaPoly_BLAKE2s",
        };
        let prologue = prologue(config);
        let resolver = Box::new(Resolver(self.ephemeral.clone()));
        let mut builder = Builder::with_resolver(name.parse()?, resolver)
            .prologue(&prologue)?
            .local_private_key(&self.fixed[..])?;
        if let Some(psk) = &config.psk {
            builder = builder.psk(3, psk)?;
        }
        match role {
            Role::Initiator => builder.build_initiator(),
            Role::Responder => builder.build_responder(),
        }
    }

    fn public(&self) -> [u8; 32] {
        let mut dh = DefaultResolver.resolve_dh(&DHChoice::Curve25519).expect("X25519 is compiled in");
        dh.set(&self.fixed[..]);
        dh.pubkey().try_into().expect("an X25519 key has 32 bytes")
    }
}

/// Noise on randomness drawn beforehand, so that a state can be built again.
struct Resolver(Zeroizing<[u8; 32]>);

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Drawn(self.0.clone())))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// Noise draws exactly once: its ephemeral key.
struct Drawn(Zeroizing<[u8; 32]>);

impl Random for Drawn {
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), snow::Error> {
        if out.len() != self.0.len() {
            return Err(snow::Error::Rng);
        }
        out.copy_from_slice(&self.0[..]);
        Ok(())
    }
}

fn prologue(config: &Config) -> Vec<u8> {
    let mut prologue = b"culvert session".to_vec();
    prologue.push(VERSION);
    prologue.extend_from_slice(&config.topic.0);
    prologue.push(u8::from(config.psk.is_some()));
    prologue
}

/// What an identity signs: who it is in this very handshake.
fn statement(
    config: &Config,
    role: Role,
    sender: SessionId,
    datagrams: [&[u8]; 2],
    fixed: &[u8; 32],
) -> Vec<u8> {
    let crypto = config.identity.crypto();
    let [first, second] = datagrams.map(|datagram| crypto.digest(&[datagram]));
    let context = crypto.digest(&[&prologue(config), &first, &second]);
    let mut statement = b"culvert session v1 identity\0".to_vec();
    statement.push(role as u8);
    statement.extend_from_slice(&context);
    statement.extend_from_slice(&sender.0.to_be_bytes());
    statement.extend_from_slice(fixed);
    statement
}

fn payload(identity: &Identity, statement: &[u8]) -> Vec<u8> {
    let mut payload = identity.peer_id().0.to_vec();
    payload.extend_from_slice(&identity.sign(statement));
    payload
}

/// Checks a payload against what its sender must have signed, and whether it is who was expected.
fn verify(config: &Config, payload: &[u8], statement: &[u8]) -> Result<PeerId, HandshakeFault> {
    let payload: &[u8; PAYLOAD] = payload.try_into().map_err(|_| HandshakeFault::Undecryptable)?;
    let (Some(&public), Some(&signature)) = (payload.first_chunk(), payload.last_chunk()) else {
        return Err(HandshakeFault::Undecryptable);
    };
    if !config.identity.crypto().verify(&public, statement, &signature) {
        return Err(HandshakeFault::BadSignature);
    }
    let peer = PeerId(public);
    if config.expected_peer.is_some_and(|expected| expected != peer) {
        return Err(HandshakeFault::WrongPeer);
    }
    Ok(peer)
}

/// Writes a Noise message behind a header that is already in `datagram`.
fn write(noise: &mut HandshakeState, payload: &[u8], datagram: &mut Vec<u8>) -> Result<(), snow::Error> {
    let start = datagram.len();
    // Two keys and two tags are the most that a message of XX adds to its payload.
    datagram.resize(start + 2 * 32 + 2 * 16 + payload.len(), 0);
    let len = noise.write_message(payload, &mut datagram[start..])?;
    datagram.truncate(start + len);
    Ok(())
}

fn read(noise: &mut HandshakeState, message: &[u8]) -> Result<Vec<u8>, snow::Error> {
    let mut payload = vec![0; message.len()];
    let len = noise.read_message(message, &mut payload)?;
    payload.truncate(len);
    Ok(payload)
}

fn remote_static(noise: &HandshakeState) -> Result<[u8; 32], HandshakeFault> {
    noise.get_remote_static().and_then(|key| key.try_into().ok()).ok_or(HandshakeFault::Undecryptable)
}

fn outcome(mut noise: HandshakeState, role: Role, peer: PeerId, remote: SessionId) -> Outcome {
    let (first, second) = noise.dangerously_get_raw_split();
    let (first, second) = (Zeroizing::new(first), Zeroizing::new(second));
    let mut binding = [0; 32];
    binding.copy_from_slice(&noise.get_handshake_hash()[..32]);
    let (send, receive) = if role == Role::Initiator { (first, second) } else { (second, first) };
    Outcome { peer, remote, send, receive, binding }
}

#[cfg(test)]
mod tests;

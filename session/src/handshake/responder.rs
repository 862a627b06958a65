//! The end that answers.

use snow::HandshakeState;

use super::{Ephemeral, Outcome, Role, outcome, payload, read, remote_static, statement, verify, write};
use crate::crypto::Rng;
use crate::packet::{HANDSHAKE_HEADER, Header, Step};
use crate::{Config, HandshakeFault, SessionId};

/// The answer to one initiation.
pub(crate) struct Responder {
    remote: SessionId,
    keys: Ephemeral,
    payload: Vec<u8>,
    initiation: Vec<u8>,
    response: Vec<u8>,
}

impl Responder {
    /// Answers the initiation of `remote`; an error if it cannot be read.
    pub(crate) fn new(
        config: &Config,
        id: SessionId,
        remote: SessionId,
        initiation: &[u8],
        rng: &mut dyn Rng,
    ) -> Result<Self, snow::Error> {
        let keys = Ephemeral::generate(rng);
        let statement = statement(config, Role::Responder, id, [initiation, &[]], &keys.public());
        let mut responder = Self {
            remote,
            keys,
            payload: payload(&config.identity, &statement),
            initiation: initiation.to_vec(),
            response: Vec::new(),
        };
        let mut response = Vec::new();
        Header::Handshake { step: Step::Response, receiver: remote, sender: id }.encode(&mut response);
        responder.replay(config, &mut response)?;
        responder.response = response;
        Ok(responder)
    }

    /// The Noise state after message 2, which is appended to `datagram`.
    fn replay(&self, config: &Config, datagram: &mut Vec<u8>) -> Result<HandshakeState, snow::Error> {
        let mut noise = self.keys.noise(config, Role::Responder)?;
        read(&mut noise, &self.initiation[HANDSHAKE_HEADER..])?;
        write(&mut noise, &self.payload, datagram)?;
        Ok(noise)
    }

    #[cfg(test)]
    pub(crate) fn footprint(&self) -> usize {
        let parts = [&self.payload, &self.initiation, &self.response];
        size_of::<Self>() + parts.iter().map(|part| part.capacity()).sum::<usize>()
    }

    /// Message 2: the answer to every copy of this initiation.
    pub(crate) fn response(&self) -> &[u8] {
        &self.response
    }

    /// Whether this is the answer to that very initiation.
    pub(crate) fn answers(&self, initiation: &[u8]) -> bool {
        self.initiation == initiation
    }

    /// Whether message 3 of `remote` belongs to this answer.
    pub(crate) fn is_for(&self, remote: SessionId) -> bool {
        self.remote == remote
    }

    /// Reads message 3.
    pub(crate) fn confirm(&self, config: &Config, confirmation: &[u8]) -> Result<Outcome, HandshakeFault> {
        let undecryptable = |_: snow::Error| HandshakeFault::Undecryptable;
        let mut noise = self.replay(config, &mut Vec::new()).map_err(undecryptable)?;
        let theirs = read(&mut noise, &confirmation[HANDSHAKE_HEADER..]).map_err(undecryptable)?;
        let datagrams = [&self.initiation[..], &self.response[..]];
        let claim = statement(config, Role::Initiator, self.remote, datagrams, &remote_static(&noise)?);
        let peer = verify(config, &theirs, &claim)?;
        Ok(outcome(noise, Role::Responder, peer, self.remote))
    }
}

//! The end that begins.

use zeroize::Zeroizing;

use super::{Ephemeral, Outcome, Role, outcome, payload, read, remote_static, statement, verify, write};
use crate::crypto::Rng;
use crate::packet::{HANDSHAKE_HEADER, Header, Step};
use crate::{Config, HandshakeFault, SessionId};

/// A handshake begun here.
pub(crate) struct Initiator {
    id: SessionId,
    keys: Ephemeral,
    initiation: Vec<u8>,
    /// Message 2 that was accepted, and message 3 that answers it.
    answered: Option<(Vec<u8>, Vec<u8>)>,
}

impl Initiator {
    pub(crate) fn new(config: &Config, id: SessionId, rng: &mut dyn Rng) -> Result<Self, snow::Error> {
        let keys = Ephemeral::generate(rng);
        let mut initiation = Vec::new();
        Header::Handshake { step: Step::Initiation, receiver: SessionId::NONE, sender: id }
            .encode(&mut initiation);
        write(&mut keys.noise(config, Role::Initiator)?, &[], &mut initiation)?;
        Ok(Self { id, keys, initiation, answered: None })
    }

    /// Message 1.
    pub(crate) fn initiation(&self) -> &[u8] {
        &self.initiation
    }

    /// The message to repeat until the peer's next one comes.
    pub(crate) fn datagram(&self) -> &[u8] {
        self.answered.as_ref().map_or(&self.initiation, |(_, confirmation)| confirmation)
    }

    /// Whether `response` is a copy of the one that was accepted, so that its sender lacks message 3.
    pub(crate) fn has_answered(&self, response: &[u8]) -> bool {
        self.answered.as_ref().is_some_and(|(accepted, _)| accepted == response)
    }

    /// Reads message 2 from `remote` and prepares message 3.
    pub(crate) fn respond(
        &mut self,
        config: &Config,
        remote: SessionId,
        response: &[u8],
    ) -> Result<Outcome, HandshakeFault> {
        let undecryptable = |_: snow::Error| HandshakeFault::Undecryptable;
        let mut noise = self.keys.noise(config, Role::Initiator).map_err(undecryptable)?;
        write(&mut noise, &[], &mut Vec::new()).map_err(undecryptable)?;
        let theirs = Zeroizing::new(read(&mut noise, &response[HANDSHAKE_HEADER..]).map_err(undecryptable)?);
        let first = [&self.initiation[..], &[]];
        let claim = statement(config, Role::Responder, remote, first, &remote_static(&noise)?);
        let peer = verify(config, &theirs, &claim)?;

        let own =
            statement(config, Role::Initiator, self.id, [&self.initiation, response], &self.keys.public());
        let mut confirmation = Vec::new();
        Header::Handshake { step: Step::Confirmation, receiver: remote, sender: self.id }
            .encode(&mut confirmation);
        write(&mut noise, &payload(&config.identity, &own), &mut confirmation).map_err(undecryptable)?;
        self.answered = Some((response.to_vec(), confirmation));
        Ok(outcome(noise, Role::Initiator, peer, remote))
    }
}

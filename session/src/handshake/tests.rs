//! Forgeries that need the inside of a handshake; what a relay can do is in `tests/session/handshake.rs`.

use culvert_wire::TopicId;

use super::*;
use crate::crypto::AwsLc;
use crate::packet::{HANDSHAKE_HEADER, Header, Step};

const OURS: SessionId = SessionId(1);
const THEIRS: SessionId = SessionId(2);

fn config(seed: u8, psk: Option<u8>) -> Config {
    let mut config = Config::new(Identity::from_seed(&[seed; 32]), TopicId([7; 32]));
    config.psk = psk.map(|byte| Zeroizing::new([byte; 32]));
    config
}

fn begun(config: &Config) -> Initiator {
    Initiator::new(config, OURS, &mut AwsLc).unwrap()
}

fn answered(config: &Config, initiator: &Initiator) -> Responder {
    Responder::new(config, THEIRS, OURS, initiator.initiation(), &mut AwsLc).unwrap()
}

#[test]
fn both_ends_agree_on_keys_identities_and_hash() {
    for psk in [None, Some(3)] {
        let (alice, bob) = (config(1, psk), config(2, psk));
        let mut initiator = begun(&alice);
        let responder = answered(&bob, &initiator);
        let one = initiator.respond(&alice, THEIRS, responder.response()).unwrap();
        let two = responder.confirm(&bob, initiator.datagram()).unwrap();
        assert_eq!((one.peer, two.peer), (bob.identity.peer_id(), alice.identity.peer_id()));
        assert_eq!((&one.send, &one.receive), (&two.receive, &two.send));
        assert_ne!(one.send, one.receive);
        assert_eq!(one.binding, two.binding);
    }
}

/// A response by someone who can do all of Noise, with a payload of their choice.
fn forged_response(
    forger: &Config,
    initiator: &Initiator,
    payload: impl Fn(&Ephemeral) -> Vec<u8>,
) -> Vec<u8> {
    let keys = Ephemeral::generate(&mut AwsLc);
    let mut noise = keys.noise(forger, Role::Responder).unwrap();
    read(&mut noise, &initiator.initiation()[HANDSHAKE_HEADER..]).unwrap();
    let mut response = Vec::new();
    Header::Handshake { step: Step::Response, receiver: OURS, sender: THEIRS }.encode(&mut response);
    write(&mut noise, &payload(&keys), &mut response).unwrap();
    response
}

#[test]
fn an_identity_without_its_key_is_refused() {
    let (alice, mallory) = (config(1, None), config(66, None));
    let victim = Identity::from_seed(&[2; 32]);
    let mut initiator = begun(&alice);
    let statement = |keys: &Ephemeral, role, sender| {
        let datagrams = [initiator.initiation(), &[][..]];
        statement(&mallory, role, sender, datagrams, &keys.public())
    };
    let own = |role: Role, sender: SessionId| {
        forged_response(&mallory, &initiator, |keys| {
            payload(&mallory.identity, &statement(keys, role, sender))
        })
    };
    let claimed = forged_response(&mallory, &initiator, |keys| {
        let mut payload = payload(&mallory.identity, &statement(keys, Role::Responder, THEIRS));
        payload[..32].copy_from_slice(&victim.peer_id().0);
        payload
    });
    let elsewhere = forged_response(&mallory, &initiator, |_| {
        // The victim's true signature, made for another Noise key.
        let other = Ephemeral::generate(&mut AwsLc);
        payload(&victim, &statement(&other, Role::Responder, THEIRS))
    });
    let (reflected, readdressed) = (own(Role::Initiator, THEIRS), own(Role::Responder, SessionId(9)));
    let (short, honest) =
        (forged_response(&mallory, &initiator, |_| vec![0; 95]), own(Role::Responder, THEIRS));
    let mut fault = |response: &[u8]| initiator.respond(&alice, THEIRS, response).err();
    for forged in [claimed, elsewhere, reflected, readdressed] {
        assert_eq!(fault(&forged), Some(HandshakeFault::BadSignature));
    }
    assert_eq!(fault(&short), Some(HandshakeFault::Undecryptable));
    assert_eq!(fault(&honest), None, "what failed above is the forgery, not the forger's Noise");
}

#[test]
fn a_confirmation_is_worth_nothing_in_another_handshake() {
    let (alice, bob) = (config(1, None), config(2, None));
    let mut initiator = begun(&alice);
    let (first, second) = (answered(&bob, &initiator), answered(&bob, &initiator));
    initiator.respond(&alice, THEIRS, first.response()).unwrap();
    assert_eq!(
        second.confirm(&bob, initiator.datagram()).err(),
        Some(HandshakeFault::Undecryptable),
        "a replayed initiation gets a fresh answer, which the old confirmation does not fit"
    );
    assert!(first.confirm(&bob, initiator.datagram()).is_ok());
}

#[test]
fn no_changed_byte_is_accepted_and_none_does_damage() {
    for psk in [None, Some(3)] {
        let (alice, bob) = (config(1, psk), config(2, psk));
        let mut initiator = begun(&alice);
        let responder = answered(&bob, &initiator);
        let response = responder.response().to_vec();
        for index in HANDSHAKE_HEADER..response.len() {
            let mut tampered = response.clone();
            tampered[index] ^= 0x80;
            // The uppermost bit of an X25519 key is ignored (RFC 7748); Noise still hashes it.
            assert!(initiator.respond(&alice, THEIRS, &tampered).is_err(), "byte {index}");
        }
        initiator.respond(&alice, THEIRS, &response).unwrap();
        let confirmation = initiator.datagram().to_vec();
        for index in HANDSHAKE_HEADER..confirmation.len() {
            let mut tampered = confirmation.clone();
            tampered[index] ^= 1;
            assert!(responder.confirm(&bob, &tampered).is_err(), "byte {index}");
        }
        assert!(responder.confirm(&bob, &confirmation).is_ok());
    }
}

//! The worked hello and ticket, computed again with the workspace's cryptography.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use culvert_wire::{Admission, Challenge, ConnId, Frame, Generation, Hello, NodeId, PeerId, Transcript};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};

use crate::document::{blocks, table};

const TOKEN: &str = "correct horse battery staple";

fn key(first: u8) -> Ed25519KeyPair {
    let seed: Vec<u8> = (first..first + 32).collect();
    Ed25519KeyPair::from_seed_unchecked(&seed).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

#[test]
fn the_worked_hello_is_what_the_code_writes() {
    let key = key(0);
    let peer = PeerId(key.public_key().as_ref().try_into().unwrap());
    let challenge = Challenge { nonce: [0x11; 32], node: NodeId(7), versions: vec![1] };
    let mut hello = Hello {
        peer,
        nonce: [0x33; 32],
        version: 1,
        generation: Generation(1),
        replaces: ConnId::NONE,
        host: "relay.example".to_owned(),
        admission: Admission::None,
        signature: [0; 64],
    };
    let transcript = Transcript::of(&challenge, &hello);
    let (bytes, open) = (transcript.bytes(), transcript.signed(&Admission::None));
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, TOKEN.as_bytes()), &bytes);
    hello.admission = Admission::AccessToken(mac.as_ref().try_into().unwrap());
    let signed = Transcript::of(&challenge, &hello).signed(&hello.admission);
    hello.signature = key.sign(&signed).as_ref().try_into().unwrap();

    let computed = [
        hex(&peer.0),
        hex(&bytes),
        hex(mac.as_ref()),
        hex(&hello.signature),
        hex(key.sign(&open).as_ref()),
        hex(&Frame::Hello(Box::new(hello)).encode().unwrap()),
        hex(self::key(32).public_key().as_ref()),
    ];
    assert_eq!(blocks("hex"), computed);
    let inputs = table(&["Input"]).columns(["Value"]);
    assert!(inputs.contains(&[TOKEN.to_owned()]));
}

#[test]
fn the_transcript_is_as_long_as_its_parts() {
    let sizes = table(&["Size", "Part"]).columns(["Size"]);
    let fixed: usize = sizes.iter().filter_map(|[size]| size.parse::<usize>().ok()).sum();
    let counted = sizes.iter().filter(|[size]| size == "n").count();
    assert_eq!(counted, 2, "the host and the versions");
    let transcript = &blocks("hex")[1];
    assert_eq!(transcript.len() / 2, fixed + "relay.example".len() + 2);
}

#[test]
fn the_worked_ticket_is_what_an_issuer_signs() {
    let claims = blocks("json")[0].replace(",  ", ",").replace(", ", ",");
    let header = r#"{"alg":"EdDSA","typ":"culvert-ticket+jwt"}"#;
    let encode = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
    let signed = format!("{}.{}", encode(header), encode(&claims));
    let signature = BASE64URL_NOPAD.encode(key(32).sign(signed.as_bytes()).as_ref());
    assert_eq!(blocks("jwt"), [format!("{signed}.{signature}")]);
}

use std::io::{Read, Write};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

use super::*;

/// A session and rustls' own client, which have not said anything yet.
fn strangers(version: &'static SupportedProtocolVersion) -> (Session, ClientConnection) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let client = ClientConnection::new(Arc::new(client), name).unwrap();
    (Session::new(Arc::new(server)).unwrap(), client)
}

/// The same after their handshake, of which the session saw `cut` bytes at a time.
fn acquainted(version: &'static SupportedProtocolVersion, cut: usize) -> (Session, ClientConnection) {
    let (mut session, mut client) = strangers(version);
    while session.is_handshaking() || client.is_handshaking() {
        let hello = said(&mut client);
        assert_eq!(opened(&mut session, &hello, cut).unwrap(), b"");
        let answer = session.outgoing().bytes().to_vec();
        session.outgoing().advance(answer.len());
        assert!(!hello.is_empty() || !answer.is_empty(), "both wait");
        assert_eq!(heard(&mut client, &answer), b"");
    }
    (session, client)
}

/// What the client has to write.
fn said(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// What the client reads out of it.
fn heard(client: &mut ClientConnection, mut bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).unwrap();
        client.process_new_packets().unwrap();
        // "Would block" is how it says that this was all.
        let _ = client.reader().read_to_end(&mut plain);
    }
    plain
}

/// What the session makes of bytes that come `cut` at a time.
fn opened(session: &mut Session, bytes: &[u8], cut: usize) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    for piece in bytes.chunks(cut) {
        let mut wire = vec![0; session.carried()];
        wire.extend_from_slice(piece);
        session.open(&mut wire, |bytes| plain.extend_from_slice(bytes))?;
    }
    Ok(plain)
}

/// What the session writes for these bytes.
fn sealed(session: &mut Session, plain: &[u8]) -> Vec<u8> {
    let mut sealed = vec![0; sealed_len(plain.len())];
    let len = session.seal(plain, &mut sealed).unwrap();
    let mut all = session.outgoing().bytes().to_vec();
    session.outgoing().advance(all.len());
    all.extend_from_slice(&sealed[..len]);
    all
}

#[test]
fn data_passes_both_ways_however_the_records_are_cut() {
    let data: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    for (version, cut) in [(&TLS12, 1), (&TLS13, 1), (&TLS13, 7), (&TLS12, 5000), (&TLS13, 70_000)] {
        let (mut session, mut client) = acquainted(version, cut);
        for part in data.chunks(40_000) {
            client.writer().write_all(part).unwrap();
            let bytes = said(&mut client);
            assert!(opened(&mut session, &bytes, cut).unwrap() == part, "{version:?} {cut}");
            let bytes = sealed(&mut session, part);
            assert!(heard(&mut client, &bytes) == part, "{version:?} {cut}");
        }
        assert_eq!(session.incoming.capacity(), 0, "nothing stays of what was read");
        assert!(session.outgoing.is_empty());
    }
}

#[test]
fn traffic_goes_on_when_the_client_changes_its_keys_and_asks_for_others() {
    for cut in [1, 5000] {
        let (mut session, mut client) = acquainted(&TLS13, cut);
        for _ in 0..3 {
            client.refresh_traffic_keys().unwrap();
            client.writer().write_all(b"question").unwrap();
            let bytes = said(&mut client);
            assert_eq!(opened(&mut session, &bytes, cut).unwrap(), b"question");
            let bytes = sealed(&mut session, b"answer");
            assert_eq!(heard(&mut client, &bytes), b"answer");
        }
    }
}

#[test]
fn what_is_not_tls_is_refused_with_an_alert() {
    let (mut session, _) = strangers(&TLS13);
    assert!(opened(&mut session, b"GET / HTTP/1.1\r\n\r\n", 100).is_err());
    assert_eq!(session.outgoing().bytes().first(), Some(&0x15), "an alert, RFC 8446 section 5.1");
    assert!(session.is_closed());

    let (mut session, mut client) = acquainted(&TLS13, 5000);
    client.writer().write_all(b"true").unwrap();
    let mut forged = said(&mut client);
    *forged.last_mut().unwrap() ^= 1;
    assert!(opened(&mut session, &forged, 5000).is_err());
    assert!(!session.outgoing().is_empty());
}

#[test]
fn each_side_hears_that_the_other_is_done() {
    let (mut session, mut client) = acquainted(&TLS13, 5000);
    client.writer().write_all(b"last words").unwrap();
    client.send_close_notify();
    let bytes = said(&mut client);
    assert_eq!(opened(&mut session, &bytes, 5000).unwrap(), b"last words");
    assert!(session.is_closed());
    session.say_closed();
    let bytes = session.outgoing().bytes().to_vec();
    client.read_tls(&mut &bytes[..]).unwrap();
    assert!(client.process_new_packets().unwrap().peer_has_closed());
}

#[test]
fn sealing_beside_half_a_handshake_message_harms_nothing() {
    let (mut session, mut client) = acquainted(&TLS13, 5000);
    client.refresh_traffic_keys().unwrap();
    let update = said(&mut client);
    let (half, rest) = update.split_at(update.len() / 2);
    assert_eq!(opened(&mut session, half, 5000).unwrap(), b"");
    let bytes = sealed(&mut session, b"meanwhile");
    assert_eq!(heard(&mut client, &bytes), b"meanwhile");
    assert_eq!(opened(&mut session, rest, 5000).unwrap(), b"");
    let bytes = sealed(&mut session, b"after");
    assert_eq!(heard(&mut client, &bytes), b"after");
}

//! Headers as balancers send them, and everything else that can arrive first on a connection.

use proptest::prelude::*;
use proxy_header::{ProxiedAddress, Tlv};

use super::*;

fn encoded(source: SocketAddr, destination: SocketAddr, tlvs: Vec<Tlv<'_>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    ProxyHeader::with_tlvs(Some(ProxiedAddress::stream(source, destination)), tlvs)
        .encode_v2(&mut bytes)
        .unwrap();
    bytes
}

/// A header with these raw parts.
fn raw(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, body].concat()
}

/// Reads from a stream that ends after these bytes; also gives what was left on it.
fn read_all(bytes: &[u8]) -> (Result<Origin, ProxyError>, Vec<u8>) {
    let mut stream = bytes;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let result = runtime.block_on(read(&mut stream));
    (result, stream.to_vec())
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn a_header_from_haproxy_gives_the_source_and_leaves_the_rest() {
    // PROXY, TCP over IPv4, 192.168.1.10:56324 to 10.0.0.2:443, as in the specification's layout.
    let mut bytes = raw(0x21, 0x11, &[192, 168, 1, 10, 10, 0, 0, 2, 0xdc, 0x04, 0x01, 0xbb]);
    bytes.extend_from_slice(b"\x16\x03\x01 client hello");
    let (origin, rest) = read_all(&bytes);
    let peer = Origin::Peer { source: address("192.168.1.10:56324"), destination: address("10.0.0.2:443") };
    assert_eq!(origin.unwrap(), peer);
    assert_eq!(rest, b"\x16\x03\x01 client hello");
}

#[test]
fn extension_fields_are_skipped() {
    let tlvs = vec![Tlv::Authority("relay.example".into()), Tlv::UniqueId(vec![7; 100].into())];
    let bytes = encoded(address("[2001:db8::7]:4000"), address("[2001:db8::1]:443"), tlvs);
    assert!(bytes.len() > 100);
    let (origin, rest) = read_all(&bytes);
    assert!(
        matches!(origin.unwrap(), Origin::Peer { source, .. } if source == address("[2001:db8::7]:4000"))
    );
    assert!(rest.is_empty());
}

#[test]
fn an_ipv4_source_written_as_ipv6_is_ipv4() {
    let bytes = encoded(address("[::ffff:192.0.2.7]:4000"), address("[::ffff:192.0.2.1]:443"), vec![]);
    assert!(
        matches!(read_all(&bytes).0.unwrap(), Origin::Peer { source, .. } if source == address("192.0.2.7:4000"))
    );
}

#[test]
fn health_checks_and_unknown_families_are_the_balancer() {
    for bytes in [
        raw(0x20, 0x00, &[]),
        raw(0x20, 0x11, &[]),
        raw(0x20, 0x21, &[0; 40]),
        raw(0x21, 0x00, &[]),
        raw(0x21, 0x31, &[0; 216]),
    ] {
        let (origin, rest) = read_all(&[&bytes[..], b"GET /"].concat());
        assert_eq!(origin.unwrap(), Origin::Balancer, "{bytes:?}");
        assert_eq!(rest, b"GET /");
    }
}

#[test]
fn version_one_is_refused_with_what_to_do() {
    for header in [&b"PROXY TCP4 192.0.2.7 192.0.2.1 4000 443\r\n"[..], b"PROXY UNKNOWN\r\n"] {
        let error = read_all(header).0.unwrap_err();
        assert!(matches!(error, ProxyError::VersionOne), "{error}");
        assert!(error.to_string().contains("version 2"));
    }
}

#[test]
fn a_connection_without_a_header_is_refused() {
    for first in
        [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"GET /v1/relay HTTP/1.1\r\n", &[0; 64]]
    {
        let first = [first, &[0; 16]].concat();
        assert!(matches!(read_all(&first).0, Err(ProxyError::Missing)));
    }
}

#[test]
fn a_header_that_claims_too_much_is_refused_before_it_is_read() {
    let bytes = [&SIGNATURE[..], &[0x21, 0x11, 0xff, 0xff]].concat();
    assert!(matches!(read_all(&bytes).0, Err(ProxyError::TooLong(65_551))));
    let largest = raw(0x20, 0x00, &vec![0; MAX_HEADER - FIXED_LEN]);
    assert_eq!(read_all(&largest).0.unwrap(), Origin::Balancer);
}

#[test]
fn contradictions_are_refused() {
    for bytes in [
        raw(0x11, 0x11, &[0; 12]),
        raw(0x22, 0x11, &[0; 12]),
        raw(0x21, 0x41, &[0; 12]),
        raw(0x21, 0x11, &[0; 11]),
        raw(0x21, 0x21, &[0; 35]),
        raw(0x21, 0x31, &[0; 215]),
    ] {
        let (origin, _) = read_all(&bytes);
        assert!(matches!(origin, Err(ProxyError::Malformed)), "{bytes:?} gave {origin:?}");
    }
    assert!(matches!(read_all(&raw(0x21, 0x12, &[0; 12])).0, Err(ProxyError::NotStream)));
}

#[test]
fn trusted_sources_are_networks_and_addresses() {
    let sources: TrustedSources = "10.0.0.0/8, 192.0.2.7 ,fd00::/8,".parse().unwrap();
    for (host, trusted) in [
        ("10.255.0.1", true),
        ("11.0.0.1", false),
        ("192.0.2.7", true),
        ("192.0.2.8", false),
        ("::ffff:10.1.2.3", true),
        ("fd12::1", true),
        ("fe80::1", false),
    ] {
        assert_eq!(sources.contains(host.parse().unwrap()), trusted, "{host}");
    }
    assert_eq!(sources.to_string().parse::<TrustedSources>().unwrap(), sources);
    assert!(TrustedSources::default().is_empty());
    let error = "10.0.0.0/8,balancer.example".parse::<TrustedSources>().unwrap_err();
    assert!(error.to_string().contains("`balancer.example`"), "{error}");
}

proptest! {
    #[test]
    fn every_address_survives_and_the_payload_is_untouched(
        v4 in any::<([u8; 4], [u8; 4])>(),
        v6 in any::<([u8; 16], [u8; 16])>(),
        six in any::<bool>(),
        ports in any::<(u16, u16)>(),
        payload in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let (source, destination): (IpAddr, IpAddr) =
            if six { (v6.0.into(), v6.1.into()) } else { (v4.0.into(), v4.1.into()) };
        let (source, destination) = (SocketAddr::new(source, ports.0), SocketAddr::new(destination, ports.1));
        let bytes = [encoded(source, destination, vec![]), payload.clone()].concat();
        let (origin, rest) = read_all(&bytes);
        prop_assert_eq!(
            origin.unwrap(),
            Origin::Peer { source: canonical(source), destination: canonical(destination) }
        );
        prop_assert_eq!(rest, payload);
    }

    #[test]
    fn a_header_cut_anywhere_is_an_error(cut in 0_usize..28) {
        let bytes = encoded(address("192.0.2.7:4000"), address("192.0.2.1:443"), vec![]);
        prop_assert_eq!(bytes.len(), 28);
        prop_assert!(matches!(read_all(&bytes[..cut]).0, Err(ProxyError::Read(_))));
    }

    #[test]
    fn garbage_after_the_signature_never_panics(tail in proptest::collection::vec(any::<u8>(), 0..300)) {
        let bytes = [&SIGNATURE[..], &tail].concat();
        let (origin, rest) = read_all(&bytes);
        if origin.is_ok() {
            let length = usize::from(u16::from_be_bytes([tail[2], tail[3]]));
            prop_assert_eq!(rest.len(), tail.len() - 4 - length);
        }
    }
}

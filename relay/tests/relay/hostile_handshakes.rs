//! Strangers who do not shake hands as the protocol says: each is refused with its code, and nobody
//! else notices.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use culvert_relay::Config;
use culvert_testkit::relay::Embedded;
use culvert_testkit::{HelloOptions, Identity, RawError, RawOptions, RawPeer, raw};
use culvert_wire::{Close, ConnId, Frame, Handle, TopicId, VERSION};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

const TOPIC: TopicId = TopicId([7; 32]);

/// A relay that gives handshakes half a second.
async fn hasty() -> Result<Embedded> {
    let mut config = Embedded::config();
    config.timing.handshake = Duration::from_millis(500);
    Embedded::start(config).await
}

async fn connect(relay: &Embedded) -> RawPeer {
    RawPeer::connect(relay.addr(), &relay.raw()).await.unwrap()
}

/// The node is as good as new: a peer gets in and hears itself answered.
async fn is_well(relay: &Embedded) {
    let mut peer = connect(relay).await;
    peer.hello(&HelloOptions::new(&Identity::random().unwrap())).await.unwrap();
    peer.join(TOPIC).await.unwrap();
    peer.sync(1).await.unwrap();
}

/// How the relay ends a connection whose hello is this.
async fn refused(relay: &Embedded, hello: &HelloOptions) -> Close {
    let error = connect(relay).await.hello(hello).await.unwrap_err();
    error.close().unwrap_or_else(|| panic!("{error}"))
}

#[tokio::test]
async fn bytes_that_are_no_http_are_dropped_and_nobody_else_notices() {
    let relay = hasty().await.unwrap();
    let garbage: [&[u8]; 4] = [b"\x16\x03\x01\x02\x00\x01\x00", b"\0\0\0\0\r\n\r\n", &[0xff; 70_000], b"GET"];
    for bytes in garbage {
        let mut stream = raw::dial(relay.addr(), &relay.raw()).await.unwrap();
        // The relay may hang up before it has read everything.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer));
        let _ = read.await.expect("the relay hangs up");
        assert!(!answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    }
    is_well(&relay).await;
}

#[tokio::test]
async fn a_path_or_subprotocol_that_does_not_exist_is_refused_over_http() {
    let relay = Embedded::open().await.unwrap();
    let elsewhere = RawOptions { path: "/v2/relay".into(), ..relay.raw() };
    let another = RawOptions { subprotocol: Some("chat".into()), ..relay.raw() };
    let none = RawOptions { subprotocol: None, ..relay.raw() };
    for (options, status) in [(elsewhere, 404), (another, 400), (none, 400)] {
        let error = RawPeer::connect(relay.addr(), &options).await.err().unwrap();
        assert!(matches!(error, RawError::Status(got) if got == status), "{error}");
    }
}

#[tokio::test]
async fn a_handshake_cut_off_half_way_frees_its_place_at_the_deadline() {
    let mut config = Embedded::config();
    config.timing.handshake = Duration::from_millis(500);
    config.limits.handshakes_pending = 8;
    let relay = Embedded::start(config).await.unwrap();
    let mut halves = Vec::new();
    for _ in 0..8 {
        let mut stream = raw::dial(relay.addr(), &relay.raw()).await.unwrap();
        stream.write_all(b"GET /v1/relay HTTP/1.1\r\nHost: loc").await.unwrap();
        halves.push(stream);
    }
    for stream in &mut halves {
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer));
        let _ = read.await.expect("the relay hangs up at its deadline");
    }
    is_well(&relay).await;
}

#[tokio::test]
async fn a_client_that_never_answers_the_challenge_is_closed_as_handshake_timeout() {
    let relay = hasty().await.unwrap();
    let mut silent = connect(&relay).await;
    assert_eq!(silent.closed().await.unwrap(), Close::HandshakeTimeout);
    is_well(&relay).await;
}

#[tokio::test]
async fn anything_but_a_hello_in_its_place_is_a_protocol_error() {
    let relay = Embedded::open().await.unwrap();
    let too_early = [
        Frame::Join { topic: TOPIC },
        Frame::Ping { token: 1, padding: Bytes::new() },
        Frame::Send {
            class: culvert_wire::Class::Normal,
            handle: Handle(1),
            to: ConnId(1),
            payload: Bytes::new(),
        },
    ];
    for frame in too_early {
        let mut peer = connect(&relay).await;
        peer.send(&frame).await.unwrap();
        assert_eq!(peer.closed().await.unwrap(), Close::Protocol, "{frame:?}");
    }
    let mut texting = connect(&relay).await;
    texting.send_message(Message::Text("hello".into())).await.unwrap();
    assert_eq!(texting.closed().await.unwrap(), Close::Protocol);
    let mut cut_short = connect(&relay).await;
    let hello = Frame::Hello(Box::new(cut_short.sign(&HelloOptions::new(&Identity::random().unwrap()))));
    let hello = hello.encode().unwrap();
    cut_short.send_bytes(hello.slice(..hello.len() - 1)).await.unwrap();
    assert_eq!(cut_short.closed().await.unwrap(), Close::Protocol);
}

#[tokio::test]
async fn a_kind_of_a_later_version_before_the_hello_is_skipped() {
    let relay = Embedded::open().await.unwrap();
    let mut peer = connect(&relay).await;
    peer.send(&Frame::Unknown { kind: 0x7f }).await.unwrap();
    peer.hello(&HelloOptions::new(&Identity::random().unwrap())).await.unwrap();
}

#[tokio::test]
async fn a_version_that_was_not_offered_is_refused_as_version() {
    let relay = Embedded::open().await.unwrap();
    let hello = HelloOptions::new(&Identity::random().unwrap());
    assert_eq!(refused(&relay, &hello.clone().version(VERSION + 1)).await, Close::Version);
    assert_eq!(refused(&relay, &hello.version(0)).await, Close::Version);
}

#[tokio::test]
async fn a_hello_for_another_host_is_refused_as_wrong_host() {
    let relay = Embedded::open().await.unwrap();
    let hello = HelloOptions::new(&Identity::random().unwrap());
    for host in ["relay.example", "", "localhost.", "127.0.0.2"] {
        assert_eq!(refused(&relay, &hello.clone().host(host)).await, Close::WrongHost, "{host:?}");
    }
}

#[tokio::test]
async fn a_signature_over_anything_else_is_refused_as_bad_signature() {
    let relay = Embedded::open().await.unwrap();
    let (anna, ben) = (Identity::random().unwrap(), Identity::random().unwrap());
    let spoilers: [fn(&mut culvert_wire::Hello); 5] = [
        |hello| hello.signature[0] ^= 1,
        |hello| hello.nonce[31] ^= 1,
        |hello| hello.generation.0 += 1,
        |hello| hello.replaces = ConnId(9),
        |hello| hello.signature = [0; 64],
    ];
    for spoil in spoilers {
        let mut peer = connect(&relay).await;
        let mut hello = peer.sign(&HelloOptions::new(&anna));
        spoil(&mut hello);
        assert_eq!(peer.hello_with(hello).await.unwrap_err().close(), Some(Close::BadSignature));
    }
    let mut peer = connect(&relay).await;
    let mut hello = peer.sign(&HelloOptions::new(&anna));
    hello.peer = ben.peer();
    assert_eq!(peer.hello_with(hello).await.unwrap_err().close(), Some(Close::BadSignature));
}

#[tokio::test]
async fn a_replayed_hello_is_refused_because_the_challenge_is_another() {
    let relay = Embedded::open().await.unwrap();
    let mut first = connect(&relay).await;
    let hello = first.sign(&HelloOptions::new(&Identity::random().unwrap()));
    first.hello_with(hello.clone()).await.unwrap();
    let mut second = connect(&relay).await;
    assert_ne!(first.challenge().nonce, second.challenge().nonce);
    assert_eq!(second.hello_with(hello).await.unwrap_err().close(), Some(Close::BadSignature));
    first.sync(1).await.expect("the first connection is not concerned");
}

#[tokio::test]
async fn a_second_hello_is_a_protocol_error() {
    let relay = Embedded::open().await.unwrap();
    let mut peer = connect(&relay).await;
    let hello = peer.sign(&HelloOptions::new(&Identity::random().unwrap()));
    peer.hello_with(hello.clone()).await.unwrap();
    peer.send(&Frame::Hello(Box::new(hello))).await.unwrap();
    assert_eq!(peer.closed().await.unwrap(), Close::Protocol);
}

/// A relay that passes a real relay's challenge on to its own victim gets a hello for its own name, which
/// the real relay refuses; and if it writes the real name into it, the signature no longer holds.
#[tokio::test]
async fn a_rogue_relay_that_passes_a_real_relays_challenge_on_is_refused_there() {
    let config = Config { names: vec!["real.example".into()], ..Embedded::config() };
    let real = Embedded::start(config).await.unwrap();
    let victim = Identity::random().unwrap();
    let as_rogue = RawOptions::plain("real.example");

    let mut rogue = RawPeer::connect(real.addr(), &as_rogue).await.unwrap();
    let given_to_rogue = HelloOptions::new(&victim).sign(rogue.challenge(), "rogue.example");
    assert_eq!(rogue.hello_with(given_to_rogue).await.unwrap_err().close(), Some(Close::WrongHost));

    let mut rogue = RawPeer::connect(real.addr(), &as_rogue).await.unwrap();
    let mut renamed = HelloOptions::new(&victim).sign(rogue.challenge(), "rogue.example");
    renamed.host = "real.example".into();
    assert_eq!(rogue.hello_with(renamed).await.unwrap_err().close(), Some(Close::BadSignature));

    let mut direct = RawPeer::connect(real.addr(), &as_rogue).await.unwrap();
    direct.hello(&HelloOptions::new(&victim)).await.expect("the victim itself is welcome");
}

#[tokio::test]
async fn a_message_larger_than_a_frame_is_closed_as_too_large_before_and_after_the_hello() {
    let relay = Embedded::open().await.unwrap();
    let oversized = Bytes::from(vec![0x16; culvert_wire::limits::MAX_FRAME + 1]);
    let mut before = connect(&relay).await;
    before.send_bytes(oversized.clone()).await.unwrap();
    assert_eq!(before.closed().await.unwrap(), Close::TooLarge);

    let mut after = connect(&relay).await;
    after.hello(&HelloOptions::new(&Identity::random().unwrap())).await.unwrap();
    after.send_bytes(oversized).await.unwrap();
    assert_eq!(after.closed().await.unwrap(), Close::TooLarge);
}

#[tokio::test]
async fn a_header_that_promises_gigabytes_is_refused_before_any_of_them_is_read() {
    let relay = Embedded::open().await.unwrap();
    let mut peer = connect(&relay).await;
    peer.hello(&HelloOptions::new(&Identity::random().unwrap())).await.unwrap();
    // RFC 6455 section 5.2: final, binary, masked, 64-bit length of 4 GiB, mask.
    let mut header = vec![0x82, 0xff];
    header.extend_from_slice(&(4u64 << 30).to_be_bytes());
    header.extend_from_slice(&[0; 4]);
    peer.write_raw(&header).await.unwrap();
    assert_eq!(peer.closed().await.unwrap(), Close::TooLarge);
}

#[tokio::test]
async fn bytes_that_are_no_websocket_frame_after_the_hello_are_a_protocol_error() {
    let relay = Embedded::open().await.unwrap();
    let mut peer = connect(&relay).await;
    peer.hello(&HelloOptions::new(&Identity::random().unwrap())).await.unwrap();
    peer.write_raw(&[0xff; 64]).await.unwrap();
    assert_eq!(peer.closed().await.unwrap(), Close::Protocol);
    is_well(&relay).await;
}

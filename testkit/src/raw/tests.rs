//! The raw peer against a relay of a few lines, which knows the handshake and one trick per test.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use culvert_wire::{Generation, JoinRefusal, Member, NodeId, PeerId, Transcript, VERSIONS};
use tokio::io::duplex;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

use super::*;
use crate::identity::Identity;

type Server = WebSocketStream<tokio::io::DuplexStream>;

const TOPIC: TopicId = TopicId([3; 32]);

fn options() -> RawOptions {
    RawOptions::plain("relay.example").deadline(Duration::from_secs(5))
}

/// Both ends of an upgraded connection; the server has sent its challenge.
async fn pair() -> (RawPeer, Server, Challenge) {
    let (near, far) = duplex(64 * 1024);
    #[expect(clippy::result_large_err, reason = "the signature is the library's")]
    let echo_subprotocol = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        let offered = request.headers()["sec-websocket-protocol"].clone();
        response.headers_mut().insert("sec-websocket-protocol", offered);
        Ok(response)
    };
    let options = options();
    let (client, server) = tokio::join!(
        RawPeer::over(Box::new(near), &options),
        tokio_tungstenite::accept_hdr_async(far, echo_subprotocol)
    );
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    let challenge = Challenge { nonce: [9; 32], node: NodeId(1), versions: VERSIONS.to_vec() };
    put(&mut server, &Frame::Challenge(challenge.clone())).await;
    client.read_challenge().await.unwrap();
    (client, server, challenge)
}

async fn put(server: &mut Server, frame: &Frame) {
    server.send(Message::Binary(frame.encode().unwrap())).await.unwrap();
}

async fn take(server: &mut Server) -> Frame {
    Frame::decode(server.next().await.unwrap().unwrap().into_data()).unwrap()
}

#[tokio::test]
async fn the_hello_is_signed_over_the_handshake_and_proves_the_access_token() {
    let (client, mut server, challenge) = pair().await;
    let identity = Identity::random().unwrap();
    let mut sender = client;
    let sent = sender.sign(&HelloOptions::new(&identity).access_token("open sesame").generation(4));
    sender.send(&Frame::Hello(Box::new(sent.clone()))).await.unwrap();
    let Frame::Hello(hello) = take(&mut server).await else { panic!("not a hello") };
    assert_eq!(*hello, sent);
    assert_eq!((hello.host.as_str(), hello.generation), ("relay.example", Generation(4)));
    let transcript = Transcript::of(&challenge, &hello);
    let key = UnparsedPublicKey::new(&ED25519, hello.peer.0);
    assert!(key.verify(&transcript.signed(&hello.admission), &hello.signature).is_ok());
    let culvert_wire::Admission::AccessToken(mac) = &hello.admission else { panic!("no token") };
    let hmac = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"open sesame");
    assert!(aws_lc_rs::hmac::verify(&hmac, &transcript.bytes(), mac).is_ok());
}

#[tokio::test]
async fn a_join_keeps_what_comes_before_its_answer_in_order() {
    let (mut client, mut server, _) = pair().await;
    let member = Member { conn: ConnId(5), peer: PeerId([5; 32]), generation: Generation(1) };
    let early = [Frame::Gap { from: None, count: 1 }, Frame::PeerJoined { handle: Handle(1), member }];
    let relay = async {
        assert_eq!(take(&mut server).await, Frame::Join { topic: TOPIC });
        for frame in &early {
            put(&mut server, frame).await;
        }
        let members = Members { total: 1, degraded: false, list: vec![member] };
        put(&mut server, &Frame::Joined { handle: Handle(2), topic: TOPIC, members }).await;
    };
    let (joined, ()) = tokio::join!(client.join(TOPIC), relay);
    let (handle, members) = joined.unwrap();
    assert_eq!((handle, members.total), (Handle(2), 1));
    assert_eq!([client.recv().await.unwrap(), client.recv().await.unwrap()], early);
}

#[tokio::test]
async fn a_refused_join_says_why() {
    let (mut client, mut server, _) = pair().await;
    put(&mut server, &Frame::JoinRefused { topic: TOPIC, refusal: JoinRefusal::TooManyTopics }).await;
    let refused = client.join(TOPIC).await.unwrap_err();
    assert!(matches!(refused, RawError::Refused(JoinRefusal::TooManyTopics)), "{refused}");
}

#[tokio::test]
async fn the_relays_close_code_reaches_the_test_and_a_cut_is_told_apart() {
    let (mut client, mut server, _) = pair().await;
    let frame = CloseFrame { code: Close::WrongHost.code().into(), reason: "no".into() };
    server.close(Some(frame)).await.unwrap();
    assert_eq!(client.closed().await.unwrap(), Close::WrongHost);

    let (mut client, server, _) = pair().await;
    drop(server);
    let cut = client.recv().await.unwrap_err();
    assert!(matches!(cut, RawError::Dropped(_)), "{cut}");
    assert_eq!(cut.close(), None);
}

#[tokio::test(start_paused = true)]
async fn silence_ends_at_the_deadline() {
    let (mut client, _server, _) = pair().await;
    let silence = client.recv().await.unwrap_err();
    assert!(matches!(silence, RawError::Deadline { .. }), "{silence}");
}

#[tokio::test]
async fn an_answer_other_than_101_shows_its_status() {
    let (near, mut far) = duplex(1024);
    let options = options();
    let answer = async {
        let mut request = [0; 1024];
        tokio::io::AsyncReadExt::read(&mut far, &mut request).await.unwrap();
        far.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    };
    let (refused, ()) = tokio::join!(RawPeer::over(Box::new(near), &options), answer);
    assert!(matches!(refused.err(), Some(RawError::Status(404))));
}

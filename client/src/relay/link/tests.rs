//! A scripted relay, good and bad, over a pipe.

use super::*;
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use culvert_wire::limits::MAX_FRAME;
use culvert_wire::{Members, NodeId, TopicId};
use futures_util::future::poll_fn;
use tokio::io::DuplexStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

type Relay = WebSocketStream<DuplexStream>;

const HOST: &str = "relay.example";
const LIMIT: Duration = Duration::from_secs(10);

async fn sockets() -> (Socket, Relay) {
    let (ours, theirs) = tokio::io::duplex(256 * 1024);
    let config = WebSocketConfig::default().max_message_size(Some(MAX_FRAME)).max_frame_size(Some(MAX_FRAME));
    let ours: crate::dial::BoxedStream = Box::new(ours);
    (
        WebSocketStream::from_raw_socket(ours, Role::Client, Some(config)).await,
        WebSocketStream::from_raw_socket(theirs, Role::Server, None).await,
    )
}

fn challenge() -> Challenge {
    Challenge { nonce: [7; 32], node: NodeId(3), versions: vec![VERSION] }
}

fn welcome() -> Welcome {
    Welcome {
        conn: ConnId(9),
        version: VERSION,
        max_payload: u32::try_from(MAX_PAYLOAD).unwrap(),
        queue_bytes: 1 << 20,
        max_topics: 8,
        frames_per_second: 0,
        bytes_per_second: 0,
        keepalive_ms: 15_000,
        idle_timeout_ms: 45_000,
        expires_at: 0,
    }
}

fn binary(frame: &Frame) -> Message {
    Message::Binary(frame.encode().unwrap())
}

/// The client's side of a handshake in which the relay says `answers`, one after each thing it hears.
async fn handshake(answers: Vec<Message>) -> Result<Link, LinkError> {
    let (socket, mut relay) = sockets().await;
    let script = async {
        for answer in answers {
            relay.send(answer).await.unwrap();
        }
        relay
    };
    let identity = Identity::from_seed(&[1; 32]);
    let introduction = Introduction {
        identity: &identity,
        admission: &AdmissionSource::None,
        generation: Generation(1),
        replaces: ConnId::NONE,
    };
    let deadline = Instant::now() + LIMIT;
    // The relay's end stays open: it is silent, not gone.
    let (link, _relay) = tokio::join!(Link::introduce(socket, HOST, introduction, deadline), script);
    link
}

async fn opened() -> (Link, Relay) {
    let (socket, mut relay) = sockets().await;
    relay.send(binary(&Frame::Challenge(challenge()))).await.unwrap();
    relay.send(binary(&Frame::Welcome(welcome()))).await.unwrap();
    let identity = Identity::from_seed(&[1; 32]);
    let introduction = Introduction {
        identity: &identity,
        admission: &AdmissionSource::None,
        generation: Generation(1),
        replaces: ConnId::NONE,
    };
    let link = Link::introduce(socket, HOST, introduction, Instant::now() + LIMIT).await.unwrap();
    heard(&mut relay).await;
    (link, relay)
}

async fn heard(relay: &mut Relay) -> Frame {
    loop {
        if let Message::Binary(bytes) = relay.next().await.unwrap().unwrap() {
            return Frame::decode(bytes).unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_says_anything_else_in_the_handshake_is_refused() {
    let good = || binary(&Frame::Challenge(challenge()));
    let with = |change: fn(&mut Welcome)| {
        let mut welcome = welcome();
        change(&mut welcome);
        binary(&Frame::Welcome(welcome))
    };
    let other_version = Challenge { versions: vec![2, 3], ..challenge() };
    let cases = [
        (vec![Message::Binary(vec![0x01; 5].into())], "shorter than its fields"),
        (vec![Message::Binary(vec![0x01; MAX_FRAME + 1].into())], "longer than a frame can be"),
        (vec![Message::text("hello")], "it sent text"),
        (vec![with(|_| ())], "`welcome` where a challenge belongs"),
        (vec![good(), good()], "`challenge` where a welcome belongs"),
        (vec![binary(&Frame::Challenge(other_version))], "speaks protocol versions [2, 3]"),
        (vec![good(), with(|w| w.version = 2)], "another version than was chosen"),
        (vec![good(), with(|w| w.conn = ConnId::NONE)], "it gives no address"),
        (vec![good(), with(|w| w.max_topics = 0)], "it allows no topic"),
        (vec![good(), with(|w| w.max_payload = 100)], "smaller payloads"),
        (vec![], "did not send its challenge in time"),
        (vec![good()], "did not answer the hello in time"),
    ];
    for (answers, sentence) in cases {
        let error = handshake(answers).await.err().expect(sentence).to_string();
        assert!(error.contains(sentence), "{error}");
    }
}

#[tokio::test]
async fn frames_of_later_versions_are_skipped() {
    let unknown = binary(&Frame::Unknown { kind: 0x7f });
    let challenge = binary(&Frame::Challenge(challenge()));
    handshake(vec![unknown.clone(), challenge, unknown, binary(&Frame::Welcome(welcome()))]).await.unwrap();
}

#[tokio::test]
async fn every_close_code_is_told_in_its_own_words_and_decides_about_coming_back() {
    for close in Close::ALL {
        let frame = CloseFrame { code: close.code().into(), reason: "something else\u{1b}[2J".into() };
        let error = handshake(vec![Message::Close(Some(frame))]).await.err().unwrap();
        assert!(error.to_string().contains(close.sentence()), "{error}");
        assert_eq!(error.may_reconnect(), close.may_reconnect());
    }
    let frame = CloseFrame { code: 4321.into(), reason: "later\u{1b}[2J".into() };
    let error = handshake(vec![Message::Close(Some(frame))]).await.err().unwrap().to_string();
    assert_eq!(error, "the relay closed the connection with code 4321: later[2J", "no control characters");
}

/// A rogue relay that was dialled as `rogue.example` and shows the challenge of a real one.
#[tokio::test]
async fn a_challenge_that_is_passed_on_gets_a_hello_for_the_host_that_was_dialled() {
    let (socket, mut rogue) = sockets().await;
    let identity = Identity::from_seed(&[1; 32]);
    let introduction = Introduction {
        identity: &identity,
        admission: &AdmissionSource::None,
        generation: Generation(1),
        replaces: ConnId::NONE,
    };
    let deadline = Instant::now() + LIMIT;
    let script = async {
        rogue.send(binary(&Frame::Challenge(challenge()))).await.unwrap();
        let hello = heard(&mut rogue).await;
        rogue.close(None).await.unwrap();
        hello
    };
    let (link, hello) =
        tokio::join!(Link::introduce(socket, "rogue.example", introduction, deadline), script);
    assert!(link.is_err());
    let Frame::Hello(hello) = hello else { panic!("{hello:?}") };
    let challenge = challenge();
    let key = UnparsedPublicKey::new(&ED25519, hello.peer.0);
    let honest = Transcript::of(&challenge, &hello);
    key.verify(&honest.signed(&hello.admission), &hello.signature).unwrap();
    let passed_on = Transcript { host: "real.example", ..honest };
    assert!(key.verify(&passed_on.signed(&hello.admission), &hello.signature).is_err());
}

#[tokio::test]
async fn the_access_token_signs_and_never_travels() {
    let (socket, mut relay) = sockets().await;
    let identity = Identity::from_seed(&[1; 32]);
    let admission = AdmissionSource::AccessToken(crate::AccessToken::new("open sesame"));
    let introduction = Introduction {
        identity: &identity,
        admission: &admission,
        generation: Generation(5),
        replaces: ConnId(6),
    };
    let script = async {
        relay.send(binary(&Frame::Challenge(challenge()))).await.unwrap();
        let Some(Ok(Message::Binary(bytes))) = relay.next().await else { panic!("no hello") };
        relay.send(binary(&Frame::Welcome(welcome()))).await.unwrap();
        bytes
    };
    let deadline = Instant::now() + LIMIT;
    let (link, bytes) = tokio::join!(Link::introduce(socket, HOST, introduction, deadline), script);
    link.unwrap();
    assert!(!bytes.windows(11).any(|window| window == b"open sesame"));
    let Frame::Hello(hello) = Frame::decode(bytes).unwrap() else { panic!("no hello") };
    let Admission::AccessToken(mac) = &hello.admission else { panic!("{:?}", hello.admission) };
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"open sesame");
    let challenge = challenge();
    aws_lc_rs::hmac::verify(&key, &Transcript::of(&challenge, &hello).bytes(), mac).unwrap();
    assert_eq!((hello.generation, hello.replaces), (Generation(5), ConnId(6)));
}

#[tokio::test]
async fn a_ticket_that_cannot_be_had_is_said() {
    let (socket, mut relay) = sockets().await;
    relay.send(binary(&Frame::Challenge(challenge()))).await.unwrap();
    let source: crate::options::TicketSource =
        std::sync::Arc::new(|| Box::pin(async { anyhow::bail!("the issuer is closed") }));
    let introduction = Introduction {
        identity: &Identity::from_seed(&[1; 32]),
        admission: &AdmissionSource::TicketSource(source),
        generation: Generation(1),
        replaces: ConnId::NONE,
    };
    let error = Link::introduce(socket, HOST, introduction, Instant::now() + LIMIT).await.err().unwrap();
    assert_eq!(error.to_string(), "no admission ticket: the issuer is closed");
}

#[tokio::test(start_paused = true)]
async fn a_link_with_nothing_to_say_pings_within_the_interval_and_a_deaf_one_is_given_up() {
    let (mut link, mut relay) = opened().await;
    let start = Instant::now();
    let mut pings = 0;
    let ended = loop {
        tokio::time::sleep_until(link.next_tick()).await;
        if let Some(LinkEvent::Ended(error)) = link.tick(Instant::now()) {
            break error;
        }
        let event = poll_fn(|cx| link.poll(cx)).await;
        assert!(matches!(event, LinkEvent::Flushed), "{event:?}");
        assert!(matches!(heard(&mut relay).await, Frame::Ping { .. }));
        pings += 1;
    };
    assert!(ended.to_string().contains("nothing came for"), "{ended}");
    assert!((2..=4).contains(&pings), "{pings}");
    assert!(start.elapsed() <= Duration::from_secs(60), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_link_in_doubt_asks_and_lives_on_if_anything_comes_in_time() {
    let (after, answer) = (Duration::from_secs(3), Duration::from_secs(5));
    let (mut link, mut relay) = opened().await;
    link.doubt(after, answer);
    assert!(link.doubted.is_none(), "the welcome came just now");
    for _ in 0..2 {
        tokio::time::advance(after).await;
        link.doubt(after, answer);
        link.doubt(after, answer);
        assert!(matches!(poll_fn(|cx| link.poll(cx)).await, LinkEvent::Flushed));
        let Frame::Ping { token, padding } = heard(&mut relay).await else { panic!("no ping") };
        tokio::time::advance(answer / 2).await;
        relay.send(binary(&Frame::Pong { token, padding })).await.unwrap();
        assert!(matches!(poll_fn(|cx| link.poll(cx)).await, LinkEvent::Pong));
        tokio::time::advance(answer / 2).await;
        assert!(link.tick(Instant::now()).is_none(), "it answered");
    }
    let silent_since = Instant::now();
    tokio::time::advance(after).await;
    link.doubt(after, answer);
    assert!(link.tick(Instant::now()).is_none());
    let ended = loop {
        tokio::time::sleep_until(link.next_tick()).await;
        if let Some(LinkEvent::Ended(error)) = link.tick(Instant::now()) {
            break error.to_string();
        }
    };
    assert!(ended.contains("nothing came for"), "{ended}");
    assert_eq!(silent_since.elapsed(), after + answer);
}

#[tokio::test]
async fn only_the_whole_echo_counts() {
    let (mut link, mut relay) = opened().await;
    link.ping(5, Bytes::from_static(b"padding"));
    assert!(matches!(poll_fn(|cx| link.poll(cx)).await, LinkEvent::Flushed));
    let Frame::Ping { token, padding } = heard(&mut relay).await else { panic!("no ping") };
    for (token, padding, echoed) in
        [(4, padding.clone(), false), (token, Bytes::new(), false), (token, padding, true)]
    {
        relay.send(binary(&Frame::Pong { token, padding })).await.unwrap();
        assert!(matches!(poll_fn(|cx| link.poll(cx)).await, LinkEvent::Pong));
        assert_eq!(link.echoed(), echoed);
    }
}

#[tokio::test]
async fn a_relay_that_speaks_out_of_turn_ends_the_link_and_nothing_else() {
    let topic = TopicId([0; 32]);
    let joined = Frame::Joined { handle: Handle(1), topic, members: Members::default() };
    let cases = [
        (binary(&joined), None),
        (binary(&Frame::Welcome(welcome())), Some("`welcome` where a frame of a relay belongs")),
        (binary(&Frame::Join { topic }), Some("`join` where a frame of a relay belongs")),
        (Message::Binary(vec![0x24, 3, 0, 0].into()), Some("shorter than its fields")),
        (Message::text("x"), Some("it sent text")),
        (Message::Binary(vec![0; MAX_FRAME + 1].into()), Some("longer than a frame can be")),
    ];
    for (message, problem) in cases {
        let (mut link, mut relay) = opened().await;
        relay.send(message).await.unwrap();
        match (poll_fn(|cx| link.poll(cx)).await, problem) {
            (LinkEvent::Frame(_), None) => {}
            (LinkEvent::Ended(error), Some(problem)) => {
                assert!(error.to_string().contains(problem), "{error}");
            }
            (event, _) => panic!("{event:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_fed_is_bounded_and_goes_out_in_one_flush() {
    let (mut link, mut relay) = opened().await;
    let payload = vec![5; MAX_PAYLOAD];
    let mut fed = 0;
    while link.has_room() {
        link.send_payload(Class::Bulk, Handle(1), ConnId(2), &payload);
        fed += 1;
    }
    assert!((WRITE_BUFFER / MAX_PAYLOAD..=WRITE_BUFFER / MAX_PAYLOAD + 1).contains(&fed), "{fed}");
    assert!(matches!(poll_fn(|cx| link.poll(cx)).await, LinkEvent::Flushed));
    assert!(link.has_room());
    for _ in 0..fed {
        let Frame::Send { class, handle, to, payload: got } = heard(&mut relay).await else { panic!() };
        assert_eq!(
            (class, handle, to, got.as_ref()),
            (Class::Bulk, Handle(1), ConnId(2), payload.as_slice())
        );
    }
}

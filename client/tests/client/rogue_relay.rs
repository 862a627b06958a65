//! Relays, and things that pose as one, that do what they should not: the client ends with a sentence,
//! in time, and within its bounds.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use culvert_client::{
    RelayOptions, RelayTransport, SyncBroadcaster, SyncEvent, Transport, TransportConfig, TransportMode,
};
use culvert_wire::limits::MAX_PAYLOAD;
use culvert_wire::{
    Challenge, Class, Close, ConnId, Frame, Generation, Handle, Member, Members, NodeId, PeerId, SUBPROTOCOL,
    TopicId, VERSION, Welcome,
};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};

const TOPIC: [u8; 32] = [3; 32];
const LIMIT: Duration = Duration::from_millis(800);

/// Serves every connection with `script`; gives a transport that dials it.
async fn against<F>(script: impl Fn(TcpStream) -> F + Send + 'static) -> Result<(RelayTransport, JoinSet<()>)>
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("ws://{}", listener.local_addr()?);
    let mut server = JoinSet::new();
    server.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(script(stream));
        }
    });
    Ok((transport(url, RelayOptions::default())?, server))
}

fn transport(url: String, options: RelayOptions) -> Result<RelayTransport> {
    let config = TransportConfig {
        mode: TransportMode::Relay,
        relay_url: Some(url),
        timeout_ms: LIMIT.as_millis().try_into()?,
        ..Default::default()
    };
    Ok(RelayTransport::new(config, options)?)
}

async fn refusal<F>(script: impl Fn(TcpStream) -> F + Send + 'static) -> Result<String>
where
    F: Future<Output = ()> + Send + 'static,
{
    let (mut transport, _server) = against(script).await?;
    let start = Instant::now();
    let error = transport.connect_relay(TOPIC).await.unwrap_err().to_string();
    assert!(start.elapsed() < LIMIT * 4, "{:?}: {error}", start.elapsed());
    Ok(error)
}

/// Answers the request with these bytes and keeps the connection open.
async fn answer(mut stream: TcpStream, bytes: &'static [u8]) {
    let mut request = [0; 4096];
    let _ = stream.read(&mut request).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    std::future::pending::<()>().await;
}

async fn websocket(stream: TcpStream) -> WebSocketStream<TcpStream> {
    #[expect(clippy::result_large_err, reason = "the signature is tungstenite's")]
    let agree = |_: &Request, mut response: Response| {
        response.headers_mut().insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
        Ok(response)
    };
    tokio_tungstenite::accept_hdr_async(stream, agree).await.unwrap()
}

async fn say(socket: &mut WebSocketStream<TcpStream>, frame: &Frame) -> bool {
    socket.send(Message::Binary(frame.encode().unwrap())).await.is_ok()
}

/// Lets anyone in, up to the welcome.
async fn welcoming(stream: TcpStream) -> WebSocketStream<TcpStream> {
    let mut socket = websocket(stream).await;
    let challenge = Challenge { nonce: [1; 32], node: NodeId(1), versions: vec![VERSION] };
    say(&mut socket, &Frame::Challenge(challenge)).await;
    socket.next().await.unwrap().unwrap();
    let welcome = Welcome {
        conn: ConnId(1),
        version: VERSION,
        max_payload: u32::try_from(MAX_PAYLOAD).unwrap(),
        queue_bytes: 1 << 20,
        max_topics: 1,
        frames_per_second: 0,
        bytes_per_second: 0,
        keepalive_ms: 15_000,
        idle_timeout_ms: 45_000,
        expires_at: 0,
    };
    say(&mut socket, &Frame::Welcome(welcome)).await;
    socket
}

#[tokio::test]
async fn whatever_is_no_relay_is_told_apart() -> Result<()> {
    let silent = |stream: TcpStream| async move {
        let _kept = stream;
        std::future::pending::<()>().await;
    };
    let error = refusal(silent).await?;
    assert!(error.contains("the WebSocket upgrade took longer than"), "{error}");
    let cases: [(&'static [u8], &str); 5] = [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "is this a Culvert relay's URL?"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://login\r\nContent-Length: 0\r\n\r\n", "log in first"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "answered 200 instead of opening a WebSocket"),
        (b"SSH-2.0-OpenSSH_9\r\n", "broke off the WebSocket upgrade"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "answered 503"),
    ];
    for (bytes, sentence) in cases {
        let error = refusal(move |stream| answer(stream, bytes)).await?;
        assert!(error.contains(sentence), "{error}");
    }
    let other = |stream: TcpStream| async move {
        let _socket = tokio_tungstenite::accept_async(stream).await;
        std::future::pending::<()>().await;
    };
    let error = refusal(other).await?;
    assert!(error.contains("does not speak culvert.relay.v1"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_relay_that_stops_answering_is_given_up_in_time() -> Result<()> {
    let no_challenge = |stream: TcpStream| async move {
        let _socket = websocket(stream).await;
        std::future::pending::<()>().await;
    };
    let error = refusal(no_challenge).await?;
    assert!(error.contains("did not send its challenge in time"), "{error}");
    let no_topic = |stream: TcpStream| async move {
        let _socket = welcoming(stream).await;
        std::future::pending::<()>().await;
    };
    let error = refusal(no_topic).await?;
    assert!(error.contains("did not let this peer into the topic in time"), "{error}");
    let other_topic = |stream: TcpStream| async move {
        let mut socket = welcoming(stream).await;
        let topic = TopicId([4; 32]);
        say(&mut socket, &Frame::Joined { handle: Handle(1), topic, members: Members::default() }).await;
        std::future::pending::<()>().await;
    };
    let error = refusal(other_topic).await?;
    assert!(error.contains("did not let this peer into the topic in time"), "{error}");
    Ok(())
}

/// Lets the peer into the topic, then closes the connection with this code.
async fn closing(stream: TcpStream, code: u16) {
    let mut socket = welcoming(stream).await;
    let topic = TopicId(TOPIC);
    say(&mut socket, &Frame::Joined { handle: Handle(1), topic, members: Members::default() }).await;
    // The join, so that the client reads the answer before the end.
    socket.next().await.unwrap().unwrap();
    let frame = CloseFrame { code: code.into(), reason: "a relay's words".into() };
    // The client may be gone first.
    let _ = socket.close(Some(frame)).await;
    while let Some(Ok(_)) = socket.next().await {}
}

#[tokio::test]
async fn every_close_says_whether_to_come_back_and_the_end_says_why() -> Result<()> {
    for close in Close::ALL {
        let opened = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&opened);
        let (unheard, _server) = against(move |stream| {
            count.fetch_add(1, Ordering::SeqCst);
            closing(stream, close.code())
        })
        .await?;
        let hub = SyncBroadcaster::default();
        let mut events = hub.subscribe();
        let options = RelayOptions { broadcaster: Some(hub), ..Default::default() };
        let mut transport = transport(unheard.relay_url().to_string(), options)?;
        let mut connections = transport.connect_relay(TOPIC).await?;
        if close.may_reconnect() {
            let again = async {
                while opened.load(Ordering::SeqCst) < 3 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(LIMIT * 4, again)
                .await
                .map_err(|_| anyhow::anyhow!("{close:?}: it did not come back"))?;
            assert_eq!(transport.ended(&TOPIC), None);
            continue;
        }
        assert!(timeout(LIMIT * 4, connections.recv()).await?.is_none(), "{close:?}");
        let end = transport.ended(&TOPIC).unwrap();
        assert_eq!(end.close, Some(*close));
        assert!(end.reason.contains(close.sentence()), "{end}");
        let told = async {
            loop {
                if let SyncEvent::RelayEnded { reason } = events.recv().await? {
                    return anyhow::Ok(reason);
                }
            }
        };
        assert_eq!(timeout(LIMIT, told).await??, end.reason);
        assert_eq!(opened.load(Ordering::SeqCst), 1, "{close:?}: it came back");
    }
    Ok(())
}

#[tokio::test]
async fn a_relay_that_floods_with_members_garbage_and_handshakes_stays_bounded_and_starves_nobody()
-> Result<()> {
    let flood = |stream: TcpStream| async move {
        let mut socket = welcoming(stream).await;
        let (handle, topic) = (Handle(1), TopicId(TOPIC));
        say(&mut socket, &Frame::Joined { handle, topic, members: Members::default() }).await;
        for n in 2_u64.. {
            let mut peer = [0xff; 32];
            peer[..8].copy_from_slice(&n.to_be_bytes());
            let member = Member { conn: ConnId(n), peer: PeerId(peer), generation: Generation(n) };
            // An initiation of version 1 with a name of its own and rubbish for Noise, then plain rubbish.
            let mut initiation = vec![1, 1];
            initiation.extend_from_slice(&[0; 8]);
            initiation.extend_from_slice(&n.to_be_bytes());
            initiation.extend_from_slice(&[0x42; 32]);
            let from = ConnId(n);
            let deliver = |payload: Vec<u8>| Frame::Deliver {
                class: Class::Control,
                broadcast: false,
                handle,
                from,
                payload: Bytes::from(payload),
            };
            let frames = [
                Frame::PeerJoined { handle, member },
                deliver(initiation),
                deliver(vec![0x42; 100]),
                Frame::Gap { from: None, count: 1 },
                Frame::PeerLeft { handle, conn: ConnId(n), peer: PeerId(peer) },
            ];
            for frame in frames {
                if !say(&mut socket, &frame).await {
                    return;
                }
            }
        }
    };
    let (mut transport, _server) = against(flood).await?;
    let mut connections = transport.connect_relay(TOPIC).await?;
    // Under the flood nobody completes a handshake, and the application is still answered.
    assert!(timeout(Duration::from_secs(2), connections.recv()).await.is_err());
    timeout(Duration::from_secs(5), transport.disconnect()).await??;
    Ok(())
}

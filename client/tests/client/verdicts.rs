//! What a relay says about frames is a hint: it may speed things up and never ends or disturbs anything.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use culvert_client::{RelayConnection, RelayOptions, RelayTransport, TransportConfig, TransportMode};
use culvert_wire::limits::MAX_PAYLOAD;
use culvert_wire::{
    Challenge, ConnId, Frame, Handle, Member, Members, NodeId, Notice, SUBPROTOCOL, TopicId, VERSION,
    Verdict, Welcome,
};
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::Message;

const TOPIC: TopicId = TopicId([3; 32]);
const HANDLE: Handle = Handle(1);
const SOON: Duration = Duration::from_secs(20);

/// What this relay does to a frame, by its number.
type Treatment = Box<dyn Fn(usize, ConnId, ConnId) -> (bool, Option<Frame>, Option<Frame>) + Send + Sync>;

/// A relay in a few lines: it passes frames on, or not, and says about them what the test wants.
struct Relay {
    treatment: Treatment,
    seen: AtomicUsize,
    members: Mutex<Vec<(Member, mpsc::UnboundedSender<Frame>)>>,
}

impl Relay {
    async fn start(treatment: Treatment) -> Result<(String, Arc<Self>, JoinSet<()>)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("ws://{}", listener.local_addr()?);
        let relay = Arc::new(Self { treatment, seen: AtomicUsize::new(0), members: Mutex::default() });
        let (shared, mut server) = (Arc::clone(&relay), JoinSet::new());
        server.spawn(async move {
            let mut connections = JoinSet::new();
            for n in 1.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                let relay = Arc::clone(&shared);
                connections.spawn(async move { relay.serve(stream, ConnId(n)).await });
            }
        });
        Ok((url, relay, server))
    }

    fn tell(&self, to: ConnId, frame: Frame) {
        let members = self.members.lock().unwrap();
        if let Some((_, queue)) = members.iter().find(|(member, _)| member.conn == to) {
            let _ = queue.send(frame);
        }
    }

    async fn serve(&self, stream: TcpStream, me: ConnId) {
        #[expect(clippy::result_large_err, reason = "the signature is tungstenite's")]
        let agree = |_: &Request, mut response: Response| {
            response.headers_mut().insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
            Ok(response)
        };
        let mut socket = tokio_tungstenite::accept_hdr_async(stream, agree).await.unwrap();
        let challenge = Challenge { nonce: [1; 32], node: NodeId(0), versions: vec![VERSION] };
        let (queue, mut frames) = mpsc::unbounded_channel();
        queue.send(Frame::Challenge(challenge)).unwrap();
        let mut member = None;
        loop {
            tokio::select! {
                frame = frames.recv() => {
                    let message = Message::Binary(frame.unwrap().encode().unwrap());
                    if socket.send(message).await.is_err() {
                        return;
                    }
                }
                message = socket.next() => {
                    let Some(Ok(Message::Binary(bytes))) = message else { return };
                    match Frame::decode(bytes).unwrap() {
                        Frame::Hello(hello) => {
                            member = Some(Member { conn: me, peer: hello.peer, generation: hello.generation });
                            queue.send(Frame::Welcome(welcome(me))).unwrap();
                        }
                        Frame::Join { .. } => self.join(member.unwrap(), queue.clone()),
                        Frame::Send { class, to, payload, .. } => self.forward(me, to, class, payload),
                        Frame::Ping { token, padding } => {
                            queue.send(Frame::Pong { token, padding }).unwrap();
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    fn join(&self, member: Member, queue: mpsc::UnboundedSender<Frame>) {
        let mut members = self.members.lock().unwrap();
        let list: Vec<_> = members.iter().map(|(member, _)| *member).collect();
        for (_, other) in members.iter() {
            let _ = other.send(Frame::PeerJoined { handle: HANDLE, member });
        }
        let members_told = Members { total: u32::try_from(list.len()).unwrap(), degraded: false, list };
        queue.send(Frame::Joined { handle: HANDLE, topic: TOPIC, members: members_told }).unwrap();
        members.push((member, queue));
    }

    fn forward(&self, from: ConnId, to: ConnId, class: culvert_wire::Class, payload: Bytes) {
        let n = self.seen.fetch_add(1, Ordering::SeqCst);
        let (arrives, to_sender, to_receiver) = (self.treatment)(n, from, to);
        if arrives {
            self.tell(to, Frame::Deliver { class, broadcast: false, handle: HANDLE, from, payload });
        }
        if let Some(frame) = to_sender {
            self.tell(from, frame);
        }
        if let Some(frame) = to_receiver {
            self.tell(to, frame);
        }
    }
}

fn welcome(conn: ConnId) -> Welcome {
    Welcome {
        conn,
        version: VERSION,
        max_payload: u32::try_from(MAX_PAYLOAD).unwrap(),
        queue_bytes: 1 << 20,
        max_topics: 1,
        frames_per_second: 0,
        bytes_per_second: 0,
        keepalive_ms: 15_000,
        idle_timeout_ms: 45_000,
        expires_at: 0,
    }
}

fn undeliverable(to: ConnId, verdict: Verdict) -> Frame {
    Frame::Undeliverable { broadcast: false, handle: HANDLE, to, verdict, count: 1 }
}

struct Talk {
    relay: Arc<Relay>,
    _server: JoinSet<()>,
    _transports: [RelayTransport; 2],
    pair: [RelayConnection; 2],
}

async fn talk(
    treatment: impl Fn(usize, ConnId, ConnId) -> (bool, Option<Frame>, Option<Frame>) + Send + Sync + 'static,
) -> Result<Talk> {
    let (url, relay, server) = Relay::start(Box::new(treatment)).await?;
    let enter = async || {
        let config = TransportConfig {
            mode: TransportMode::Relay,
            relay_url: Some(url.clone()),
            timeout_ms: 20_000,
            ..Default::default()
        };
        let mut transport = RelayTransport::new(config, RelayOptions::default())?;
        let connections = transport.connect_relay(TOPIC.0).await?;
        anyhow::Ok((transport, connections))
    };
    let ((a, mut to_b), (b, mut to_a)) = (enter().await?, enter().await?);
    let next = async |connections: &mut mpsc::Receiver<RelayConnection>| {
        timeout(SOON, connections.recv()).await.context("nobody came")?.context("the transport ended")
    };
    let pair = [next(&mut to_b).await?, next(&mut to_a).await?];
    Ok(Talk { relay, _server: server, _transports: [a, b], pair })
}

/// Messages to and fro, each of which must arrive once and in order.
async fn exchange(talk: &mut Talk, rounds: usize) -> Result<()> {
    for n in 0..rounds {
        let (from, to) = (n % 2, 1 - n % 2);
        talk.pair[from].send_bytes(Bytes::from(n.to_string())).await?;
        let heard = timeout(SOON, talk.pair[to].receive_bytes()).await.context("nothing came")??;
        assert_eq!(heard.as_deref(), Some(n.to_string().as_bytes()));
    }
    assert_eq!(talk.relay.members.lock().unwrap().len(), 2, "nobody came back under another address");
    Ok(())
}

#[tokio::test]
async fn frames_that_arrived_may_be_called_anything() -> Result<()> {
    let mut talk = talk(|n, _, to| {
        let verdict = Verdict::ALL[n % Verdict::ALL.len()];
        (true, Some(undeliverable(to, verdict)), Some(Frame::Gap { from: None, count: 1 }))
    })
    .await?;
    exchange(&mut talk, 300).await?;
    for connection in &talk.pair {
        assert_eq!(connection.stats().path_changes, 0, "there is no other way");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_lost_comes_again_whatever_is_said_about_it() -> Result<()> {
    for verdict in Verdict::ALL.iter().copied().map(Some).chain([None]) {
        // Every ninth frame is lost: the sender hears a verdict, or the receiver of a gap.
        let treatment = move |n: usize, from: ConnId, to: ConnId| {
            let is_lost = n % 9 == 7;
            let gap = Frame::Gap { from: Some(from), count: 1 };
            let verdict = verdict.map(|verdict| undeliverable(to, verdict));
            let gap = (is_lost && verdict.is_none()).then_some(gap);
            (!is_lost, verdict.filter(|_| is_lost), gap)
        };
        let mut talk = talk(treatment).await?;
        exchange(&mut talk, 30).await.with_context(|| format!("{verdict:?}"))?;
    }
    Ok(())
}

/// While nothing arrives, every frame brings a verdict, and a verdict must not bring a frame.
#[tokio::test]
async fn verdicts_start_no_storm() -> Result<()> {
    let is_cut = Arc::new(AtomicBool::new(false));
    let cut = Arc::clone(&is_cut);
    let mut talk = talk(move |_, _, to| {
        let is_cut = cut.load(Ordering::SeqCst);
        (!is_cut, is_cut.then(|| undeliverable(to, Verdict::Unreachable)), None)
    })
    .await?;
    exchange(&mut talk, 10).await?;
    is_cut.store(true, Ordering::SeqCst);
    let before = talk.relay.seen.load(Ordering::SeqCst);
    talk.pair[0].send_bytes(Bytes::from_static(b"after the cut")).await?;
    // The time that is measured, not a wait for something.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let frames = talk.relay.seen.load(Ordering::SeqCst) - before;
    assert!((2..30).contains(&frames), "{frames} frames in three seconds for one message");
    is_cut.store(false, Ordering::SeqCst);
    let heard = timeout(SOON, talk.pair[1].receive_bytes()).await.context("nothing came")??;
    assert_eq!(heard.as_deref(), Some(&b"after the cut"[..]));
    exchange(&mut talk, 10).await
}

#[tokio::test]
async fn who_is_told_of_a_newer_connection_of_its_own_goes_on() -> Result<()> {
    let mut talk = talk(|n, _, _| {
        let notice = Notice::Duplicate { newest: ConnId(n as u64) };
        (true, Some(Frame::Notice(notice)), Some(Frame::Notice(Notice::Other(99))))
    })
    .await?;
    exchange(&mut talk, 50).await
}

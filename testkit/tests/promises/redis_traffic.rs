//! The first promise towards Redis: what passes through it while a file goes from node to node holds
//! nothing of the file, no reason to be let in, and no key. With TLS it does not even hold who talks where.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use culvert_client::link::{Entry, Link};
use culvert_testkit::capture::{Capture, Tape, WINDOW, Windows};
use culvert_testkit::certs::TestCa;
use culvert_testkit::chaos::ChaosProxy;
use culvert_testkit::redis::{RedisPlan, RedisServer};
use culvert_testkit::relay::{RelayCluster, RelayClusterPlan};
use culvert_testkit::report::{measured, mib};
use culvert_testkit::user::{self, User};
use culvert_testkit::{Identity, tickets};
use culvert_wire::PeerId;
use culvert_wire::ticket::Topics;
use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};

const TOKEN: &str = "the access token of this relay, which is long";
const FILE: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(120);

/// Bytes that are looked for, each by what it is.
type Named = Vec<(&'static str, Vec<u8>)>;

/// What nobody but the two peers, or they and the relay, may see.
#[derive(Default)]
struct Secrets(Named);

/// What Redis has to see, and only whoever carries its traffic need not.
#[derive(Default)]
struct Routes(Named);

/// Two nodes whose traffic with Redis is on tape.
struct Recorded {
    cluster: RelayCluster,
    redis: RedisServer,
    issuer: Identity,
}

impl Recorded {
    async fn start(redis: RedisPlan) -> Self {
        let redis = redis.start().await.unwrap();
        let issuer = Identity::random().unwrap();
        let plan = RelayClusterPlan::open(2, redis.reach()).await.unwrap().recorded().unwrap();
        // With a token beside `open`, nobody comes in without a reason.
        let plan = plan.each(|_, relay| Ok(relay.tickets_by(&issuer)?.access_token(TOKEN))).unwrap();
        Self { cluster: plan.start().await.unwrap(), redis, issuer }
    }

    fn captures(&self) -> [Capture; 2] {
        [0, 1].map(|node| self.cluster.to_redis(node).unwrap().record())
    }

    fn find(&self, what: &[u8]) -> Option<String> {
        let captures = self.captures();
        let mut found = captures.iter().enumerate();
        found.find_map(|(node, capture)| Some(format!("traffic of node {node}: {}", capture.find(what)?)))
    }

    /// Panics if any 16 bytes of any of these are on tape.
    fn has_none_of(&self, all: &Named) {
        let together: Vec<u8> = all.iter().flat_map(|(_, bytes)| bytes).copied().collect();
        if self.find(&together).is_none() {
            return;
        }
        for (what, hidden) in all {
            if let Some(found) = self.find(hidden) {
                panic!("{WINDOW} bytes of {what} in {found}");
            }
        }
    }

    fn len(&self) -> usize {
        self.captures().iter().map(Capture::len).sum()
    }

    /// Frames that one node had from another.
    async fn crossed(&self, node: usize) -> f64 {
        let metrics = self.cluster.node(node).unwrap().metrics().await.unwrap();
        metrics.sum("culvert_relay_bus_letters_total", &[("direction", "received")])
    }

    /// Passes a file from a peer on one node to a peer on the other. The sender has a ticket and invites the
    /// receiver, or both have the access token.
    async fn transfer(&self, with_ticket: bool, secrets: &mut Secrets, routes: &mut Routes) {
        let (anna, ben) = (User::new().await.unwrap(), User::new().await.unwrap());
        let file = secret_file();
        let original = anna.home().join("secret.bin");
        std::fs::write(&original, &file).unwrap();
        let (nodes, received) = ([0, 1].map(|node| self.cluster.node(node).unwrap()), self.crossed(1).await);
        let way = ChaosProxy::start(nodes[0].addr()).await.unwrap();
        let frames = way.record();
        let url = format!("ws://localhost:{}", way.addr().port());

        let seed = own_key(&anna).await;
        let sender_id = Identity::from_seed(seed).unwrap().peer();
        let mut send = anna.culvert("send").args(["--proxy", "none", "--relay", &url]);
        if with_ticket {
            let mut claims = tickets::claims(sender_id, Topics::All);
            claims.invites = 1;
            let ticket = tickets::ticket(&self.issuer, None, &claims).unwrap();
            let path = anna.home().join("ticket");
            std::fs::write(&path, ticket).unwrap();
            send = send.arg("--ticket").arg(path);
        } else {
            let path = anna.home().join("token");
            std::fs::write(&path, TOKEN).unwrap();
            send = send.arg("--access-token-file").arg(path);
        }
        let mut sender = send.arg(&original).start().unwrap();
        let text = user::link(&sender).await.unwrap();
        let link: Link = text.parse().unwrap();
        assert_eq!(way.connections().len(), 1, "the sender is there");
        way.set_target(nodes[1].addr());
        let receive = ben.culvert("receive").arg(&text).args(["--proxy", "none"]);
        let mut receiver = receive.arg("--out").arg(ben.home()).start().unwrap();
        let members = members(&self.redis, &link).await;
        receiver.succeeds(PATIENCE).await.unwrap();
        sender.succeeds(PATIENCE).await.unwrap();
        assert_eq!(std::fs::read(ben.home().join("secret.bin")).unwrap(), file);
        let crossed = self.crossed(1).await - received;
        assert!(crossed * 16_384.0 >= FILE as f64, "only {crossed} frames went from node to node");

        secrets.add("the file", file);
        secrets.key("the sender's key", &seed);
        let secret = link.topic_secret();
        secrets.key("the topic secret", secret.as_bytes());
        secrets.key("the key of the handshake", &*secret.psk());
        let body = BASE64URL_NOPAD.decode(text.split_once(':').unwrap().1.as_bytes()).unwrap();
        secrets.key("the link's secret", &body[2..18]);
        secrets.add("the link", text.into_bytes());
        match &link.entry {
            Entry::Invitation(with) => {
                assert!(with_ticket);
                secrets.add("the ticket", with.ticket.clone().into_bytes());
                secrets.add("the invitation", with.invitation.clone().into_bytes());
                secrets.key("the guest's key", &with.seed[..]);
            }
            Entry::AccessToken(_) => {
                assert!(!with_ticket);
                secrets.key("the access token", TOKEN.as_bytes());
                secrets.key("the receiver's key", &own_key(&ben).await);
            }
            Entry::Open => panic!("the link carries no reason to be let in"),
        }
        let topic = secret.topic();
        routes.0.push(("the topic", topic.to_vec()));
        assert!(members.iter().any(|(_, peer)| *peer == sender_id), "the sender is registered");
        for (conn, peer) in members {
            routes.0.push(("a peer", peer.0.to_vec()));
            routes.0.push(("a connection", [&topic[24..], &conn[..]].concat()));
        }
        routes.0.push(("a sealed frame", bulk(&frames.tapes())));
    }
}

impl Secrets {
    fn add(&mut self, what: &'static str, bytes: Vec<u8>) {
        self.0.push((what, bytes));
    }

    /// Also as it would be written in text.
    fn key(&mut self, what: &'static str, bytes: &[u8]) {
        self.add(what, bytes.to_vec());
        self.add(what, HEXLOWER.encode(bytes).into_bytes());
        // Whole groups of three, so that what follows does not matter.
        self.add(what, BASE64.encode(&bytes[..bytes.len() / 3 * 3]).into_bytes());
    }
}

/// A file that no protocol could contain by chance: half of it random, half of it text.
fn secret_file() -> Vec<u8> {
    let mut random = vec![0; FILE / 2];
    aws_lc_rs::rand::fill(&mut random).unwrap();
    let text = HEXLOWER.encode(&random[..FILE / 4]).into_bytes();
    [random, text].concat()
}

/// The seed of a user's own key, which is made if there is none.
async fn own_key(user: &User) -> [u8; 32] {
    let mut id = user.culvert("id").start().unwrap();
    id.succeeds(PATIENCE).await.unwrap();
    let path: &Path = &user.home().join("config/culvert/identity.pem");
    let pem = std::fs::read_to_string(path).unwrap();
    let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    *BASE64.decode(text.as_bytes()).unwrap().last_chunk().unwrap()
}

/// Connections and peers that are registered in a link's topic, once both are.
async fn members(redis: &RedisServer, link: &Link) -> Vec<(Vec<u8>, PeerId)> {
    let key = [&b"culvert:t:"[..], &link.topic_secret().topic()].concat();
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    let both = async {
        loop {
            ticks.tick().await;
            let found: HashMap<Vec<u8>, Vec<u8>> = redis.ask(&[b"HGETALL", &key[..]]).await.unwrap();
            if found.len() == 2 {
                return found;
            }
        }
    };
    let found = tokio::time::timeout(PATIENCE, both).await.expect("both are registered");
    found.into_iter().map(|(conn, value)| (conn, PeerId(*value.first_chunk().unwrap()))).collect()
}

/// A part of what a receiver was given in clear text, amid the file: its frames as the sender sealed them.
fn bulk(tapes: &[Tape]) -> Vec<u8> {
    let longest = tapes.iter().map(Tape::down).max_by_key(Vec::len).unwrap();
    assert!(longest.len() > FILE, "the receiver had the file through here");
    let middle = longest.len() / 2;
    longest[middle..middle + 4096].to_vec()
}

async fn two_transfers(recorded: &Recorded) -> (Secrets, Routes) {
    let (mut secrets, mut routes) = (Secrets::default(), Routes::default());
    recorded.transfer(true, &mut secrets, &mut routes).await;
    recorded.transfer(false, &mut secrets, &mut routes).await;
    assert!(recorded.len() > 4 * FILE, "only {} bytes between the nodes and redis", recorded.len());
    (secrets, routes)
}

/// A command of a stranger, the same way as those of the nodes; gives what was on tape from then on.
async fn plant(recorded: &Recorded, ca: Option<&TestCa>, bytes: &[u8]) -> Vec<u8> {
    let before = recorded.captures()[0].tapes().len();
    let way = recorded.cluster.to_redis(0).unwrap().addr();
    let client = match ca {
        None => redis::Client::open(format!("redis://{way}")).unwrap(),
        Some(ca) => {
            let root_cert = Some(std::fs::read(ca.path()).unwrap());
            let roots = redis::TlsCertificates { client_tls: None, root_cert };
            redis::Client::build_with_tls(format!("rediss://{way}"), roots).unwrap()
        }
    };
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let echo: Vec<u8> = redis::cmd("ECHO").arg(bytes).query_async(&mut connection).await.unwrap();
    assert_eq!(echo, bytes);
    recorded.captures()[0].tapes()[before..].iter().flat_map(Tape::up).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_carries_who_and_where_and_sealed_frames_and_nothing_else_of_a_transfer() {
    let recorded = Recorded::start(RedisPlan::new().unwrap()).await;
    let (secrets, routes) = two_transfers(&recorded).await;
    for (what, visible) in &routes.0 {
        assert!(recorded.find(visible).is_some(), "the tapes do not hold {what}, so they prove nothing");
    }
    recorded.has_none_of(&secrets.0);
    measured(&format!(
        "no 16 bytes of two files of {}, their ticket, token, links and keys in {} that Redis received and sent",
        mib(FILE as u64),
        mib(recorded.len() as u64)
    ));
    // Had they been there, they would have been found.
    for (what, hidden) in &secrets.0 {
        let planted = plant(&recorded, None, &hidden[hidden.len() - WINDOW..]).await;
        assert!(Windows::of(hidden).first_in(&planted).is_some(), "{what} would not be found");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_tls_to_redis_not_even_topics_peers_and_frames_are_visible() {
    let ca = TestCa::new("Redis").unwrap();
    let recorded = Recorded::start(RedisPlan::new().unwrap().tls(&ca.loopback().unwrap(), &ca)).await;
    let (secrets, mut routes) = two_transfers(&recorded).await;
    routes.0.push(("a command", b"*3\r\n$7\r\nPUBLISH\r\n".to_vec()));
    let planted = secret_file();
    plant(&recorded, Some(&ca), &planted[..4096]).await;
    routes.0.push(("a stranger's command", planted));
    recorded.has_none_of(&[secrets.0, routes.0].concat());
    measured(&format!(
        "with TLS none of it, and no topic, peer, connection or sealed frame, in {}",
        mib(recorded.len() as u64)
    ));
}

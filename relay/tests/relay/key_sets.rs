//! Ticket keys by URL: fetched, changed, withdrawn, and kept when their service is away.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use culvert_relay::config::{AdmissionPolicy, KeySource, TicketPolicy};
use culvert_testkit::relay::Embedded;
use culvert_testkit::tickets::{claims, ticket};
use culvert_testkit::{HelloOptions, Identity, RawPeer};
use culvert_wire::Close;
use culvert_wire::ticket::Topics;
use data_encoding::BASE64URL_NOPAD;
use parking_lot::Mutex;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// How often the relay asks in these tests.
const REFRESH: Duration = Duration::from_millis(50);
const LIMIT: Duration = Duration::from_secs(20);

/// A service that answers every request with the same status and document.
struct Service {
    address: SocketAddr,
    answer: Arc<Mutex<(u16, String)>>,
    _task: JoinSet<()>,
}

impl Service {
    async fn start(status: u16, document: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(Mutex::new((status, document)));
        let mut task = JoinSet::new();
        let current = answer.clone();
        task.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 2048];
                // The relay's request is one small segment; one that is cut off is not answered.
                if !stream.read(&mut request).await.is_ok_and(|count| count > 0) {
                    continue;
                }
                let (status, document) = current.lock().clone();
                let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", document.len());
                let _ = stream.write_all((head + &document).as_bytes()).await;
            }
        });
        Self { address, answer, _task: task }
    }

    fn answers(&self, status: u16, document: String) {
        *self.answer.lock() = (status, document);
    }
}

/// The key set of these issuers, each under the id of its peer.
fn key_set(issuers: &[&Identity]) -> String {
    let keys: Vec<_> = issuers
        .iter()
        .map(|issuer| {
            let x = BASE64URL_NOPAD.encode(&issuer.peer().0);
            json!({"kty":"OKP","crv":"Ed25519","alg":"EdDSA","use":"sig","kid":issuer.peer().short(),"x":x})
        })
        .collect();
    json!({ "keys": keys }).to_string()
}

async fn relay_of(service: &Service) -> Embedded {
    let url = format!("http://{}/.well-known/jwks.json", service.address).parse().unwrap();
    let policy = TicketPolicy {
        keys: vec![KeySource::Url(url)],
        refresh: REFRESH,
        ..TicketPolicy::files([], Duration::from_secs(7200))
    };
    let mut config = Embedded::config();
    config.admission = AdmissionPolicy { tickets: Some(policy), ..AdmissionPolicy::default() };
    Embedded::start(config).await.unwrap()
}

/// How the relay answers a peer with a ticket of this issuer.
async fn knock(relay: &Embedded, issuer: &Identity) -> Result<(), Close> {
    let peer = Identity::random().unwrap();
    let ticket = ticket(issuer, Some(&issuer.peer().short()), &claims(peer.peer(), Topics::All)).unwrap();
    let mut socket = RawPeer::connect(relay.addr(), &relay.raw()).await.unwrap();
    match socket.hello(&HelloOptions::new(&peer).ticket(ticket)).await {
        Ok(_) => Ok(()),
        Err(error) => Err(error.close().unwrap_or_else(|| panic!("{error}"))),
    }
}

/// Knocks until the relay answers so.
async fn answers(relay: &Embedded, issuer: &Identity, expected: Result<(), Close>) {
    let until = async {
        while knock(relay, issuer).await != expected {
            tokio::time::sleep(REFRESH).await;
        }
    };
    tokio::time::timeout(LIMIT, until).await.unwrap_or_else(|_| panic!("never answered {expected:?}"));
}

/// Waits for this many more fetches with this outcome.
async fn fetched(relay: &Embedded, outcome: &str, more: f64) {
    let count = || relay.metrics().sum("culvert_relay_ticket_key_fetches_total", &[("outcome", outcome)]);
    let target = count() + more;
    let until = async {
        while count() < target {
            tokio::time::sleep(REFRESH).await;
        }
    };
    tokio::time::timeout(LIMIT, until).await.unwrap_or_else(|_| panic!("no fetch was {outcome}"));
}

#[tokio::test]
async fn keys_are_fetched_changed_and_withdrawn_without_a_restart() {
    let (old, new) = (Identity::random().unwrap(), Identity::random().unwrap());
    let service = Service::start(200, key_set(&[&old])).await;
    let relay = relay_of(&service).await;
    answers(&relay, &old, Ok(())).await;
    assert_eq!(knock(&relay, &new).await, Err(Close::TicketInvalid));
    service.answers(200, key_set(&[&old, &new]));
    answers(&relay, &new, Ok(())).await;
    service.answers(200, key_set(&[&new]));
    answers(&relay, &old, Err(Close::TicketInvalid)).await;
    assert_eq!(knock(&relay, &new).await, Ok(()));
}

#[tokio::test]
async fn a_key_set_that_was_never_fetched_admits_nobody_until_it_is() {
    let issuer = Identity::random().unwrap();
    let service = Service::start(503, String::new()).await;
    let relay = relay_of(&service).await;
    fetched(&relay, "failed", 1.0).await;
    // It may be a good one, so that the client must not give up.
    assert_eq!(knock(&relay, &issuer).await, Err(Close::NoKeys));
    service.answers(200, key_set(&[&issuer]));
    answers(&relay, &issuer, Ok(())).await;
    assert_eq!(knock(&relay, &Identity::random().unwrap()).await, Err(Close::TicketInvalid));
}

#[tokio::test]
async fn keys_stay_in_use_while_their_service_is_away_or_talks_nonsense() {
    let issuer = Identity::random().unwrap();
    let service = Service::start(200, key_set(&[&issuer])).await;
    let relay = relay_of(&service).await;
    answers(&relay, &issuer, Ok(())).await;
    for (status, document) in [
        (500, key_set(&[])),
        (200, "<html>".to_owned()),
        (200, key_set(&[])),
        (200, r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#.to_owned()),
        (200, "x".repeat(300 << 10)),
    ] {
        service.answers(status, document.clone());
        // The first may be an answer that was under way.
        fetched(&relay, "failed", 2.0).await;
        assert_eq!(knock(&relay, &issuer).await, Ok(()), "{status} {:.40}", document);
    }
}

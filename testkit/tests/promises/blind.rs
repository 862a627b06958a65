//! The first promise: what the relay receives and sends, decrypted from TLS, holds nothing of what the peers
//! say. And whoever joins the topic without its secret, the relay included, gets no conversation.

use std::time::Duration;

use culvert_client::TopicSecret;
use culvert_testkit::chaos::ChaosProxy;
use culvert_testkit::report::{measured, mib};
use culvert_testkit::{HelloOptions, Identity, RawPeer};
use culvert_wire::{Class, Frame, TopicId};
use tokio::time::timeout;

use crate::common::{self, PATIENCE, arrival, message, options, pair, tls_relay, transport};

/// A file that no protocol could contain by chance: half of it random, half of it text.
fn secret_file(len: usize) -> Vec<u8> {
    let mut random = vec![0; len / 2];
    aws_lc_rs::rand::fill(&mut random).unwrap();
    let text: Vec<u8> = data_encoding::HEXLOWER.encode(&random[..len / 4]).into_bytes();
    [random, text].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capture_of_all_that_the_relay_sees_has_no_16_bytes_of_the_file() {
    let common::Tls { ca, leaf, relay } = tls_relay().await;
    let tap = ChaosProxy::intercepting(relay.addr(), &leaf, &ca, "localhost").await.unwrap();
    let capture = tap.record();
    let url = format!("wss://localhost:{}", tap.addr().port());
    let secret = TopicSecret::generate();
    let member = || transport(&url, options(&secret, Some(ca.path())));
    let mut pair = pair(&secret, member(), member()).await;

    let file = secret_file(2 << 20);
    let parts: Vec<&[u8]> = file.chunks(60_000).collect();
    let send = async {
        for part in &parts {
            pair.anna.send(part).await.unwrap();
        }
        pair.anna.flush().await.unwrap();
    };
    let receive = async {
        for part in &parts {
            assert_eq!(message(&mut pair.ben).await, *part);
        }
    };
    timeout(PATIENCE, async { tokio::join!(send, receive) }).await.unwrap();

    // The tap is where it should be: it saw both copies of the file's bulk, and the topic in clear.
    assert!(capture.len() > 2 * file.len(), "only {} bytes captured", capture.len());
    assert!(capture.find(&secret.topic()).is_some(), "the tap does not see the relay's protocol");
    for (what, hidden) in
        [("the file", &file[..]), ("the topic secret", secret.as_bytes()), ("its key", &*secret.psk())]
    {
        if let Some(found) = capture.find(hidden) {
            panic!("16 bytes of {what} in {found}");
        }
    }
    measured(&format!(
        "no 16 bytes of a file of {} in {} that the relay received and sent, decrypted",
        mib(file.len() as u64),
        mib(capture.len() as u64)
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_who_knows_the_topic_but_not_its_secret_gets_no_conversation() {
    let common::Tls { ca, relay, .. } = tls_relay().await;
    let secret = TopicSecret::generate();
    let topic = secret.topic();

    // One stranger runs the real client with another secret, one speaks the protocol by hand and answers
    // every handshake with what it was sent.
    let guess = TopicSecret::generate();
    let mut stranger = transport(&relay.url(), options(&guess, Some(ca.path())));
    let mut to_stranger = stranger.connect(topic).await.unwrap();
    let mut mirror = RawPeer::connect(relay.addr(), &relay.raw()).await.unwrap();
    mirror.hello(&HelloOptions::new(&Identity::random().unwrap())).await.unwrap();
    let (handle, _) = mirror.join(TopicId(topic)).await.unwrap();
    mirror.set_deadline(Duration::from_secs(2));
    let reflect = async {
        let mut reflected = 0;
        while let Ok(frame) = mirror.recv().await {
            let Frame::Deliver { from, payload, .. } = frame else { continue };
            let back = Frame::Send { class: Class::Control, handle, to: from, payload };
            if mirror.send(&back).await.is_err() {
                break;
            }
            reflected += 1;
        }
        reflected
    };

    let member = || transport(&relay.url(), options(&secret, Some(ca.path())));
    let converse = async {
        let mut pair = pair(&secret, member(), member()).await;
        for n in 0..50u8 {
            pair.anna.send(&[n; 100]).await.unwrap();
            assert_eq!(message(&mut pair.ben).await, [n; 100]);
        }
        let ids = (pair.anna.peer_id().to_owned(), pair.ben.peer_id().to_owned());
        (pair, ids)
    };
    let (reflected, (mut pair, ids)) = tokio::join!(reflect, converse);
    assert_ne!(ids.0, ids.1);
    let more = Duration::from_millis(200);
    assert!(timeout(more, pair.arrivals.0.recv()).await.is_err(), "anna talks to a stranger");
    assert!(timeout(more, pair.arrivals.1.recv()).await.is_err(), "ben talks to a stranger");
    assert!(timeout(more, to_stranger.recv()).await.is_err(), "a stranger got a conversation");
    measured(&format!("handshake messages a stranger reflected, for no conversation: {reflected}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_comes_later_finds_the_others_and_only_them() {
    let common::Tls { ca, relay, .. } = tls_relay().await;
    let secret = TopicSecret::generate();
    let member = || transport(&relay.url(), options(&secret, Some(ca.path())));
    let mut pair = pair(&secret, member(), member()).await;
    let mut third = member();
    let mut to_third = third.connect(secret.topic()).await.unwrap();
    let (first, second) = (arrival(&mut to_third).await, arrival(&mut to_third).await);
    let with_third = arrival(&mut pair.arrivals.0).await;
    let mut met = [first.peer_id().to_owned(), second.peer_id().to_owned()];
    let mut others = [pair.anna.peer_id().to_owned(), pair.ben.peer_id().to_owned()];
    met.sort_unstable();
    others.sort_unstable();
    assert_eq!(met, others);
    assert!(!others.contains(&with_third.peer_id().to_owned()));
}

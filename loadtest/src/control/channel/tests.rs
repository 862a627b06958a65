//! Channels over real sockets.

use tokio::net::TcpListener;

use super::*;

type End = Result<(Sender, Receiver), ControlError>;

async fn connected(coordinator: &Secret, worker: &Secret) -> (End, End) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let dialled = async { dial(TcpStream::connect(address).await.unwrap(), coordinator).await };
    let accepted = async { accept(listener.accept().await.unwrap().0, worker).await };
    tokio::join!(dialled, accepted)
}

#[tokio::test]
async fn messages_of_any_size_arrive_in_order_both_ways() {
    let secret = Secret::of("the same");
    let (near, far) = connected(&secret, &secret).await;
    let ((mut to_far, mut from_far), (mut to_near, mut from_near)) = (near.unwrap(), far.unwrap());
    // Larger than what the sockets hold: the other side has to read meanwhile.
    let messages: Vec<String> = [0, 1, LARGEST, 3 * LARGEST, 8 << 20].map(|len| "x".repeat(len)).into();
    let sent = async {
        for message in &messages {
            to_far.send(message).await.unwrap();
        }
        drop(to_far);
    };
    let received = async {
        for message in &messages {
            assert!(from_near.recv::<String>().await.unwrap().as_ref() == Some(message));
        }
        assert!(from_near.recv::<String>().await.unwrap().is_none(), "the end is orderly");
    };
    tokio::join!(sent, received);
    to_near.send(&7).await.unwrap();
    assert_eq!(from_far.recv::<u32>().await.unwrap(), Some(7));
}

#[tokio::test]
async fn two_secrets_make_no_channel() {
    let (near, far) = connected(&Secret::of("one"), &Secret::of("another")).await;
    assert!(matches!(near, Err(ControlError::Secret)), "{:?}", near.err());
    assert!(matches!(far, Err(ControlError::Secret)), "{:?}", far.err());
}

#[tokio::test]
async fn a_changed_byte_is_noticed() {
    let secret = Secret::of("the same");
    let (near, far) = connected(&secret, &secret).await;
    let ((mut to_far, _), (_, mut from_near)) = (near.unwrap(), far.unwrap());
    to_far.send(&"first").await.unwrap();
    to_far.socket.write_all(&[&length_of(40)[..], &[7; 40]].concat()).await.unwrap();
    assert_eq!(from_near.recv::<String>().await.unwrap().as_deref(), Some("first"));
    assert!(matches!(from_near.recv::<String>().await, Err(ControlError::Garbled)));
}

#[tokio::test]
async fn garbage_instead_of_a_handshake_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut stranger = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\nHost: worker\r\n\r\n").await.unwrap();
    drop(stranger);
    let accepted = accept(listener.accept().await.unwrap().0, &Secret::of("secret")).await;
    assert!(matches!(accepted, Err(ControlError::Secret)), "{:?}", accepted.err());
}

#[tokio::test(start_paused = true)]
async fn a_stranger_that_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _silent = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let accepted = accept(listener.accept().await.unwrap().0, &Secret::of("secret")).await;
    assert!(matches!(accepted, Err(ControlError::Silent)), "{:?}", accepted.err());
}

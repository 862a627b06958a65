use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const LIMIT: Duration = Duration::from_secs(5);

/// Answers one connection with these bytes and keeps it open for `linger`.
async fn server(answer: &'static [u8], linger: bool) -> (Url, JoinSet<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/a/b?c=d", listener.local_addr().unwrap()).parse().unwrap();
    let mut task = JoinSet::new();
    task.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 1024];
        let count = stream.read(&mut request).await.unwrap();
        request.truncate(count);
        stream.write_all(answer).await.unwrap();
        if linger {
            std::future::pending::<()>().await;
        }
        request
    });
    (url, task)
}

#[tokio::test]
async fn a_document_is_fetched_with_path_query_and_host() {
    let (url, mut task) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", false).await;
    let fetcher = Fetcher::new(None, LIMIT, 100).unwrap();
    assert_eq!(&fetcher.get(&url).await.unwrap()[..], b"{}");
    let request = String::from_utf8(task.join_next().await.unwrap().unwrap()).unwrap();
    assert!(request.starts_with("GET /a/b?c=d HTTP/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("host: 127.0.0.1:{}\r\n", url.port().unwrap())), "{request}");
}

#[tokio::test]
async fn what_is_not_the_document_is_an_error_that_says_so() {
    for (answer, limit, expected) in [
        (&b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"[..], 100, "answered 503"),
        (b"HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n", 100, "answered 302"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n12345678901", 10, "larger than 10 bytes"),
        (b"SSH-2.0-x\r\n\r\n", 100, "does not answer as an HTTP server"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n1", 100, "does not answer as an HTTP server"),
    ] {
        let (url, _task) = server(answer, false).await;
        let error = Fetcher::new(None, LIMIT, limit).unwrap().get(&url).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{expected}: {error:?}");
    }
}

#[tokio::test]
async fn a_server_that_stalls_is_given_up() {
    let (url, _task) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{", true).await;
    let fetcher = Fetcher::new(None, Duration::from_millis(100), 100).unwrap();
    assert!(matches!(fetcher.get(&url).await, Err(FetchError::Late { .. })));
}

#[tokio::test]
async fn plain_text_is_for_loopback_only() {
    let fetcher = Fetcher::new(None, LIMIT, 100).unwrap();
    for bad in ["http://broker.example/keys", "ftp://127.0.0.1/keys", "data:,x"] {
        let error = fetcher.get(&bad.parse().unwrap()).await.unwrap_err();
        assert!(matches!(error, FetchError::Url(_)), "{bad}: {error:?}");
    }
    for good in ["https://broker.example/keys", "http://localhost:1/", "http://[::1]:1/"] {
        assert!(Fetcher::accepts(&good.parse().unwrap()), "{good}");
    }
    assert!(matches!(Fetcher::new(Some(b"nonsense"), LIMIT, 1), Err(FetchError::Trust(_))));
}

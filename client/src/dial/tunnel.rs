//! Through a proxy: HTTP CONNECT (RFC 9110 section 9.3.6) with Basic (RFC 7617), and SOCKS5 (RFC 1928).
//!
//! The relay's name goes to the proxy, never an address: on such networks the proxy alone can resolve
//! it. User and password go to the proxy alone, inside its own exchange.

use std::io::Cursor;

use data_encoding::BASE64;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zeroize::Zeroizing;

use super::error::ProxyProblem;
use super::url::{Credentials, RelayUrl};
use super::{BoxedStream, Stream};

/// Longest answer to CONNECT that is read, in bytes; squid's longest is below 4 KiB.
const MAX_ANSWER: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;

/// Asks an HTTP proxy at the other end of `stream` for a tunnel to `relay`.
pub(crate) async fn http_connect(
    mut stream: BoxedStream,
    relay: &RelayUrl,
    credentials: Option<&Credentials>,
) -> Result<BoxedStream, ProxyProblem> {
    stream.write_all(request(&relay.authority(), credentials).as_bytes()).await?;
    stream.flush().await?;
    let mut answer = Vec::with_capacity(1024);
    let head = loop {
        if answer.len() >= MAX_ANSWER {
            return Err(ProxyProblem::NotHttp("its answer is too long"));
        }
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(ProxyProblem::NotHttp("it closed the connection"));
        }
        if let Some(head) = parse(&answer)? {
            break head;
        }
    };
    match head.status {
        200..=299 => {}
        407 => return Err(authentication_problem(head.schemes, credentials.is_some())),
        403 => return Err(ProxyProblem::Forbidden { target: relay.authority() }),
        status @ 502..=504 => return Err(ProxyProblem::Unreachable { target: relay.authority(), status }),
        status => return Err(ProxyProblem::Status { status }),
    }
    // What came along with the answer is the relay's.
    let rest = answer.split_off(head.len);
    if rest.is_empty() {
        return Ok(stream);
    }
    let (read, write) = tokio::io::split(stream);
    Ok(Box::new(tokio::io::join(Cursor::new(rest).chain(read), write)))
}

/// Asks a SOCKS5 proxy at the other end of `stream` for a tunnel to `relay`; the proxy resolves the name.
pub(crate) async fn socks5(
    stream: impl Stream + 'static,
    relay: &RelayUrl,
    credentials: Option<&Credentials>,
) -> Result<BoxedStream, ProxyProblem> {
    use tokio_socks::tcp::Socks5Stream;
    let target = (relay.host(), relay.port());
    let connected = match credentials {
        Some(Credentials { user, password }) => {
            Socks5Stream::connect_with_password_and_socket(stream, target, user, password).await
        }
        None => Socks5Stream::connect_with_socket(stream, target).await,
    };
    match connected {
        Ok(stream) => Ok(Box::new(stream.into_inner())),
        Err(tokio_socks::Error::Io(error)) => Err(ProxyProblem::Io(error)),
        Err(error) => Err(ProxyProblem::Socks(error)),
    }
}

fn request(authority: &str, credentials: Option<&Credentials>) -> Zeroizing<String> {
    let mut text = Zeroizing::new(format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n"));
    if let Some(Credentials { user, password }) = credentials {
        let pair = Zeroizing::new(format!("{}:{}", **user, **password));
        let encoded = Zeroizing::new(BASE64.encode(pair.as_bytes()));
        text.push_str("Proxy-Authorization: Basic ");
        text.push_str(&encoded);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    text
}

struct Head {
    status: u16,
    /// Bytes of the answer before what follows it.
    len: usize,
    /// First words of `Proxy-Authenticate`.
    schemes: Vec<String>,
}

fn parse(answer: &[u8]) -> Result<Option<Head>, ProxyProblem> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let len = match response.parse(answer) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(ProxyProblem::NotHttp("its answer is not HTTP")),
    };
    let schemes = response
        .headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case("proxy-authenticate"))
        .filter_map(|header| std::str::from_utf8(header.value).ok()?.split_whitespace().next())
        .map(|scheme| scheme.chars().filter(char::is_ascii_graphic).take(32).collect())
        .collect();
    Ok(Some(Head { status: response.code.unwrap_or(0), len, schemes }))
}

fn authentication_problem(schemes: Vec<String>, given: bool) -> ProxyProblem {
    let basic = schemes.is_empty() || schemes.iter().any(|scheme| scheme.eq_ignore_ascii_case("basic"));
    match (basic, given) {
        (false, _) => ProxyProblem::AuthenticationUnsupported { schemes },
        (true, false) => ProxyProblem::AuthenticationRequired { schemes },
        (true, true) => ProxyProblem::AuthenticationRefused { schemes },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::DuplexStream;

    /// What an HTTP proxy hears, and what comes of its `answer`.
    async fn through(
        answer: &[u8],
        relay: &str,
        proxy: &str,
    ) -> (String, Result<BoxedStream, ProxyProblem>, DuplexStream) {
        let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
        theirs.write_all(answer).await.unwrap();
        let (relay, proxy): (RelayUrl, super::super::ProxyUrl) =
            (relay.parse().unwrap(), proxy.parse().unwrap());
        let connected = http_connect(Box::new(ours), &relay, proxy.credentials()).await;
        let mut heard = Vec::new();
        while !heard.ends_with(b"\r\n\r\n") {
            assert_ne!(theirs.read_buf(&mut heard).await.unwrap(), 0);
        }
        (String::from_utf8(heard).unwrap(), connected, theirs)
    }

    const OK: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

    #[tokio::test]
    async fn the_proxy_is_told_the_name_and_never_an_address() {
        let (heard, connected, _) = through(OK, "wss://relay.example", "http://proxy").await;
        connected.unwrap();
        assert_eq!(heard, "CONNECT relay.example:443 HTTP/1.1\r\nHost: relay.example:443\r\n\r\n");
        let (heard, ..) = through(OK, "wss://[2001:db8::1]:8443", "http://proxy").await;
        assert!(heard.starts_with("CONNECT [2001:db8::1]:8443 HTTP/1.1\r\n"), "{heard}");
    }

    #[tokio::test]
    async fn credentials_are_standard_base64_of_the_decoded_text() {
        // What RFC 7617 asks for: `+` and `/` in the result, UTF-8, colons in the password.
        let proxy = "http://%C3%BC%3E%3F%3E:p%3Aa%2Bs%2Fs%3F%3F%3E@proxy";
        let (heard, ..) = through(OK, "wss://relay.example", proxy).await;
        let line = heard.lines().find(|line| line.starts_with("Proxy-Authorization: Basic ")).unwrap();
        let encoded = line.rsplit(' ').next().unwrap();
        assert_eq!(BASE64.decode(encoded.as_bytes()).unwrap(), "ü>?>:p:a+s/s??>".as_bytes());
        assert!(encoded.contains(['+', '/']), "the case that URL-safe base64 gets wrong: {encoded}");
    }

    #[tokio::test]
    async fn bytes_that_come_with_the_answer_are_kept() {
        let answer = [OK, b"early"].concat();
        let (_, connected, mut theirs) = through(&answer, "wss://relay.example", "http://proxy").await;
        let mut stream = connected.unwrap();
        theirs.write_all(b" and late").await.unwrap();
        let mut got = [0; 14];
        stream.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"early and late");
        stream.write_all(b"up").await.unwrap();
        stream.flush().await.unwrap();
        let mut up = [0; 2];
        theirs.read_exact(&mut up).await.unwrap();
        assert_eq!(&up, b"up");
    }

    #[tokio::test]
    async fn an_answer_of_http_1_0_is_as_good() {
        through(b"HTTP/1.0 200 OK\r\nVia: 1.0 x\r\n\r\n", "wss://r.example", "http://proxy").await.1.unwrap();
    }

    #[tokio::test]
    async fn every_refusal_says_what_to_do() {
        let basic = "HTTP/1.1 407 Authentication\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n";
        let ntlm = "HTTP/1.1 407 A\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n\r\n";
        let cases = [
            (basic, "http://proxy", "asks for a user and password (it offers Basic)"),
            (basic, "http://u:p@proxy", "does not accept the user and password"),
            (ntlm, "http://u:p@proxy", "offers only Negotiate, NTLM"),
            ("HTTP/1.1 403 Forbidden\r\n\r\n", "http://proxy", "does not allow connections to r.example:443"),
            ("HTTP/1.1 503 Busy\r\n\r\n", "http://proxy", "could not reach r.example:443 itself (503)"),
            ("HTTP/1.1 400 Bad\r\n\r\n", "http://proxy", "answered 400 to CONNECT"),
            ("SSH-2.0-OpenSSH\r\n", "http://proxy", "did not answer like an HTTP proxy"),
        ];
        for (answer, proxy, sentence) in cases {
            let (_, connected, _) = through(answer.as_bytes(), "wss://r.example", proxy).await;
            let error = connected.err().expect(answer).to_string();
            assert!(error.contains(sentence), "{answer}: {error}");
        }
        let endless = vec![b'a'; MAX_ANSWER + 1];
        let endless = [b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &endless].concat();
        let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
        theirs.write_all(&endless).await.unwrap();
        let relay = "wss://r.example".parse().unwrap();
        let error = http_connect(Box::new(ours), &relay, None).await.err().unwrap().to_string();
        assert!(error.contains("its answer is too long"), "{error}");
    }

    #[tokio::test]
    async fn socks_gets_the_name_to_resolve_and_the_password() {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        let relay: RelayUrl = "wss://relay.example:8443".parse().unwrap();
        let proxy: super::super::ProxyUrl = "socks5h://us%40er:p%3Aw@proxy".parse().unwrap();
        let proxy_side = async {
            let mut greeting = [0; 4];
            theirs.read_exact(&mut greeting).await.unwrap();
            assert_eq!(greeting[..2], [5, 2], "version 5, two methods");
            assert!(greeting[2..].contains(&2), "user and password is one of them");
            theirs.write_all(&[5, 2]).await.unwrap();
            let mut login = [0; 2 + 5 + 1 + 3];
            theirs.read_exact(&mut login).await.unwrap();
            assert_eq!(&login, b"\x01\x05us@er\x03p:w");
            theirs.write_all(&[1, 0]).await.unwrap();
            let mut connect = [0; 4 + 1 + 13 + 2];
            theirs.read_exact(&mut connect).await.unwrap();
            assert_eq!(&connect, b"\x05\x01\x00\x03\x0drelay.example\x20\xfb");
            theirs.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
        };
        let (connected, ()) = tokio::join!(socks5(ours, &relay, proxy.credentials()), proxy_side);
        connected.unwrap();
    }
}

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

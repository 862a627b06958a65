//! `GET /api/results/{result_id}`, as the first protocol's applications ask for it.
//!
//! The grant is in `X-Share-Token`. A grant that is bound to a key needs the key's signature beside it. Who
//! asks to switch to the transfer protocol gets files and folders verified and resumed; who does not gets
//! the bytes of a single file, with ranges.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use culvert_client::Connection as _;
use culvert_client::broker::GRANT_HEADER;
use culvert_client::broker::handover::{Framed, GrantRefusal, PROOF_HEADER, PROTOCOL, proven_http};
use futures_util::TryStreamExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, SeekFrom};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::desk::{Allowed, Desk};
use crate::report::Report;
use crate::ticket;

/// Connections at a time; more wait.
const MAX_CONNECTIONS: usize = 128;
/// Time for the head of a request.
const HEAD: Duration = Duration::from_secs(10);
/// Pause after a connection could not be taken, such as without file descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes of a file that are read at a time.
const CHUNK: usize = 64 * 1024;
/// Where results are.
const RESULTS: &str = "/api/results/";

type Body = UnsyncBoxBody<Bytes, std::io::Error>;
type Answer = Response<Body>;

pub(super) async fn serve(
    listener: TcpListener,
    desk: Arc<Desk>,
    report: Report,
    stop: CancellationToken,
) -> Result<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    let (desk, report, stop) = (Arc::clone(&desk), report.clone(), stop.clone());
                    connections.spawn(converse(stream, desk, report, stop));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    while connections.join_next().await.is_some() {}
    Ok(())
}

async fn converse(stream: TcpStream, desk: Arc<Desk>, report: Report, stop: CancellationToken) {
    // What a switched connection becomes runs here, so that it ends with its connection's task.
    let (upgrades, mut upgraded) = tokio::sync::mpsc::channel(1);
    let service = service_fn(|request| {
        let (desk, upgrades) = (Arc::clone(&desk), upgrades.clone());
        async move { Ok::<_, std::convert::Infallible>(answer(request, &desk, &upgrades).await) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD);
    let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::select! {
        served = connection => if let Err(error) = served {
            tracing::debug!(%error, "a connection ended");
        },
        () = stop.cancelled() => return,
    }
    if let Ok((upgrade, allowed)) = upgraded.try_recv() {
        transfer(upgrade, &allowed, &desk, &report, &stop).await;
    }
}

async fn transfer(
    upgrade: hyper::upgrade::OnUpgrade,
    allowed: &Allowed,
    desk: &Desk,
    report: &Report,
    stop: &CancellationToken,
) {
    let who = allowed.requester.as_deref().unwrap_or("Somebody").to_owned();
    match upgrade.await {
        Ok(upgraded) => {
            report.note(format!("{who} fetches {} directly.", allowed.title));
            let mut connection = Framed::new(TokioIo::new(upgraded), who.clone());
            match desk.transfer(allowed, &mut connection, stop).await {
                Ok(_) => {
                    report.note(format!("{who} has {}.", allowed.title));
                    if let Err(error) = connection.close().await {
                        tracing::debug!(%error, "the connection did not end in order");
                    }
                }
                Err(error) => {
                    report.note(format!("{who} does not have all of {} yet: {error}.", allowed.title));
                }
            }
        }
        Err(error) => tracing::debug!(%error, "a connection was not switched"),
    }
}

type Upgrades = tokio::sync::mpsc::Sender<(hyper::upgrade::OnUpgrade, Allowed)>;

async fn answer(mut request: Request<Incoming>, desk: &Desk, upgrades: &Upgrades) -> Answer {
    let path = request.uri().path().to_owned();
    if path == "/health" {
        return text(StatusCode::OK, "OK");
    }
    let Some(name) = path.strip_prefix(RESULTS).filter(|name| !name.is_empty() && !name.contains('/')) else {
        return problem(StatusCode::NOT_FOUND, "NOT_FOUND", "there is nothing here");
    };
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return problem(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "only GET is answered here");
    }
    let Ok(result_id) = percent_decode_str(name).decode_utf8() else {
        return problem(StatusCode::NOT_FOUND, "NOT_FOUND", "there is nothing here");
    };
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let Some(grant) = header(GRANT_HEADER) else {
        let sentence = "present the broker's grant in X-Share-Token";
        return problem(StatusCode::UNAUTHORIZED, "AUTH_REQUIRED", sentence);
    };
    let holder = header(PROOF_HEADER).and_then(|proof| proven_http(proof, grant, &path, ticket::now()));
    let allowed = match desk.check(grant, holder.as_ref()).await {
        Ok((allowed, claims)) if claims.result_id == *result_id => allowed,
        Ok(_) => return refused(&GrantRefusal::Gone),
        Err(refusal) => return refused(&refusal),
    };
    let wants_transfer = header("upgrade").is_some_and(|upgrade| upgrade.eq_ignore_ascii_case(PROTOCOL));
    if wants_transfer {
        let upgrade = hyper::upgrade::on(&mut request);
        if upgrades.try_send((upgrade, allowed)).is_err() {
            return problem(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", "this server is ending");
        }
        let mut switch = text(StatusCode::SWITCHING_PROTOCOLS, "");
        switch.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        switch.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(PROTOCOL));
        return switch;
    }
    let range = header("range").map(str::to_owned);
    file(&allowed, range.as_deref(), request.method() == Method::HEAD).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "a shared file cannot be read");
        problem(StatusCode::NOT_FOUND, GrantRefusal::Gone.code(), "the result cannot be read here any more")
    })
}

/// The bytes of a single file.
async fn file(allowed: &Allowed, range: Option<&str>, head_only: bool) -> std::io::Result<Answer> {
    let [path] = &allowed.paths[..] else {
        return Ok(problem(StatusCode::CONFLICT, "NOT_A_FILE", "these are several files; use culvert fetch"));
    };
    let mut file = tokio::fs::File::open(path).await?;
    let meta = file.metadata().await?;
    if !meta.is_file() {
        return Ok(problem(StatusCode::CONFLICT, "NOT_A_FILE", "this is a folder; use culvert fetch"));
    }
    let size = meta.len();
    let modified = meta.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut answer = Response::builder()
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::ETAG, format!("\"{:x}-{:x}\"", size, modified.as_nanos()))
        .header(header::CACHE_CONTROL, "private, no-store")
        .header(header::CONTENT_TYPE, media_type(path))
        .header("X-Content-Type-Options", "nosniff");
    let (start, len) = match range.map(|range| parse_range(range, size)) {
        None | Some(Range::Whole) => (0, size),
        Some(Range::Part(start, end)) => {
            answer = answer
                .status(StatusCode::PARTIAL_CONTENT)
                .header(header::CONTENT_RANGE, format!("bytes {start}-{}/{size}", end - 1));
            (start, end - start)
        }
        Some(Range::Outside) => {
            let mut outside = problem(StatusCode::RANGE_NOT_SATISFIABLE, "RANGE", "the file is shorter");
            if let Ok(value) = HeaderValue::from_str(&format!("bytes */{size}")) {
                outside.headers_mut().insert(header::CONTENT_RANGE, value);
            }
            return Ok(outside);
        }
    };
    file.seek(SeekFrom::Start(start)).await?;
    let chunks = futures_util::stream::try_unfold((file, len), async |(mut file, left)| {
        if left == 0 {
            return Ok(None);
        }
        let mut chunk = vec![0; CHUNK.min(usize::try_from(left).unwrap_or(CHUNK))];
        let read = file.read(&mut chunk).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        chunk.truncate(read);
        Ok::<_, std::io::Error>(Some((Bytes::from(chunk), (file, left - read as u64))))
    });
    let body = if head_only { whole("") } else { StreamBody::new(chunks.map_ok(Frame::data)).boxed_unsync() };
    answer.header(header::CONTENT_LENGTH, len).body(body).map_err(std::io::Error::other)
}

/// What a `Range` header asks for.
#[derive(Debug, PartialEq, Eq)]
enum Range {
    /// Nothing in particular, or more than one part, which a server may answer with everything.
    Whole,
    /// From, and up to and without.
    Part(u64, u64),
    Outside,
}

/// One range of bytes, as in RFC 9110 section 14.
fn parse_range(text: &str, size: u64) -> Range {
    let Some(spec) = text.strip_prefix("bytes=").filter(|spec| !spec.contains(',')) else {
        return Range::Whole;
    };
    let Some((first, last)) = spec.trim().split_once('-') else { return Range::Whole };
    let number = |text: &str| text.parse::<u64>().ok();
    let (start, end) = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => (first, last.saturating_add(1).min(size)),
        (Some(first), None) if last.is_empty() => (first, size),
        (None, Some(last)) if first.is_empty() => (size.saturating_sub(last), size),
        _ => return Range::Whole,
    };
    if start < end { Range::Part(start, end) } else { Range::Outside }
}

/// What applications need to know to read it; a browser must not run any of it.
fn media_type(path: &std::path::Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => "application/json",
        Some("csv") => "text/csv",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

fn refused(refusal: &GrantRefusal) -> Answer {
    let status = match refusal {
        GrantRefusal::Invalid | GrantRefusal::Signature | GrantRefusal::Expired => StatusCode::UNAUTHORIZED,
        GrantRefusal::Owner | GrantRefusal::Holder => StatusCode::FORBIDDEN,
        GrantRefusal::Gone => StatusCode::NOT_FOUND,
        GrantRefusal::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    problem(status, refusal.code(), &refusal.to_string())
}

/// A problem document (RFC 9457).
fn problem(status: StatusCode, code: &str, detail: &str) -> Answer {
    let body = json!({ "title": status.canonical_reason(), "status": status.as_u16(), "code": code, "detail": detail });
    let mut answer = text(status, &body.to_string());
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    answer
}

fn text(status: StatusCode, text: &str) -> Answer {
    let mut answer = Response::new(whole(text));
    *answer.status_mut() = status;
    answer
}

fn whole(text: &str) -> Body {
    Full::new(Bytes::copy_from_slice(text.as_bytes())).map_err(|never| match never {}).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_bytes_is_read_and_anything_else_is_the_whole() {
        let cases = [
            ("bytes=0-9", Range::Part(0, 10)),
            ("bytes=90-", Range::Part(90, 100)),
            ("bytes=90-1000", Range::Part(90, 100)),
            ("bytes=-10", Range::Part(90, 100)),
            ("bytes=-1000", Range::Part(0, 100)),
            ("bytes=100-", Range::Outside),
            ("bytes=-0", Range::Outside),
            ("bytes=9-0", Range::Whole),
            ("bytes=0-1,5-6", Range::Whole),
            ("lines=1-2", Range::Whole),
            ("bytes=x-", Range::Whole),
            ("bytes=18446744073709551615-18446744073709551615", Range::Outside),
        ];
        for (text, range) in cases {
            assert_eq!(parse_range(text, 100), range, "{text}");
        }
    }
}

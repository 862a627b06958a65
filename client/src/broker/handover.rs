//! How a requester shows an owner that the broker lets them download, and how the owner checks it.
//!
//! The first message of a conversation about a share is the requester's: the broker's grant. The owner
//! checks it without asking the broker (`check`) and answers; then the conversation is a file transfer, the
//! owner being the sender ([`crate::transfer`]). The same check stands before the owner's HTTP server, where
//! the grant travels in `X-Share-Token`, and the requester's key signs for it in [`PROOF_HEADER`], since no
//! session does (`http_proof`). A server that switches to [`PROTOCOL`] speaks the transfer over the
//! connection that was HTTP (`frames`).

mod check;
mod frames;
mod http_proof;

pub use check::{GrantCheck, GrantRefusal};
pub use frames::Framed;
pub use http_proof::{PROOF_HEADER, prove_http, proven_http};

use std::time::Duration;

use culvert_broker_wire::grant::HEADER;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use url::Url;

use super::address::is_loopback;
use super::error::SyncError;
use super::http;
use crate::identity::Identity;
use crate::options::RelayOptions;
use crate::transport::Connection;

/// What HTTP is switched to for a transfer.
pub const PROTOCOL: &str = "culvert-transfer";
/// Longest first message, in bytes.
const MAX_REQUEST: usize = 16 * 1024;
/// How long the two first messages may take; the owner may have to fetch the broker's keys meanwhile.
const LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Serialize, Deserialize)]
struct Request {
    grant: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Accepted,
    Refused { code: String, message: String },
}

/// Why an owner did not begin the transfer.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The owner refused the grant.
    #[error("the owner refused: {message} ({code})")]
    Refused {
        /// Stable; one of [`GrantRefusal::code`].
        code: String,
        /// A sentence that says what to do.
        message: String,
    },
    /// The other side says nothing, or not what it should.
    #[error("the other side does not speak this protocol")]
    Protocol,
    /// The conversation ended.
    #[error("the connection ended: {0:#}")]
    Connection(anyhow::Error),
}

/// The requester's first words: shows the grant and waits until the owner accepts it.
///
/// # Errors
/// The owner refused, or the conversation ended.
pub async fn present(connection: &mut dyn Connection, grant: &str) -> Result<(), HandoverError> {
    let request =
        serde_json::to_vec(&Request { grant: grant.to_owned() }).map_err(|_| HandoverError::Protocol)?;
    let exchange = async {
        connection.send(&request).await.map_err(HandoverError::Connection)?;
        match hear(connection).await? {
            Answer::Accepted => Ok(()),
            Answer::Refused { code, message } => Err(HandoverError::Refused {
                code: http::printable(&code),
                message: http::printable(&message),
            }),
        }
    };
    timeout(LIMIT, exchange).await.unwrap_or(Err(HandoverError::Protocol))
}

/// The owner's side: the grant that a requester shows.
///
/// # Errors
/// The requester shows none, or the conversation ended.
pub async fn presented(connection: &mut dyn Connection) -> Result<String, HandoverError> {
    let heard = timeout(LIMIT, hear::<Request>(connection)).await;
    heard.map_err(|_| HandoverError::Protocol)?.map(|request| request.grant)
}

/// Tells a requester that the transfer begins, or why not.
///
/// # Errors
/// The conversation ended.
pub async fn answer(
    connection: &mut dyn Connection,
    verdict: Result<(), &GrantRefusal>,
) -> Result<(), HandoverError> {
    let answer = match verdict {
        Ok(()) => Answer::Accepted,
        Err(refusal) => Answer::Refused { code: refusal.code().to_owned(), message: refusal.to_string() },
    };
    let bytes = serde_json::to_vec(&answer).map_err(|_| HandoverError::Protocol)?;
    let sent = timeout(LIMIT, connection.send(&bytes)).await;
    sent.map_err(|_| HandoverError::Protocol)?.map_err(HandoverError::Connection)
}

/// Asks an owner's own server for a transfer at `download_url`, within `limit`.
///
/// # Errors
/// It cannot be reached or refuses; [`SyncError::Protocol`] if it speaks HTTP only, or its URL is one that
/// nothing should be fetched from: plain text over a network, unless `allow_plain_text` says so.
pub async fn open_direct(
    download_url: &str,
    grant: &str,
    identity: &Identity,
    options: &RelayOptions,
    allow_plain_text: bool,
    limit: Duration,
) -> Result<Framed<impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + use<>>, SyncError> {
    let wrong = || SyncError::Protocol("the owner's URL is none that can be fetched from".to_owned());
    let url = Url::parse(download_url).map_err(|_| wrong())?;
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
    let scheme = match url.scheme() {
        "https" => "wss",
        "http" if allow_plain_text || is_loopback(host.trim_matches(['[', ']'])) => "ws",
        "http" => {
            return Err(SyncError::Protocol(
                "the owner's server does not encrypt, so it is not asked over a network".to_owned(),
            ));
        }
        _ => return Err(wrong()),
    };
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let server = format!("{scheme}://{host}{port}").parse().map_err(|_| wrong())?;
    let headers = [
        (HEADER, grant.to_owned()),
        (PROOF_HEADER, prove_http(identity, grant, url.path(), super::client::now().unix_seconds())),
    ];
    let upgraded = http::upgrade(&server, url.path(), PROTOCOL, &headers, options, limit).await?;
    Ok(Framed::new(hyper_util::rt::TokioIo::new(upgraded), host.to_owned()))
}

async fn hear<T: serde::de::DeserializeOwned>(connection: &mut dyn Connection) -> Result<T, HandoverError> {
    let bytes = connection.receive().await.map_err(HandoverError::Connection)?;
    let bytes = bytes.filter(|bytes| bytes.len() <= MAX_REQUEST).ok_or(HandoverError::Protocol)?;
    serde_json::from_slice(&bytes).map_err(|_| HandoverError::Protocol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refusal_reaches_the_requester_with_its_code() {
        let (one, two) = tokio::io::duplex(64 * 1024);
        let (mut requester, mut owner) = (Framed::new(one, "o".into()), Framed::new(two, "r".into()));
        let owner_side = async {
            assert_eq!(presented(&mut owner).await.unwrap(), "the grant");
            answer(&mut owner, Err(&GrantRefusal::Expired)).await.unwrap();
        };
        let (presented, ()) = tokio::join!(present(&mut requester, "the grant"), owner_side);
        let Err(HandoverError::Refused { code, message }) = presented else { panic!("{presented:?}") };
        assert_eq!(code, "GRANT_EXPIRED");
        assert!(message.contains("expired"), "{message}");
    }

    #[tokio::test]
    async fn who_begins_with_something_else_is_no_requester() {
        for first in [&b"hello"[..], b"{}", &[0; MAX_REQUEST + 1]] {
            let (one, two) = tokio::io::duplex(64 * 1024);
            let (mut requester, mut owner) = (Framed::new(one, "o".into()), Framed::new(two, "r".into()));
            requester.send(first).await.unwrap();
            assert!(matches!(presented(&mut owner).await, Err(HandoverError::Protocol)));
        }
    }

    #[tokio::test]
    async fn an_owners_server_in_clear_text_is_asked_on_this_machine_only() {
        let identity = Identity::from_seed(&[1; 32]);
        let limit = Duration::from_secs(5);
        for url in ["http://192.0.2.1/api/results/r", "ftp://localhost/r", "r"] {
            let options = RelayOptions::default();
            let opened = open_direct(url, "g", &identity, &options, false, limit).await;
            assert!(matches!(opened.err(), Some(SyncError::Protocol(_))), "{url}");
        }
    }
}

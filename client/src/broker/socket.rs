//! One WebSocket to a broker: upgrade, registration, one JSON message per text frame.

use std::time::Duration;

use culvert_broker_wire::auth::DeviceProof;
use culvert_broker_wire::message::{Envelope, RegisterUser, RelayAddress};
use culvert_broker_wire::{ClientMessage, ErrorCode, ServerMessage};
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::header::{HeaderValue, RETRY_AFTER, USER_AGENT};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::error::Error as WsError;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, WebSocketConfig};

use super::address::BrokerUrl;
use super::credentials::{Credentials, prove_device};
use super::error::SyncError;
use super::http;
use crate::dial::{Dialer, Socket};

/// Longest message of a broker that is read: a list of a hundred shares with everything in them.
const MAX_ANSWER: usize = 4 << 20;
/// How long the broker may take nothing of what is written to it.
const WRITE: Duration = Duration::from_secs(10);
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(2);
/// What the broker gave the answer to a registration is recognised by.
const REGISTRATION: &str = "registration";

/// Who registers, and as what.
#[derive(Debug, Clone)]
pub(crate) struct Registration {
    pub(crate) user_id: String,
    pub(crate) endpoint: String,
    pub(crate) device_name: Option<String>,
    pub(crate) relay: Option<RelayAddress>,
    pub(crate) credentials: Credentials,
}

impl Registration {
    /// Says it, with a proof where the connection has none yet.
    pub(crate) fn message(&self, device: Option<DeviceProof>) -> ClientMessage {
        ClientMessage::RegisterUser(Box::new(RegisterUser {
            user_id: self.user_id.clone(),
            endpoint: self.endpoint.clone(),
            password: self.credentials.password(),
            session_token: None,
            device,
            device_name: self.device_name.clone(),
            relay: self.relay.clone(),
        }))
    }
}

/// What the broker said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerInfo {
    /// Version of the broker.
    pub server_version: String,
    /// Name of the institution.
    pub institution: String,
    /// Who is registered.
    pub user_id: String,
    /// Silence after which this client would count as offline.
    pub heartbeat_timeout: Duration,
    /// The relays of this institution, the first to be preferred.
    pub relays: Vec<String>,
}

/// An open connection of a registered user.
pub(crate) struct BrokerSocket {
    socket: Socket,
    pub(crate) info: BrokerInfo,
}

/// What a broker sent.
#[derive(Debug)]
pub(crate) enum Received {
    /// An answer, or an event without a `request_id`.
    Message(Option<String>, Box<ServerMessage>),
    /// An answer that this client does not understand.
    Unknown(String, String),
    /// Nothing of interest.
    Other,
}

impl BrokerSocket {
    /// Connects and registers, all within `limit`.
    pub(crate) async fn open(
        url: &BrokerUrl,
        dialer: &Dialer,
        registration: &Registration,
        limit: Duration,
    ) -> Result<Self, SyncError> {
        let deadline = Instant::now() + limit;
        let stream = dialer.stream(limit).await?;
        let upgraded = timeout_at(deadline, upgrade(url, stream, &registration.credentials)).await;
        let socket = upgraded.map_err(|_| SyncError::TimedOut(limit))??;
        let info = BrokerInfo {
            server_version: String::new(),
            institution: String::new(),
            user_id: String::new(),
            heartbeat_timeout: Duration::ZERO,
            relays: Vec::new(),
        };
        let mut opened = Self { socket, info };
        let registered = timeout_at(deadline, opened.register(url.host(), registration)).await;
        opened.info = registered.map_err(|_| SyncError::TimedOut(limit))??;
        Ok(opened)
    }

    async fn register(&mut self, host: &str, registration: &Registration) -> Result<BrokerInfo, SyncError> {
        let device = match registration.credentials.device() {
            None => None,
            Some(identity) => match self.ask(ClientMessage::GetChallenge).await? {
                ServerMessage::Challenge { challenge } => {
                    Some(prove_device(identity, &registration.user_id, host, &challenge))
                }
                _ => {
                    return Err(SyncError::Protocol(
                        "it answered `get_challenge` with something else".to_owned(),
                    ));
                }
            },
        };
        connected(self.ask(registration.message(device)).await?)
    }

    /// One question and its answer, before anything else is under way.
    async fn ask(&mut self, message: ClientMessage) -> Result<ServerMessage, SyncError> {
        self.send(REGISTRATION, message).await?;
        loop {
            match self.next().await? {
                Received::Message(Some(id), answer) if id == REGISTRATION => return answered(*answer),
                // About something that it could not even read.
                Received::Message(None, answer) if matches!(*answer, ServerMessage::Error { .. }) => {
                    return answered(*answer);
                }
                Received::Unknown(id, problem) if id == REGISTRATION => {
                    return Err(SyncError::Protocol(problem));
                }
                Received::Message(..) | Received::Unknown(..) | Received::Other => {}
            }
        }
    }

    pub(crate) async fn send(&mut self, request_id: &str, message: ClientMessage) -> Result<(), SyncError> {
        let envelope = Envelope { request_id: Some(request_id.to_owned()), message };
        let text =
            serde_json::to_string(&envelope).map_err(|error| SyncError::Protocol(error.to_string()))?;
        let sent = timeout(WRITE, self.socket.send(Message::text(text))).await;
        sent.map_err(|_| SyncError::Offline("it takes nothing that is sent to it".to_owned()))?
            .map_err(|error| SyncError::Offline(error.to_string()))
    }

    /// The next message; an error is the end of the connection. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Received, SyncError> {
        match self.socket.next().await {
            Some(Ok(Message::Text(text))) => Ok(parse(&text)),
            Some(Ok(Message::Close(frame))) => Err(closed(frame)),
            Some(Ok(_)) => Ok(Received::Other),
            Some(Err(WsError::Capacity(_))) => {
                Err(SyncError::Protocol("it sent a message that is too long".to_owned()))
            }
            Some(Err(error)) => Err(SyncError::Offline(error.to_string())),
            None => Err(SyncError::Offline("it closed the connection".to_owned())),
        }
    }

    /// Says goodbye.
    pub(crate) async fn close(mut self) {
        let goodbye = async {
            self.socket.close(None).await?;
            while self.socket.next().await.transpose()?.is_some() {}
            Ok::<(), WsError>(())
        };
        // Nobody is left to tell: the connection is dropped either way.
        if let Ok(Err(error)) = timeout(GOODBYE, goodbye).await {
            tracing::trace!(%error, "the connection to the broker ended before its goodbye did");
        }
    }
}

/// An answer, with refusals as errors.
pub(crate) fn answered(answer: ServerMessage) -> Result<ServerMessage, SyncError> {
    match answer {
        ServerMessage::Error { message, code } => Err(SyncError::refused(code, http::printable(&message))),
        answer => Ok(answer),
    }
}

/// The answer to a registration.
pub(crate) fn connected(answer: ServerMessage) -> Result<BrokerInfo, SyncError> {
    match answer {
        ServerMessage::Connected {
            server_version,
            institution,
            user_id,
            heartbeat_timeout_seconds,
            relays,
        } => Ok(BrokerInfo {
            server_version,
            institution,
            user_id,
            heartbeat_timeout: Duration::from_secs(heartbeat_timeout_seconds),
            relays,
        }),
        _ => Err(SyncError::Protocol("it answered `register_user` with something else".to_owned())),
    }
}

async fn upgrade(
    url: &BrokerUrl,
    stream: crate::dial::BoxedStream,
    credentials: &Credentials,
) -> Result<Socket, SyncError> {
    let protocol = |error: String| SyncError::Protocol(error);
    let uri = format!("{}{}", url.server(), url.socket_path());
    let mut request = uri.into_client_request().map_err(|error| protocol(error.to_string()))?;
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("culvert/", env!("CARGO_PKG_VERSION"))));
    for (name, value) in credentials.headers() {
        let mut value = HeaderValue::from_str(&value).map_err(|_| {
            SyncError::refused(
                ErrorCode::InvalidInput,
                "the credentials have characters that HTTP cannot carry",
            )
        })?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    let config =
        WebSocketConfig::default().max_message_size(Some(MAX_ANSWER)).max_frame_size(Some(MAX_ANSWER));
    match client_async_with_config(request, stream, Some(config)).await {
        Ok((socket, _)) => Ok(socket),
        Err(WsError::Http(answer)) => {
            let (head, body) = answer.into_parts();
            let retry_after =
                head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            Err(http::refusal(head.status, retry_after.map(Duration::from_secs), &body.unwrap_or_default()))
        }
        Err(error) => Err(SyncError::Offline(error.to_string())),
    }
}

fn parse(text: &str) -> Received {
    match serde_json::from_str::<Envelope<ServerMessage>>(text) {
        Ok(Envelope { request_id, message }) => Received::Message(request_id, Box::new(message)),
        Err(error) => {
            #[derive(serde::Deserialize)]
            struct Id {
                request_id: String,
            }
            match serde_json::from_str::<Id>(text) {
                Ok(Id { request_id }) => Received::Unknown(
                    request_id,
                    format!("its answer is not one that this client knows: {error}"),
                ),
                // A kind of event that a newer broker has.
                Err(_) => Received::Other,
            }
        }
    }
}

fn closed(frame: Option<CloseFrame>) -> SyncError {
    let reason = frame.map(|frame| http::printable(&frame.reason)).filter(|reason| !reason.is_empty());
    SyncError::Offline(reason.unwrap_or_else(|| "it closed the connection".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_by_their_request_and_strange_ones_go_to_whoever_asked() {
        let ack = parse(r#"{"type":"ack","message_id":null,"request_id":"7"}"#);
        assert!(matches!(ack, Received::Message(Some(id), m) if id == "7" && *m == ServerMessage::ack()));
        let event = parse(
            r#"{"type":"presence_event","user_id":"a","online":true,"last_seen":"2026-01-01T00:00:00Z"}"#,
        );
        assert!(matches!(event, Received::Message(None, m) if matches!(*m, ServerMessage::PresenceEvent(_))));
        let strange = parse(r#"{"type":"confetti","request_id":"8"}"#);
        assert!(matches!(strange, Received::Unknown(id, _) if id == "8"));
        for nothing in [r#"{"type":"confetti"}"#, "", "[", "null", "\"ack\"", r#"{"request_id":9}"#] {
            assert!(matches!(parse(nothing), Received::Other), "{nothing}");
        }
    }
}

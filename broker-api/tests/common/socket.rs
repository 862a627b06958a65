//! A WebSocket, message by message.

use std::collections::VecDeque;
use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::DEADLINE;

/// One WebSocket.
pub(crate) struct Socket {
    stream: WebSocketStream<TcpStream>,
    /// Events that came while an answer was awaited.
    events: VecDeque<Value>,
    asked: u64,
}

/// An upgrade that was refused.
#[derive(Debug)]
pub(crate) struct SocketError {
    pub(crate) status: StatusCode,
    pub(crate) body: Vec<u8>,
}

impl Socket {
    /// Opens one, with a session's token in its upgrade if there is one.
    pub(crate) async fn open(to: SocketAddr, token: Option<&str>) -> Result<Self, SocketError> {
        let headers: Vec<(&str, String)> =
            token.map(|token| ("authorization", format!("Bearer {token}"))).into_iter().collect();
        Self::open_with(to, &headers).await
    }

    /// Opens one with these headers.
    pub(crate) async fn open_with(to: SocketAddr, headers: &[(&str, String)]) -> Result<Self, SocketError> {
        let mut request = format!("ws://localhost:{}/ws", to.port()).into_client_request().unwrap();
        for (name, value) in headers {
            let name = tokio_tungstenite::tungstenite::http::HeaderName::try_from(*name).unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let opened = async {
            let stream = TcpStream::connect(to).await.unwrap();
            tokio_tungstenite::client_async(request, stream).await
        };
        match tokio::time::timeout(DEADLINE, opened).await.expect("an upgrade in time") {
            Ok((stream, _)) => Ok(Self { stream, events: VecDeque::new(), asked: 0 }),
            Err(Error::Http(answer)) => {
                let (head, body) = answer.into_parts();
                Err(SocketError { status: head.status, body: body.unwrap_or_default() })
            }
            Err(error) => panic!("no WebSocket: {error}"),
        }
    }

    /// Sends a message and gives the answer to it; events that come before are kept.
    pub(crate) async fn ask(&mut self, mut message: Value) -> Value {
        self.asked += 1;
        let id = format!("t{}", self.asked);
        message["request_id"] = id.clone().into();
        self.send(&message).await;
        loop {
            let answer = self.next().await;
            match answer["request_id"].as_str() {
                Some(other) if other == id => return answer,
                Some(_) => panic!("an answer to something else: {answer}"),
                None => self.events.push_back(answer),
            }
        }
    }

    /// The same for a message that must be answered with this type.
    pub(crate) async fn expect(&mut self, message: Value, kind: &str) -> Value {
        let answer = self.ask(message.clone()).await;
        assert_eq!(answer["type"], kind, "to {message}: {answer}");
        answer
    }

    /// The same for a message that must be refused; gives the code.
    pub(crate) async fn refused(&mut self, message: Value) -> String {
        let answer = self.expect(message, "error").await;
        answer["code"].as_str().unwrap().to_owned()
    }

    /// Registers a user whom the upgrade proved.
    pub(crate) async fn register(&mut self, user: &str, endpoint: &str) -> Value {
        let message = json!({"type": "register_user", "user_id": user, "endpoint": endpoint});
        self.expect(message, "connected").await
    }

    /// Sends one message and waits for nothing.
    pub(crate) async fn send(&mut self, message: &Value) {
        self.send_raw(Message::text(message.to_string())).await;
    }

    /// Sends anything.
    pub(crate) async fn send_raw(&mut self, message: Message) {
        let sent = tokio::time::timeout(DEADLINE, self.stream.send(message)).await;
        sent.expect("room in time").unwrap();
    }

    /// The next event of this type; others before it are read over.
    pub(crate) async fn event(&mut self, kind: &str) -> Value {
        loop {
            let event = match self.events.pop_front() {
                Some(event) => event,
                None => self.next().await,
            };
            if event["type"] == kind {
                return event;
            }
        }
    }

    /// Events up to now: those that were sent before the answer to a message that is sent now.
    pub(crate) async fn events_until_now(&mut self) -> Vec<Value> {
        // Any message does; this one is answered the same whoever is there.
        self.ask(json!({"type": "get_challenge"})).await;
        self.events.drain(..).collect()
    }

    /// The next message, answer or event.
    pub(crate) async fn next(&mut self) -> Value {
        match self.receive().await {
            Ok(message) => message,
            Err(close) => panic!("the broker closed the WebSocket: {close:?}"),
        }
    }

    /// Waits until the broker closes; messages before that are read over.
    pub(crate) async fn closed(&mut self) -> Option<CloseFrame> {
        loop {
            if let Err(close) = self.receive().await {
                return close;
            }
        }
    }

    async fn receive(&mut self) -> Result<Value, Option<CloseFrame>> {
        let next = async {
            loop {
                match self.stream.next().await {
                    Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                    Some(Ok(Message::Close(close))) => return Err(close),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return Err(None),
                }
            }
        };
        tokio::time::timeout(DEADLINE, next).await.expect("a message in time")
    }

    /// Closes as a client does that goes away properly.
    pub(crate) async fn close(mut self) {
        let _ = tokio::time::timeout(DEADLINE, self.stream.close(None)).await;
    }
}

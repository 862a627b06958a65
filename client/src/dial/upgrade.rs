//! From a stream to a WebSocket that speaks the relay protocol.

use culvert_wire::limits::MAX_FRAME;
use culvert_wire::{PATH, SUBPROTOCOL};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error as WsError;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::{SEC_WEBSOCKET_PROTOCOL, USER_AGENT};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::BoxedStream;
use super::error::{DialError, UpgradeProblem};
use super::url::RelayUrl;

/// Read buffer in bytes: one full frame. The default of 128 KiB only helps busy servers.
const READ_BUFFER: usize = 16 * 1024;
/// Bytes that are gathered before they are written; half a dozen full frames.
pub(crate) const WRITE_BUFFER: usize = 128 * 1024;

/// Asks for the upgrade.
pub(crate) async fn upgrade(
    stream: BoxedStream,
    relay: &RelayUrl,
) -> Result<WebSocketStream<BoxedStream>, DialError> {
    let broken = |problem: String| {
        DialError::Upgrade(UpgradeProblem::Broken { host: relay.host().to_owned(), problem })
    };
    let mut request = format!("{relay}{PATH}").into_client_request().map_err(|e| broken(e.to_string()))?;
    request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    let agent = HeaderValue::from_static(concat!("culvert/", env!("CARGO_PKG_VERSION")));
    request.headers_mut().insert(USER_AGENT, agent);
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(2 * WRITE_BUFFER)
        .max_message_size(Some(MAX_FRAME))
        .max_frame_size(Some(MAX_FRAME));
    match client_async_with_config(request, stream, Some(config)).await {
        Ok((socket, answer)) => {
            let agreed = answer.headers().get(SEC_WEBSOCKET_PROTOCOL);
            if agreed.is_some_and(|agreed| agreed == SUBPROTOCOL) {
                Ok(socket)
            } else {
                Err(DialError::Upgrade(UpgradeProblem::Subprotocol { host: relay.host().to_owned() }))
            }
        }
        Err(WsError::Http(answer)) => Err(DialError::Upgrade(UpgradeProblem::Status {
            host: relay.host().to_owned(),
            status: answer.status().as_u16(),
        })),
        // tungstenite refuses a 101 without the subprotocol itself.
        Err(WsError::Protocol(error)) if error.to_string().to_ascii_lowercase().contains("subprotocol") => {
            Err(DialError::Upgrade(UpgradeProblem::Subprotocol { host: relay.host().to_owned() }))
        }
        Err(error) => Err(broken(error.to_string())),
    }
}

//! The WebSocket.

mod ends;
mod events;
mod messages;

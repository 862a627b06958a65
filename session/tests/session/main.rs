//! Sessions between two peers, by hand and on a simulated network.

mod pair;

mod conversation;
mod ending;
mod handshake;
mod paths;
mod simulation;

//! A node's way to real Redis: its inbox survives what Redis and the network do, and a Redis that is not
//! fit is told apart from one that is away.

mod check;
mod cluster;
mod listener;
mod sentinel;
mod standalone;
mod tls;

//! The real `culvert` program, as people use it: against a real relay process over TLS on loopback.

mod cluster;
mod commands;
mod demo;
mod doctor;
mod faults;
mod readme;
mod shares;
mod support;
mod tickets;
mod transfer;

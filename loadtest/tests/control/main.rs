//! The program as operators run it: runs, workers, and everything that goes wrong with them.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod bad_input;
mod program;
mod runs;
mod workers;

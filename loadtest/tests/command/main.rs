//! The program `culvert-loadtest` as operators run it, and its manual.
#![allow(clippy::unwrap_used, reason = "helpers of tests: what fails here fails the test")]

mod chaos;
mod control;
mod readme;

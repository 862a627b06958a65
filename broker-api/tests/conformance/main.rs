//! Rules that every implementation of a trait keeps, held against each of them.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod live;
mod store;

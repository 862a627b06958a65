//! The frame-level scenarios against a real relay in the test's own process: that each finds what it
//! promises, and that it notices when something goes wrong.

mod idle;
mod latency;
mod steady;
mod support;
mod trouble;

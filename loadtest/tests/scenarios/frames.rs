//! The frame-level scenarios against a real relay in the test's own process: that each finds what it
//! promises, and that it notices when something goes wrong.

mod churn;
mod fanout;
mod idle;
mod latency;
mod mixed;
mod slow;
mod steady;
mod storm;
mod support;
mod trouble;

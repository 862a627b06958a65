//! The `culvert-loadtest` program.

fn main() {}

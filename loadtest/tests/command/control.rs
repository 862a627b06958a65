//! The program as operators run it: runs, workers, and everything that goes wrong with them.

mod bad_input;
mod program;
mod runs;
mod workers;

//! The broker's client against a real broker, and against a false one where a real one does not misbehave so.

mod behaviour;
mod ddalab_examples;
mod ddalab_json;
mod offline;
mod rogue;
mod world;

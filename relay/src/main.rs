//! The relay as a program of its own; see [`culvert_relay::command`].

use std::process::ExitCode;

fn main() -> ExitCode {
    culvert_relay::command::main(std::env::args_os())
}

//! The broker.

use std::process::ExitCode;

fn main() -> ExitCode {
    culvert_broker_api::command::main(std::env::args_os())
}

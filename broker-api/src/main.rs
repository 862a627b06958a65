//! The broker.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A request is some hundred small allocations: 8 % less CPU for each than with the C library's, for 2 KiB more
/// for each idle connection (`docs/performance.md`).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    culvert_broker_api::command::main(std::env::args_os())
}

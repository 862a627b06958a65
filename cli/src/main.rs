//! The `culvert` command.
//!
//! Each subcommand is a module; [`cli`] is what can be typed, [`failure`] how it ends. Standard output
//! carries results (a link, received paths, a report), standard error everything that is said on the way.

mod broker_args;
mod broker_session;
mod certificate;
mod cli;
mod cluster;
mod demo;
mod dev;
mod doctor;
mod embedded;
mod failure;
mod fetch;
mod folders;
mod id;
mod interrupt;
mod invitation;
mod keys;
mod login;
mod network;
mod online;
mod pair;
mod receive;
mod report;
mod send;
mod serve;
mod share;
mod ticket;

use std::ffi::OsString;
use std::future::Future;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use culvert_service_kit::telemetry::{self, LogFilter, LogFormat};

use cli::{Cli, Command};
use failure::Code;
use interrupt::Interrupt;

/// How long threads that wait for a disk or a terminal may keep the process after its work is done.
const RUNTIME_END: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    // Whoever installed another provider first keeps it; there is only this one in the program.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cli = Cli::parse();
    if let Err(error) = log(&cli.command) {
        return failure::exit_code(Err(Code::Usage.with(error)));
    }
    let ended = match cli.command {
        // Relay and broker have their own settings, exit codes and runtime.
        Command::Relay { arguments } => {
            let name = OsString::from("culvert relay");
            return culvert_relay::command::main(std::iter::once(name).chain(arguments));
        }
        Command::Broker { arguments } => {
            let name = OsString::from("culvert broker");
            return culvert_broker_api::command::main(std::iter::once(name).chain(arguments));
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "culvert", &mut script);
            std::io::stdout().write_all(&script).map_err(Into::into)
        }
        Command::Id(args) => id::run(&args),
        Command::Ticket(args) => ticket::run(args),
        Command::Cluster(args) => on_runtime(async |_| cluster::run(args).await),
        Command::Login(args) => on_runtime(async |_| login::run(*args).await),
        Command::Share(args) => on_runtime(async |_| share::share(*args).await),
        Command::Unshare(args) => on_runtime(async |_| share::unshare(*args).await),
        Command::Shares(args) => on_runtime(async |_| share::shares(*args).await),
        Command::Fetch(args) => on_runtime(async |interrupt| fetch::run(*args, interrupt).await),
        Command::Serve(args) => on_runtime(async |interrupt| serve::run(*args, interrupt).await),
        Command::Online(args) => on_runtime(async |interrupt| online::run(*args, interrupt).await),
        Command::Send(args) => on_runtime(async |interrupt| send::run(args, interrupt).await),
        Command::Receive(args) => on_runtime(async |interrupt| receive::run(args, interrupt).await),
        Command::Dev(args) => on_runtime(async |interrupt| dev::run(args, interrupt).await),
        Command::Demo(args) => on_runtime(async |interrupt| demo::run(args, interrupt).await),
        Command::Doctor(args) => on_runtime(async |interrupt| doctor::run(args, interrupt).await),
    };
    failure::exit_code(ended)
}

/// Log lines go to standard error where somebody wants them; relay and broker set up their own.
fn log(command: &Command) -> anyhow::Result<()> {
    let filter = match (std::env::var("CULVERT_LOG"), command) {
        (_, Command::Relay { .. } | Command::Broker { .. }) => return Ok(()),
        (Ok(filter), _) => filter,
        (Err(_), Command::Dev(_)) => "warn".to_owned(),
        (Err(_), _) => return Ok(()),
    };
    Ok(telemetry::init(LogFormat::Text, LogFilter::new(Some(&filter))?)?)
}

fn on_runtime<F: Future<Output = anyhow::Result<()>>>(
    work: impl FnOnce(Interrupt) -> F,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let interrupt = Interrupt::install()?;
        work(interrupt).await
    });
    runtime.shutdown_timeout(RUNTIME_END);
    ended
}

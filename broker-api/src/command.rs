//! The `culvert-broker-api` program: settings in, exit code out.
//!
//! `culvert broker` is the same: it hands its arguments to [`main`].

use std::ffi::OsString;
use std::future::Future;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use culvert_relay::config::Tls;
use culvert_service_kit::config::{EXIT_BAD_CONFIGURATION, EXIT_FAILED, Loaded, load_with_aliases};
use culvert_service_kit::lifecycle::{Drained, signals};
use culvert_service_kit::{Clock, Shutdown};
use culvert_service_kit::{process, telemetry};
use tokio::runtime::{Builder, Handle, Runtime};

use crate::admin::{self, AdminCommand, Office};
use crate::args::{ALIASES, Action, Args, Process, chain};
use crate::config::Config;
use crate::live::Live;
use crate::live::redis::RedisLive;
use crate::seal::Sealer;
use crate::server::{Broker, OpenError, migrate, open_store, with_keys};

/// Descriptors beside those of clients: listeners, the stores' connections, the runtime's own.
const OTHER_DESCRIPTORS: usize = 128;
/// Who knows the institution's password can make users; 16 random characters are out of reach of guesses
/// at the rates that the broker allows.
const STRONG_PASSWORD: usize = 16;
/// For work on blocking threads when everything else has ended.
const RUNTIME_END: Duration = Duration::from_secs(1);
/// How long `migrate` waits for another one that is at it.
const MIGRATION: Duration = Duration::from_secs(600);

/// Runs the program with these arguments, the first of which is its name.
///
/// Blocks until it has ended; to be called outside of any async runtime, because it starts its own.
pub fn main(command_line: impl IntoIterator<Item = OsString>) -> ExitCode {
    // Generic no further: whoever calls this would compile the whole broker.
    obey(command_line.into_iter().collect())
}

fn obey(command_line: Vec<OsString>) -> ExitCode {
    let loaded = load_with_aliases::<Args>(settings_first(command_line), ALIASES);
    let Loaded { args, problems, effective } = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            // Nothing is left to do if the terminal is gone.
            let _ = error.print();
            return if error.use_stderr() { EXIT_BAD_CONFIGURATION.into() } else { ExitCode::SUCCESS };
        }
    };
    // Needs no settings: the document is the same for every broker.
    if let Some(Action::Openapi) = args.action {
        return print(&crate::rest::openapi_json());
    }
    let (config, process) = match args.config(problems) {
        Ok(config) => config,
        Err(problems) => {
            let _ = writeln!(io::stderr(), "{problems}");
            return EXIT_BAD_CONFIGURATION.into();
        }
    };
    match args.action {
        Some(Action::CheckConfig) => print(&effective.to_string()),
        Some(Action::Migrate) => run(process, async move {
            migrate(&config, Some(MIGRATION)).await?;
            tracing::info!("the tables are as this version needs them");
            Ok(ExitCode::SUCCESS)
        }),
        Some(Action::Admin(command)) => run(process, administer(config, command)),
        None | Some(Action::Serve | Action::Openapi) => run(process, serve(config)),
    }
}

/// Lets settings stand after `serve`, `migrate` and `check-config`, which take none of their own.
fn settings_first(mut command_line: Vec<OsString>) -> Vec<OsString> {
    let is_simple =
        |word: &OsString| ["serve", "migrate", "check-config", "openapi"].iter().any(|simple| word == simple);
    if command_line.get(1).is_some_and(is_simple) {
        let action = command_line.remove(1);
        command_line.push(action);
    }
    command_line
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => EXIT_FAILED.into(),
    }
}

/// Starts logs and a runtime, and says what went wrong.
fn run(process: Process, work: impl Future<Output = anyhow::Result<ExitCode>>) -> ExitCode {
    if let Err(error) = telemetry::init(process.log_format, process.log_filter) {
        let _ = writeln!(io::stderr(), "{}", chain(&error));
        return EXIT_FAILED.into();
    }
    let runtime = match runtime(process.worker_threads) {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the async runtime does not start");
            return EXIT_FAILED.into();
        }
    };
    let ended = runtime.block_on(work);
    runtime.shutdown_timeout(RUNTIME_END);
    ended.unwrap_or_else(|error| {
        tracing::error!(error = chain(&*error), "stopped");
        EXIT_FAILED.into()
    })
}

/// A runtime with so many threads for everything that does not block. With one, that is the thread which calls
/// it, so that nobody wakes another thread for a request.
fn runtime(worker_threads: usize) -> io::Result<Runtime> {
    let mut builder = match worker_threads {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder.worker_threads(worker_threads).enable_all().build()
}

/// What an operator does at the command line, beside running brokers.
async fn administer(config: Config, command: AdminCommand) -> anyhow::Result<ExitCode> {
    let (config, clock) = (with_keys(config)?, Clock::system());
    let store = open_store(&config).await?;
    let sealer = Sealer::new(&config.data_keys)?;
    let live = config.redis.as_ref().map(|settings| RedisLive::new(settings, clock.clone())).transpose()?;
    let office = Office {
        store: store.as_ref(),
        sealer: &sealer,
        clock: &clock,
        live: live.as_ref().map(|live| live as &dyn Live),
        ticket: config.timing.ticket,
    };
    admin::run(&command, &office).await?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(config: Config) -> anyhow::Result<ExitCode> {
    process::raise_descriptor_limit(config.limits.connections, OTHER_DESCRIPTORS);
    say_what_is_open(&config);
    let shutdown = Shutdown::new();
    let signals = signals(shutdown.clone())?;
    let broker = Broker::bind(config)?;
    let (listen, admin) = (broker.local_addr()?, broker.admin_addr()?);
    let admin = admin.map_or_else(|| "none".to_owned(), |address| address.to_string());
    let worker_threads = Handle::current().metrics().num_workers();
    tracing::info!(%listen, admin, worker_threads, "broker listening");
    // The signals end with the second one; the broker ends with or without them.
    let ended: Result<Drained, OpenError> = {
        let mut broker = std::pin::pin!(broker.run(shutdown.clone()));
        tokio::select! {
            ended = &mut broker => ended,
            () = signals => broker.await,
        }
    };
    Ok(match ended? {
        _ if shutdown.has_failed() => {
            tracing::error!("stopped because a part of the broker had ended");
            EXIT_FAILED.into()
        }
        Drained::Killed => {
            tracing::warn!("stopped at once");
            EXIT_FAILED.into()
        }
        drained @ (Drained::Complete | Drained::CutOff) => {
            tracing::info!(?drained, "stopped");
            ExitCode::SUCCESS
        }
    })
}

/// What is open, or nearly so, is because someone said so, and the log shows it.
fn say_what_is_open(config: &Config) {
    match (&config.tls, config.behind_tls) {
        (Tls::PlainText, false) => {
            tracing::warn!(
                "clients connect without TLS, whoever is on the way can read and change everything"
            );
        }
        (Tls::PlainText, true) => {
            tracing::info!("clients are believed to come over TLS that ends before this broker");
        }
        (Tls::Files(_), _) => {}
    }
    if let Some(password) = &config.institution_password
        && password.expose().chars().count() < STRONG_PASSWORD
    {
        tracing::warn!(
            "the institution's password is short enough to be guessed, and whoever knows it can make users; \
             give {STRONG_PASSWORD} random characters or more"
        );
    }
    if config.redis.is_none() {
        tracing::info!("without redis, presence is in this process, which has to be the only one");
    }
}

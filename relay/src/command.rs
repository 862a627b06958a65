//! The `culvert-relay` program: settings in, exit code out.
//!
//! `culvert relay` is the same: it hands its arguments to [`main`].

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use culvert_service_kit::Shutdown;
use culvert_service_kit::config::{EXIT_BAD_CONFIGURATION, EXIT_FAILED, Effective, Loaded, load};
use culvert_service_kit::lifecycle::{Drained, signals};
use culvert_service_kit::{memory, process, telemetry};

use crate::args::{Action, Args, Logs, chain};
use crate::config::{Config, Tls};
use crate::relay::Relay;

/// Descriptors beside those of peers: listeners, files, the runtime's own.
const OTHER_DESCRIPTORS: usize = 64;
/// Whoever sees one hello can try tokens without asking the relay; 20 random characters are out of reach.
const STRONG_TOKEN: usize = 20;
/// For work on blocking threads (reading certificate files) when everything else has ended.
const RUNTIME_END: Duration = Duration::from_secs(1);

/// Runs the program with these arguments, the first of which is its name.
///
/// Blocks until the relay has ended; to be called outside of any async runtime, because it starts its own.
pub fn main(command_line: impl IntoIterator<Item = OsString>) -> ExitCode {
    let Loaded { args, problems, effective } = match load::<Args>(command_line) {
        Ok(loaded) => loaded,
        Err(error) => {
            // Nothing is left to do if the terminal is gone.
            let _ = error.print();
            return if error.use_stderr() { EXIT_BAD_CONFIGURATION.into() } else { ExitCode::SUCCESS };
        }
    };
    let (config, logs) = match args.config(problems) {
        Ok(config) => config,
        Err(problems) => {
            let _ = writeln!(io::stderr(), "{problems}");
            return EXIT_BAD_CONFIGURATION.into();
        }
    };
    match args.action {
        Action::CheckConfig => print(&effective),
        Action::Run => run(config, logs),
    }
}

fn print(effective: &Effective) -> ExitCode {
    match write!(io::stdout(), "{effective}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => EXIT_FAILED.into(),
    }
}

fn run(config: Config, logs: Logs) -> ExitCode {
    if let Err(error) = telemetry::init(logs.format, logs.filter) {
        let _ = writeln!(io::stderr(), "{}", chain(&error));
        return EXIT_FAILED.into();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the async runtime does not start");
            return EXIT_FAILED.into();
        }
    };
    let code = runtime.block_on(serve(config));
    runtime.shutdown_timeout(RUNTIME_END);
    code
}

async fn serve(config: Config) -> ExitCode {
    process::raise_descriptor_limit(config.limits.connections, OTHER_DESCRIPTORS);
    say_what_is_open(&config);
    let shutdown = Shutdown::new();
    let signals = match signals(shutdown.clone()) {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(%error, "signals cannot be handled");
            return EXIT_FAILED.into();
        }
    };
    let relay = match Relay::bind(config).await {
        Ok(relay) => relay,
        Err(error) => {
            tracing::error!(error = chain(&error), "the relay does not start");
            return EXIT_FAILED.into();
        }
    };
    if let (Ok(listen), Ok(admin)) = (relay.local_addr(), relay.admin_addr()) {
        let admin = admin.map_or_else(|| "none".to_owned(), |address| address.to_string());
        tracing::info!(%listen, admin, "relay listening");
    }
    // The signals end with the second one; the relay ends with or without them.
    let drained = {
        let mut relay = std::pin::pin!(relay.run(shutdown.clone()));
        tokio::select! {
            drained = &mut relay => drained,
            () = signals => relay.await,
            never = memory::give_back_what_is_free() => match never {},
        }
    };
    match drained {
        _ if shutdown.has_failed() => {
            tracing::error!("stopped because a part of the relay had ended");
            EXIT_FAILED.into()
        }
        Drained::Killed => {
            tracing::warn!("stopped at once");
            EXIT_FAILED.into()
        }
        Drained::Complete | Drained::CutOff => {
            tracing::info!(?drained, "stopped");
            ExitCode::SUCCESS
        }
    }
}

/// What is open, or nearly so, is because someone said so, and the log shows it.
fn say_what_is_open(config: &Config) {
    if config.admission.open && config.admission.access_token.is_none() {
        tracing::warn!("everybody who reaches this relay may use it, because open is set");
    }
    let token = config.admission.access_token.as_ref();
    if token.is_some_and(|token| token.expose().len() < STRONG_TOKEN) {
        tracing::warn!(
            "the access token is short enough to be guessed; give at least {STRONG_TOKEN} characters"
        );
    }
    if matches!(config.tls, Tls::PlainText) {
        tracing::warn!("peers connect without TLS, because plain-text is set");
    }
}

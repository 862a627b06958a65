//! `culvert dev`: a relay and a broker on this machine that stay, and what to type to use them.
//!
//! Both are in this process and need no other service: the broker keeps its database in a file, and tells
//! the relay directly what it revokes. They have a port each, because what a relay serves is no HTTP.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use culvert_relay::bus::memory::Hub;
use culvert_relay::config::{AdmissionPolicy, KeySource, TicketPolicy, Tls};
use culvert_service_kit::Secret;
use data_encoding::BASE32_NOPAD;

use crate::certificate::Authority;
use crate::cli::DevArgs;
use crate::embedded::{Embedded, EmbeddedBroker};
use crate::folders;
use crate::interrupt::Interrupt;

/// Longer than any ticket of the broker's.
const LONGEST_TICKET: Duration = Duration::from_secs(24 * 3600);

pub(crate) async fn run(args: DevArgs, interrupt: Interrupt) -> Result<()> {
    let folder = folders::data()?.join("dev");
    let authority = Authority::in_folder(&folder)?;
    let mut names = args.name.clone();
    if !args.listen.ip().is_loopback() && !args.listen.ip().is_unspecified() {
        names.push(args.listen.ip().to_string());
    }
    let tls = authority.issue(&names)?;
    let host = args.name.first().map_or("localhost", String::as_str);
    let relay_url = format!("wss://{host}:{}", args.listen.port());
    let broker_listen = match args.broker_listen {
        Some(listen) => listen,
        None => SocketAddr::new(args.listen.ip(), args.listen.port().checked_add(1).context("no next port")?),
    };
    let broker_url = format!("https://{host}:{}", broker_listen.port());
    let password_file = folder.join("institution-password");
    let hub = Hub::new();

    // First, because the relay asks it for the keys that sign tickets.
    let mut broker = culvert_broker_api::Config::embedded(
        broker_listen,
        &folder.join("broker.db"),
        Secret::new(Vec::new()),
    );
    // Its own, in a file beside the database.
    broker.data_keys.clear();
    broker.tls = Tls::Files(tls.clone());
    broker.public_url.clone_from(&broker_url);
    broker.names = names;
    broker.institution_password = Some(secret(&password_file)?);
    broker.relays = vec![relay_url.clone()];
    let mut broker = EmbeddedBroker::start(broker, hub.clone()).await?;

    let mut relay = Embedded::config(args.listen, tls);
    let token_file = folder.join("access-token");
    let needs_token = !args.listen.ip().is_loopback();
    let keys = format!("https://localhost:{}/.well-known/jwks.json", broker_listen.port());
    relay.admission = AdmissionPolicy {
        open: !needs_token,
        access_token: if needs_token { Some(secret(&token_file)?) } else { None },
        tickets: Some(TicketPolicy {
            keys: vec![KeySource::Url(keys.parse()?)],
            authorities: Some(authority.file()),
            ..TicketPolicy::files([], LONGEST_TICKET)
        }),
    };
    let mut relay = Embedded::start_on(&hub, relay).await?;

    let ca = shell(&authority.file());
    let token =
        if needs_token { format!(" --access-token-file {}", shell(&token_file)) } else { String::new() };
    let password = shell(&password_file);
    let mut out = io::stdout();
    writeln!(
        out,
        "A relay runs at {relay_url} and a broker at {broker_url} until Ctrl-C.\n\n\
         Pass a file to whoever has the link, from other terminals:\n\n\
         \x20 culvert doctor {relay_url} --ca-file {ca}{token}\n\
         \x20 culvert send --relay {relay_url} --ca-file {ca}{token} FILE\n\
         \x20 culvert receive --ca-file {ca} LINK\n\n\
         Or share it with those whom the broker knows, and let them fetch it while you serve:\n\n\
         \x20 culvert login --broker {broker_url} --user alice --by institution --password-file {password} --ca-file {ca}\n\
         \x20 culvert share FILE --ca-file {ca}\n\
         \x20 culvert serve . --ca-file {ca}\n\
         \x20 culvert fetch LINK --ca-file {ca}\n"
    )?;
    writeln!(
        out,
        "Each machine, and each home folder, is one user; set another HOME to be a second one on this machine."
    )?;
    if needs_token {
        writeln!(
            out,
            "On other machines, copy {ca} there first; a link to receive carries the access token."
        )?;
    }
    out.flush()?;
    let cancelled = interrupt.token();
    tokio::select! {
        () = cancelled.cancelled() => {
            relay.kill().await;
            broker.kill().await;
            Ok(())
        }
        () = relay.ended() => bail!("the relay has ended by itself; its log says why"),
        ended = broker.ended() => Err(ended),
    }
}

/// A secret that is kept here, made when it is first needed.
fn secret(path: &Path) -> Result<Secret<String>> {
    if !path.exists() {
        let mut bytes = [0; 20];
        rand::fill(&mut bytes);
        folders::write_private(path, BASE32_NOPAD.encode(&bytes).as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    folders::check_private(path)?;
    Ok(Secret::from_file(path)?)
}

/// A path as a shell takes it.
fn shell(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+@%:,".contains(c));
    if is_plain { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

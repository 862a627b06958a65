//! `culvert dev`: a relay on this machine that stays, and what to type to use it.

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use culvert_relay::config::AdmissionPolicy;
use culvert_service_kit::Secret;
use data_encoding::BASE32_NOPAD;

use crate::certificate::Authority;
use crate::cli::DevArgs;
use crate::embedded::Embedded;
use crate::folders;
use crate::interrupt::Interrupt;

pub(crate) async fn run(args: DevArgs, interrupt: Interrupt) -> Result<()> {
    let folder = folders::data()?.join("dev");
    let authority = Authority::in_folder(&folder)?;
    let mut names = args.name.clone();
    if !args.listen.ip().is_loopback() && !args.listen.ip().is_unspecified() {
        names.push(args.listen.ip().to_string());
    }
    let mut config = Embedded::config(args.listen, authority.issue(&names)?);
    let token_file = folder.join("access-token");
    let needs_token = !args.listen.ip().is_loopback();
    if needs_token {
        let token = access_token(&token_file)?;
        config.admission = AdmissionPolicy { access_token: Some(token), ..AdmissionPolicy::default() };
    }
    let mut relay = Embedded::start(config).await?;
    let host = args.name.first().map_or("localhost", String::as_str);
    let url = format!("wss://{host}:{}", relay.address().port());
    let ca = shell(&authority.file());
    let token =
        if needs_token { format!(" --access-token-file {}", shell(&token_file)) } else { String::new() };
    let mut out = io::stdout();
    writeln!(
        out,
        "A relay runs at {url} until Ctrl-C. Try it from other terminals:\n\n\
         \x20 culvert doctor {url} --ca-file {ca}{token}\n\
         \x20 culvert send --relay {url} --ca-file {ca}{token} FILE\n\
         \x20 culvert receive --ca-file {ca} LINK\n"
    )?;
    if needs_token {
        writeln!(out, "On other machines, copy {ca} there first; the link carries the access token.")?;
    }
    out.flush()?;
    let cancelled = interrupt.token();
    tokio::select! {
        () = cancelled.cancelled() => {
            relay.kill().await;
            Ok(())
        }
        () = relay.ended() => bail!("the relay has ended by itself; its log says why"),
    }
}

/// The token that is kept here, made when it is first needed.
fn access_token(path: &Path) -> Result<Secret<String>> {
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

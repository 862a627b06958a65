//! Passwords of the operator's users: asked for, read, or made up.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use anyhow::{Context, Result, bail, ensure};
use culvert_broker_wire::limits::MAX_PASSWORD;
use culvert_service_kit::Secret;
use data_encoding::BASE64URL_NOPAD;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

/// Asks on the terminal, twice and without echo; reads standard input where there is none.
pub(super) fn ask(purpose: &str) -> Result<Secret<String>> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        let first = prompted(&format!("{purpose}: "))?;
        let second = prompted("once more: ")?;
        ensure!(first == second, "the two are not the same");
        return Ok(first);
    }
    let mut text = String::new();
    // One byte more than fits, to notice what does not.
    let most = u64::try_from(MAX_PASSWORD)? + 3;
    stdin.lock().take(most).read_to_string(&mut text).context("cannot read standard input")?;
    let text = Secret::new(text);
    Ok(Secret::new(text.expose().trim_end_matches(['\r', '\n']).to_owned()))
}

/// One that nobody can guess: 18 random bytes.
pub(super) fn generate() -> Secret<String> {
    let mut bytes = [0; 18];
    rand::fill(&mut bytes);
    Secret::new(BASE64URL_NOPAD.encode(&bytes))
}

fn prompted(prompt: &str) -> Result<Secret<String>> {
    let mut stderr = io::stderr();
    write!(stderr, "{prompt}").and_then(|()| stderr.flush()).context("cannot write to the terminal")?;
    let stdin = io::stdin();
    let usual = tcgetattr(&stdin).context("cannot read the terminal's settings")?;
    let mut silent = usual.clone();
    silent.local_modes -= LocalModes::ECHO;
    silent.local_modes |= LocalModes::ECHONL;
    tcsetattr(&stdin, OptionalActions::Flush, &silent).context("cannot switch off the terminal's echo")?;
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    tcsetattr(&stdin, OptionalActions::Flush, &usual).context("cannot switch on the terminal's echo")?;
    let line = Secret::new(line);
    if read.context("cannot read from the terminal")? == 0 {
        bail!("nothing was typed");
    }
    Ok(Secret::new(line.expose().trim_end_matches(['\r', '\n']).to_owned()))
}

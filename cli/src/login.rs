//! `culvert login`: proves to a broker who this is, once, and keeps a session.

use std::io::{self, IsTerminal as _, Read as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use culvert_client::broker::{BrokerApi, BrokerUrl, Login, Logins};
use zeroize::Zeroizing;

use crate::broker_args::{LoginArgs, Way};
use crate::broker_session::failed;
use crate::failure::Code;
use crate::report::Report;
use crate::{folders, id};

/// How long one answer may take; a password is stretched on the way.
const ANSWER: Duration = Duration::from_secs(30);
/// Longest password that is read, in bytes.
const MAX_PASSWORD: u64 = 1024;

pub(crate) async fn run(args: LoginArgs) -> Result<()> {
    let needed = |what: &'static str| move || Code::Usage.because(what);
    let broker = args.broker.broker.clone().ok_or_else(needed("name the broker: --broker https://host"))?;
    let user = args.broker.user.clone().ok_or_else(needed("say who you are there: --user NAME"))?;
    let identity = id::identity()?;
    let options = args.broker.network.options()?;
    let api = BrokerApi::new(broker.clone(), &options, args.broker.allow_plain_text, ANSWER).await;
    let api = api.map_err(|error| Code::Usage.with(error))?;
    let name = device_name();
    let login = match args.by {
        Way::Account => {
            let password = password(args.password_file.as_deref(), &format!("Password of {user}: "))?;
            api.login_account_on(&user, &password, &identity, &name).await
        }
        Way::Institution => {
            let password = password(args.password_file.as_deref(), "The institution's password: ")?;
            let pinned = pinned(&broker)?;
            let login =
                api.login_institution(&user, &password, &identity, Some(&name), pinned.as_deref()).await;
            login.map(|(login, key)| Login { broker_key: Some(key), ..login })
        }
        Way::Device => api.login_device(&user, &identity).await,
    };
    let login = login.map_err(|error| failed(error, &broker))?;
    let until = login.expires_at.map(|end| format!(" until {end}")).unwrap_or_default();
    let note = format!("Logged in at {broker} as {}{until}.", login.user_id);
    Logins::in_folder(folders::data()?)?.keep(login)?;
    Report::new(false).note(note);
    Ok(())
}

/// The broker's key as an earlier login here saw it.
fn pinned(broker: &BrokerUrl) -> Result<Option<String>> {
    let logins = Logins::in_folder(folders::data()?)?;
    let known =
        logins.latest(|login| login.broker_key.is_some() && login.broker().is_ok_and(|url| url == *broker));
    Ok(known.and_then(|login| login.broker_key.clone()))
}

/// A password from a file, the terminal or standard input; the end of the line is not a part of it.
fn password(file: Option<&Path>, prompt: &str) -> Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    match file {
        Some(path) => {
            let file = std::fs::File::open(path);
            let file = file.with_context(|| format!("cannot read the password in {}", path.display()))?;
            file.take(MAX_PASSWORD + 2).read_to_string(&mut text)?;
        }
        None if io::stdin().is_terminal() => {
            let terminal = console::Term::stderr();
            terminal.write_str(prompt)?;
            text = Zeroizing::new(terminal.read_secure_line()?);
        }
        None => drop(io::stdin().take(MAX_PASSWORD + 2).read_to_string(&mut text)?),
    }
    let password = text.trim_end_matches(['\r', '\n']);
    ensure!(!password.is_empty(), Code::Usage.because("there is no password"));
    Ok(Zeroizing::new(password.to_owned()))
}

/// What this machine is called in lists of devices.
fn device_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "culvert".to_owned() } else { name.chars().take(64).collect() }
}

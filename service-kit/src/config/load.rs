//! From the command line, the environment and the file to the texts of all settings.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches};

use super::given::variable;
use super::{FILE_KEY, Given, Origin, Problems, file};
use crate::secret::MASK;

/// What was typed, from all places together.
#[derive(Debug)]
pub struct Loaded<A> {
    /// The texts of all settings.
    pub args: A,
    /// What is wrong with the file; further problems are added while the texts are read.
    pub problems: Problems,
    /// Every setting with its text and where that comes from.
    pub effective: Effective,
}

/// Loads settings: flags over environment over the file that the setting `config` names.
///
/// Only a command line that clap cannot take apart (an unknown flag, `--help`) is an error here.
pub fn load<A: CommandFactory + FromArgMatches>(
    command_line: impl IntoIterator<Item = OsString>,
) -> Result<Loaded<A>, clap::Error> {
    load_with_aliases(command_line, &[])
}

/// The same where settings have second environment variables, given as variable and setting. One counts
/// where the setting's own is not set.
pub fn load_with_aliases<A: CommandFactory + FromArgMatches>(
    command_line: impl IntoIterator<Item = OsString>,
    aliases: &[(&'static str, &str)],
) -> Result<Loaded<A>, clap::Error> {
    let command_line: Vec<OsString> = command_line.into_iter().collect();
    let mut command = renamed(A::command(), aliases, |name| std::env::var_os(name).is_some());
    let variables = command.clone();
    let mut problems = Problems::new();
    let mut in_file = Vec::new();

    let first = command.clone().try_get_matches_from(&command_line)?;
    if let Some(path) = first.try_get_one::<Given<PathBuf>>(FILE_KEY).ok().flatten()
        && let Some(path) = problems.read(path)
    {
        let known: Vec<String> =
            settings(&command).map(|(key, _)| key).filter(|key| key != FILE_KEY).collect();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        for (key, text) in file::read(&path, &known, &mut problems) {
            // clap already ranks a flag over the environment over the default, so the file is the default.
            let id = settings(&command).find(|(name, _)| *name == key).map(|(_, arg)| arg.get_id().clone());
            if let Some(id) = id {
                command = command.mut_arg(id, |arg| arg.default_value(text));
                in_file.push(key);
            }
        }
    }

    let matches = command.clone().try_get_matches_from(&command_line)?;
    let effective = Effective::collect(&variables, &matches, &in_file);
    let args = A::from_arg_matches(&matches).map_err(|error| error.with_cmd(&command))?;
    Ok(Loaded { args, problems, effective })
}

/// Lets each setting whose own variable is not set read its alias, if that is.
fn renamed(mut command: Command, aliases: &[(&'static str, &str)], is_set: impl Fn(&str) -> bool) -> Command {
    for (alias, key) in aliases {
        let found = settings(&command).find(|(name, _)| name == key);
        let own = found.as_ref().and_then(|(_, arg)| variable(arg));
        let id = found.map(|(_, arg)| arg.get_id().clone());
        if let Some(id) = id
            && is_set(alias)
            && !own.is_some_and(|own| is_set(&own))
        {
            command = command.mut_arg(id, |arg| arg.env(*alias));
        }
    }
    command
}

/// The settings of a command with their names, in order of declaration.
pub(super) fn settings(command: &Command) -> impl Iterator<Item = (String, &clap::Arg)> {
    command
        .get_arguments()
        .filter_map(|arg| arg.get_long().map(|name| (name.to_owned(), arg)))
        .filter(|(name, _)| name != "help" && name != "version")
}

/// Every setting with its text and where that comes from, as it is in effect.
///
/// Displayed as a TOML file that gives the same settings, with the origin of each as a comment. Settings
/// that are absent are comments, and so are secrets, masked: those that hide their environment value (clap's
/// `hide_env_values`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective(Vec<(String, Option<String>, Origin)>);

impl Effective {
    fn collect(command: &Command, matches: &ArgMatches, in_file: &[String]) -> Self {
        let line = |(key, arg): (String, &clap::Arg)| {
            let id = arg.get_id().as_str();
            let text =
                matches.try_get_raw(id).ok().flatten().and_then(|mut texts| texts.next_back()).map(|text| {
                    if arg.is_hide_env_values_set() {
                        MASK.into()
                    } else {
                        text.to_string_lossy().into_owned()
                    }
                });
            let origin = match matches.value_source(id) {
                Some(ValueSource::CommandLine) => Origin::Flag,
                Some(ValueSource::EnvVariable) => Origin::Environment(variable(arg).unwrap_or_default()),
                _ if in_file.contains(&key) => Origin::File,
                _ => Origin::Default,
            };
            (key, text, origin)
        };
        Self(settings(command).filter(|(key, _)| key != FILE_KEY).map(line).collect())
    }

    /// Every setting, its text and where that comes from, in order of declaration.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>, &Origin)> {
        self.0.iter().map(|(key, text, origin)| (&**key, text.as_deref(), origin))
    }
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, text, origin) in self.iter() {
            match text {
                Some(MASK) => writeln!(f, "# {key} = {MASK}  # {origin}")?,
                Some(text) => writeln!(f, "{key} = {}  # {origin}", toml::Value::from(text))?,
                None => writeln!(f, "# {key} is not set")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag => f.write_str("flag"),
            Origin::Environment(variable) => f.write_str(variable),
            Origin::File => f.write_str("file"),
            Origin::Default => f.write_str("default"),
        }
    }
}

//! The settings of a command as Markdown: the source of `docs/configuration.md`.

use std::fmt::Write;

use clap::{Arg, Command};

use super::given::variable;
use super::load::settings;

/// Renders every setting of a command: one table per help heading, in order of declaration.
pub fn markdown_tables(command: &Command) -> String {
    let mut tables: Vec<(&str, String)> = Vec::new();
    for (key, arg) in settings(command) {
        let heading = arg.get_help_heading().unwrap_or("General");
        let row = row(&key, arg);
        match tables.iter_mut().find(|(other, _)| *other == heading) {
            Some((_, rows)) => rows.push_str(&row),
            None => tables.push((heading, row)),
        }
    }
    tables.iter().fold(String::new(), |mut text, (heading, rows)| {
        // Writing to a string does not fail.
        let _ = write!(text, "\n## {heading}\n\n{HEAD}{rows}");
        text
    })
}

const HEAD: &str = "| Setting | Value | Default | Environment | Meaning |\n| --- | --- | --- | --- | --- |\n";

fn row(key: &str, arg: &Arg) -> String {
    let form = arg.get_value_names().map(|names| names.join(" ")).unwrap_or_default();
    let default = code(arg.get_default_values().first().map(|value| value.to_string_lossy().into_owned()));
    let environment = code(variable(arg));
    let help = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    // clap takes the full stop off a help text of one paragraph.
    let stop = if help.ends_with('.') { "" } else { "." };
    format!("| `{key}` | {form} | {default} | {environment} | {help}{stop} |\n")
}

fn code(text: Option<String>) -> String {
    text.map_or_else(|| "–".to_owned(), |text| format!("`{text}`"))
}

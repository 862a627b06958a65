//! The TOML file: flat, keys named like the flags.

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::Problems;

/// Names closer than this (Jaro-Winkler, 0 to 1) are suggested; below it suggestions mislead.
const SIMILAR: f64 = 0.8;

/// Reads the texts of a file's settings; everything that is not a setting is a problem.
pub(super) fn read(path: &Path, known: &[&str], problems: &mut Problems) -> BTreeMap<String, String> {
    let content = match std::fs::read_to_string(path) {
        Ok(content) => content,
        Err(error) => {
            problems.push(super::FILE_KEY, format!("{}: {error}", path.display()));
            return BTreeMap::new();
        }
    };
    let (table, errors) = DeTable::parse_recoverable(&content);
    for error in errors {
        // The parser's full message quotes the line, which may hold what should not be printed.
        let line = error.span().map_or(0, |span| line_of(&content, span.start));
        problems.push(super::FILE_KEY, format!("{} line {line}: {}", path.display(), error.message()));
    }
    let mut texts = BTreeMap::new();
    for (key, value) in table.into_inner() {
        let line = line_of(&content, key.span().start);
        let key = key.into_inner().into_owned();
        if !known.contains(&&*key) {
            let place = format!("{} line {line}", path.display());
            problems.push(&key, format!("is not a setting ({place}){}", suggestion(&key, known)));
        } else if let Some(text) = text(value.get_ref()) {
            texts.insert(key, text);
        } else {
            let place = format!("{} line {line}", path.display());
            problems.push(&key, format!("must be a text, a number, true or false, or a list ({place})"));
        }
    }
    texts
}

/// A value as it would have been typed for a flag.
fn text(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.clone().into_owned()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().replace('_', "")),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(|n| n.to_string())
        }
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(value) => Some(value.to_string()),
        DeValue::Datetime(moment) => Some(moment.to_string()),
        DeValue::Array(values) => {
            let texts: Option<Vec<String>> = values
                .iter()
                .map(|value| match value.get_ref() {
                    DeValue::Array(_) => None,
                    value => text(value),
                })
                .collect();
            Some(texts?.join(","))
        }
        DeValue::Table(_) => None,
    }
}

fn line_of(content: &str, offset: usize) -> usize {
    content.bytes().take(offset).filter(|&byte| byte == b'\n').count() + 1
}

fn suggestion(key: &str, known: &[&str]) -> String {
    let key = key.replace('_', "-");
    known
        .iter()
        .map(|name| (strsim::jaro_winkler(&key, name), name))
        .filter(|(similarity, _)| *similarity > SIMILAR)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| format!(", did you mean {name}?"))
        .unwrap_or_default()
}

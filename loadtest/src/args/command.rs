//! The command as a report records it: to be repeated, and with nothing secret in it.

use std::ffi::OsString;

use url::Url;

/// Names whose values are not recorded, in `--relay-arg` and everywhere else.
const SECRET: [&str; 3] = ["token=", "password=", "secret="];

/// The words, quoted for a shell, secrets masked.
pub(super) fn recorded(words: &[OsString]) -> String {
    let program = std::iter::once("culvert-loadtest".to_owned());
    let rest = words.iter().skip(1).map(|word| quoted(&masked(&word.to_string_lossy())));
    program.chain(rest).collect::<Vec<_>>().join(" ")
}

fn masked(word: &str) -> String {
    // A URL may be a word of its own or the end of one.
    let at = word.find("://").map(|at| word[..at].rfind(['=', ' ', ',']).map_or(0, |before| before + 1));
    if let Some(at) = at
        && let Ok(mut url) = Url::parse(&word[at..])
        && (url.password().is_some() || !url.username().is_empty())
    {
        // Only URLs without a host have no place for a name, and this one has a name.
        let _masked = url.set_username("***").and_then(|()| url.set_password(None));
        return format!("{}{url}", &word[..at]);
    }
    match SECRET.iter().find_map(|name| word.find(name).map(|at| at + name.len())) {
        Some(end) => format!("{}***", &word[..end]),
        None => word.to_owned(),
    }
}

fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_=./:@,+%*".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(words: &[&str]) -> String {
        recorded(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn a_command_is_recorded_as_it_has_to_be_typed_again() {
        let line =
            record(&["/tmp/x", "steady", "--spawn", "1", "--fail-if", "p99>5ms", "--json", "it's.json"]);
        assert_eq!(line, r"culvert-loadtest steady --spawn 1 --fail-if 'p99>5ms' --json 'it'\''s.json'");
    }

    #[test]
    fn what_lets_its_reader_in_is_not_recorded() {
        let line = record(&[
            "x",
            "steady",
            "--url",
            "wss://ann:hunter2@relay.example/",
            "--url=ws://bob:hunter2@b:1",
            "--relay-arg",
            "redis=redis://:hunter2@c:6379",
            "--relay-arg",
            "access-token=hunter2",
        ]);
        assert!(!line.contains("hunter2"), "{line}");
        assert!(line.contains("wss://***@relay.example/") && line.contains("--url=ws://***@b:1"), "{line}");
    }
}

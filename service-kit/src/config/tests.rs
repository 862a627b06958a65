//! Settings from all three places, and everything that can be wrong with them.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{CommandFactory, Parser};

use super::*;
use crate::proxy_protocol::TrustedSources;
use crate::secret::Secret;

#[derive(Debug, Parser)]
struct Args {
    /// TOML file with settings.
    #[arg(long, value_name = "FILE")]
    config: Option<Given<PathBuf>>,
    /// Silence after which a peer is asked
    /// for a sign of life.
    #[arg(long, value_name = "DURATION", default_value = "15s", help_heading = "Timing")]
    keepalive: Given<Duration>,
    /// Silence after which a peer is closed.
    #[arg(long, value_name = "DURATION", default_value = "45s", help_heading = "Timing")]
    idle_timeout: Given<Duration>,
    /// Bytes that wait for one peer.
    #[arg(long, value_name = "SIZE", default_value = "1MiB", help_heading = "Limits")]
    queue_bytes: Given<ByteSize>,
    /// Balancers.
    #[arg(long, value_name = "LIST", help_heading = "Limits")]
    trusted: Option<Given<TrustedSources>>,
    /// Whether to be loud. `PATH` stands in for a variable that is certainly set.
    #[arg(long, env = "PATH", default_value = "false", num_args = 0..=1, default_missing_value = "true")]
    loud: Given<String>,
    /// Never shown.
    #[arg(long, env = "HOME", hide_env_values = true)]
    token: Option<Given<Secret<String>>>,
    /// Holds another.
    #[arg(long)]
    password_file: Option<Given<PathBuf>>,
    /// Taken from the environment only, and there it is not set.
    #[arg(long, env = "CULVERT_TEST_VARIABLE_THAT_NOBODY_SETS", hide_env_values = true)]
    password: Option<Given<Secret<String>>>,
}

/// What [`Args`] mean.
#[derive(Debug, PartialEq)]
struct Config {
    keepalive: Duration,
    idle_timeout: Duration,
    queue_bytes: u64,
    trusted: TrustedSources,
}

fn config(loaded: Loaded<Args>) -> Result<Config, Problems> {
    let Loaded { args, mut problems, .. } = loaded;
    problems.require_less(&args.keepalive, &args.idle_timeout);
    let keepalive = problems.read(&args.keepalive);
    let idle_timeout = problems.read(&args.idle_timeout);
    let queue_bytes =
        problems.read_checked(&args.queue_bytes, "at least 16KiB", |size| size.as_u64() >= 16 * 1024);
    let trusted = problems.read_optional(&args.trusted).unwrap_or_default();
    let config = (|| {
        Some(Config {
            keepalive: keepalive?,
            idle_timeout: idle_timeout?,
            queue_bytes: queue_bytes?.as_u64(),
            trusted,
        })
    })();
    problems.finish(config)
}

fn loaded(flags: &[&str]) -> Loaded<Args> {
    load(["test"].iter().chain(flags).map(Into::into)).unwrap()
}

/// Loads with this file; the folder disappears afterwards.
fn with_file(content: &str, flags: &[&str]) -> Loaded<Args> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    loaded(&[&["--config", file.path().to_str().unwrap()], flags].concat())
}

fn sentences(problems: &Problems) -> Vec<String> {
    problems.iter().map(|problem| format!("{}: {}", problem.key, problem.sentence)).collect()
}

#[test]
fn defaults_apply_where_nothing_was_given() {
    let expected = Config {
        keepalive: Duration::from_secs(15),
        idle_timeout: Duration::from_secs(45),
        queue_bytes: 1 << 20,
        trusted: TrustedSources::default(),
    };
    assert_eq!(config(loaded(&[])).unwrap(), expected);
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    let file = "keepalive = '20s'\nidle-timeout = '40s'\nloud = true\ntrusted = ['10.0.0.0/8', '192.0.2.7']\nqueue-bytes = 65_536\n";
    let loaded = with_file(file, &["--idle-timeout", "30s"]);
    assert_eq!(loaded.args.loud.text(), std::env::var("PATH").unwrap());
    let origins: Vec<(String, Origin)> =
        loaded.effective.iter().map(|(key, _, origin)| (key.to_owned(), origin.clone())).collect();
    for (key, origin) in [
        ("keepalive", Origin::File),
        ("idle-timeout", Origin::Flag),
        ("trusted", Origin::File),
        ("loud", Origin::Environment("PATH".into())),
    ] {
        assert!(origins.contains(&(key.to_owned(), origin)), "{key} in {origins:?}");
    }
    let expected = Config {
        keepalive: Duration::from_secs(20),
        idle_timeout: Duration::from_secs(30),
        queue_bytes: 65_536,
        trusted: "10.0.0.0/8,192.0.2.7".parse().unwrap(),
    };
    assert_eq!(config(loaded).unwrap(), expected);
}

#[test]
fn a_second_variable_counts_where_the_first_is_not_set_and_is_named_as_the_origin() {
    let aliases = [
        ("HOME", "keepalive"),
        ("HOME", "loud"),
        ("CULVERT_TEST_VARIABLE_THAT_NOBODY_SETS", "password-file"),
    ];
    let loaded = load_with_aliases::<Args>(["test".into()], &aliases).unwrap();
    assert_eq!(loaded.args.keepalive.text(), std::env::var("HOME").unwrap());
    assert_eq!(loaded.args.loud.text(), std::env::var("PATH").unwrap(), "its own variable wins");
    assert!(loaded.args.password_file.is_none());
    let origin =
        loaded.effective.iter().find(|(key, ..)| *key == "keepalive").map(|(.., origin)| origin.clone());
    assert_eq!(origin, Some(Origin::Environment("HOME".into())));
    let flag = load_with_aliases::<Args>(["test".into(), "--keepalive=1s".into()], &aliases).unwrap();
    assert_eq!(flag.args.keepalive.text(), "1s");
}

#[test]
fn all_problems_are_reported_at_once_with_key_and_accepted_form() {
    let file = "idle_timeout = '1s'\nqueue-bytes = '1KiB'\ntrusted = { from = 'x' }\ncolour = 'red'\n";
    let problems = config(with_file(file, &["--keepalive", "soon"])).unwrap_err();
    let text = sentences(&problems).join("\n");
    for part in [
        "idle_timeout: is not a setting",
        "line 1), did you mean idle-timeout?",
        "queue-bytes: is 1KiB and must be at least 16KiB",
        "trusted: must be a text, a number, true or false, or a list",
        "colour: is not a setting",
        "keepalive (--keepalive): `soon` is not a duration such as 30s or 500ms",
    ] {
        assert!(text.contains(part), "{part} not in\n{text}");
    }
    assert_eq!(problems.iter().count(), 5, "{problems}");
    assert!(problems.to_string().starts_with("5 problems with the configuration:\n  "), "{problems}");
}

#[test]
fn settings_are_checked_against_each_other_wherever_they_come_from() {
    let problems = config(with_file("idle-timeout = '10s'", &["--keepalive=10s"])).unwrap_err();
    let expected = "keepalive (--keepalive): is 10s and must be less than idle-timeout, which is 10s";
    assert_eq!(sentences(&problems), [expected]);
}

#[test]
fn a_secret_comes_from_its_variable_or_its_file_and_from_nowhere_else() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "hunter2\n").unwrap();
    let path = file.path().to_str().unwrap();

    let args = loaded(&["--password-file", path]).args;
    let mut problems = Problems::new();
    let secret = problems.read_secret(&args.password, &args.password_file).unwrap();
    assert_eq!(secret.expose(), "hunter2");
    let home = problems.read_secret(&args.token, &None).unwrap();
    assert_eq!(*home.expose(), std::env::var("HOME").unwrap());
    assert!(problems.read_secret(&args.password, &None).is_none() && problems.is_empty());

    assert!(problems.read_secret(&args.token, &args.password_file).is_none());
    let args = loaded(&["--password", "hunter2"]).args;
    assert!(problems.read_secret(&args.password, &None).is_none());
    let args = with_file("password = 'hunter2'\npassword-file = '/nonexistent'", &[]).args;
    assert!(problems.read_secret(&args.password, &None).is_none());
    assert!(problems.read_secret(&None, &args.password_file).is_none());
    assert_eq!(
        sentences(&problems),
        [
            "token (HOME): is given twice, also by password-file",
            "password: is a secret and taken from its environment variable or a file only",
            "password: is a secret and taken from its environment variable or a file only",
            "password-file: /nonexistent: No such file or directory (os error 2)",
        ]
    );
    assert!(!format!("{args:?}").contains("hunter2"));
}

#[test]
fn a_missing_or_broken_file_is_a_problem_beside_the_others() {
    let problems = config(loaded(&["--config", "/nonexistent/relay.toml", "--keepalive", "x"])).unwrap_err();
    let text = sentences(&problems);
    assert!(text[0].starts_with("config: /nonexistent/relay.toml: No such file"), "{text:?}");
    assert_eq!(text.len(), 2);

    let problems = config(with_file("keepalive = '1s'\nidle-timeout = = secret\n", &[])).unwrap_err();
    let text = problems.to_string();
    assert!(text.contains("line 2") && !text.contains("secret"), "{text}");
}

#[test]
fn a_command_line_that_cannot_be_taken_apart_is_an_error() {
    let error = load::<Args>(["test", "--keepalives", "1s"].map(Into::into)).unwrap_err();
    assert!(error.to_string().contains("--keepalives"), "{error}");
}

#[test]
fn the_effective_settings_are_a_file_that_gives_the_same_and_hide_secrets() {
    let before = with_file("keepalive = '20s'", &["--trusted", "10.0.0.0/8"]);
    let text = before.effective.to_string();
    assert!(text.contains("keepalive = \"20s\"  # file\n"), "{text}");
    assert!(text.contains("# token = ***  # HOME\n"), "{text}");
    assert_eq!(text.lines().count(), before.effective.iter().count());
    assert_eq!(config(with_file(&text, &[])).unwrap(), config(before).unwrap());
}

#[test]
fn the_documentation_has_every_setting_under_its_heading() {
    let text = markdown_tables(&Args::command());
    let row =
        "| `keepalive` | DURATION | `15s` | – | Silence after which a peer is asked for a sign of life. |";
    assert!(text.contains(row), "{text}");
    assert!(text.contains("## Timing\n") && text.contains("## Limits\n"), "{text}");
    assert!(text.contains("| `loud` | LOUD | `false` | `PATH` |"), "{text}");
}

#[test]
fn values_are_written_as_people_write_them() {
    assert_eq!(Duration::parse("1m 30s"), Some(Duration::from_secs(90)));
    assert_eq!(Duration::parse("500ms"), Some(Duration::from_millis(500)));
    assert_eq!(Duration::parse("30"), None);
    assert_eq!(ByteSize::parse("1MiB"), Some(ByteSize(1 << 20)));
    assert_eq!(ByteSize::parse("4096"), Some(ByteSize(4096)));
    assert_eq!(ByteSize::parse("-1"), None);
    assert_eq!(Vec::<u16>::parse("1, 2,3"), Some(vec![1, 2, 3]));
    assert_eq!(Vec::<u16>::parse("1,,3"), None);
    assert_eq!(PathBuf::parse(""), None);
}

//! What is shown while files pass: bars on a terminal, lines elsewhere, JSON for programs.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use culvert_client::transfer::{Event, Progress};
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressStyle};
use serde_json::{Value, json};

/// Least time between two lines about progress where there is no bar.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Least time between two JSON objects about progress.
const JSON_EVERY: Duration = Duration::from_millis(250);

/// Shows a transfer. Clones show the same one.
#[derive(Clone)]
pub(crate) struct Report {
    shown: Arc<Shown>,
}

struct Shown {
    form: Form,
    state: Mutex<State>,
}

enum Form {
    Bar(ProgressBar),
    Lines,
    Json,
}

struct State {
    started: Instant,
    /// When bytes came first: rates count from here.
    moving: Option<(Instant, u64)>,
    /// Bytes that a receiver had before; a sender is not told.
    present: Option<u64>,
    last: Option<Instant>,
    total: u64,
    have: u64,
}

impl Report {
    /// A bar where standard error is a terminal; with `json`, objects on standard output.
    pub(crate) fn new(json: bool) -> Self {
        let form = if json {
            Form::Json
        } else if io::stderr().is_terminal() {
            let bar = ProgressBar::no_length();
            bar.set_style(spinner());
            Form::Bar(bar)
        } else {
            Form::Lines
        };
        let state =
            State { started: Instant::now(), moving: None, present: None, last: None, total: 0, have: 0 };
        Self { shown: Arc::new(Shown { form, state: Mutex::new(state) }) }
    }

    /// What takes a transfer's events.
    pub(crate) fn progress(&self) -> Progress {
        let report = self.clone();
        Arc::new(move |event| report.take(event))
    }

    /// Says something on the way.
    pub(crate) fn note(&self, text: impl AsRef<str>) {
        match &self.shown.form {
            Form::Bar(bar) => bar.println(text.as_ref()),
            Form::Lines => line(&mut io::stderr(), text.as_ref()),
            Form::Json => self.object(&json!({ "event": "note", "text": text.as_ref() })),
        }
    }

    /// A result: to standard output, as text or as JSON.
    pub(crate) fn result(&self, text: &str, value: &Value) {
        match &self.shown.form {
            Form::Bar(bar) => bar.suspend(|| line(&mut io::stdout(), text)),
            Form::Lines => line(&mut io::stdout(), text),
            Form::Json => self.object(value),
        }
    }

    /// Takes the bar away and gives bytes and time, for people.
    pub(crate) fn end(&self) -> String {
        if let Form::Bar(bar) = &self.shown.form {
            bar.finish_and_clear();
        }
        let state = self.state();
        let (since, first) = state.moving.unwrap_or((state.started, 0));
        summary(state.have - first.min(state.have), since.elapsed())
    }

    fn object(&self, value: &Value) {
        line(&mut io::stdout(), &value.to_string());
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.shown.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, event: Event) {
        match event {
            Event::Listed { entries, bytes } => self.sized(bytes, &describe(entries, bytes)),
            Event::Offered { name, stream: true, .. } => self.sized(0, &format!("Receiving {name}")),
            Event::Offered { name, entries, bytes, .. } => {
                self.sized(bytes, &format!("Receiving {name}: {}", describe(entries, bytes)));
            }
            Event::Hashing { done, total } => self.hashing(done, total),
            Event::Advanced { have } => self.advanced(have),
            Event::Started { path, size, present } => {
                *self.state().present.get_or_insert_default() += present;
                if present == 0 {
                    return;
                }
                let of = if size > 0 { format!(" of {}", HumanBytes(size)) } else { String::new() };
                self.note(format!("{path}: going on at {}{of}", HumanBytes(present)));
            }
            Event::Finished { path } => {
                if let Form::Json = self.shown.form {
                    self.object(&json!({ "event": "finished", "path": path }));
                }
            }
            Event::Skipped { path, reason } => self.note(format!("{path}: skipped, {reason}")),
            Event::Renamed { from, to } => self.note(format!("{from}: received as {to}")),
        }
    }

    fn sized(&self, bytes: u64, text: &str) {
        self.state().total = bytes;
        if let Form::Json = self.shown.form {
            return self.object(&json!({ "event": "size", "bytes": bytes, "text": text }));
        }
        self.note(text);
    }

    fn hashing(&self, done: u64, total: u64) {
        if let Form::Bar(bar) = &self.shown.form
            && self.state().moving.is_none()
        {
            bar.set_message(format!("hashing {} of {}", HumanBytes(done), HumanBytes(total)));
            bar.tick();
        }
    }

    fn advanced(&self, have: u64) {
        let mut state = self.state();
        let now = Instant::now();
        let begins = state.moving.is_none();
        if begins {
            state.moving = Some((now, state.present.unwrap_or(have).min(have)));
            if let Form::Lines = self.shown.form {
                // There is nothing to say about a rate yet.
                state.last = Some(now);
            }
        }
        state.have = have;
        let total = state.total;
        let due = |every, state: &mut State| {
            let due = state.last.is_none_or(|last| last.elapsed() >= every) || (have == total && total > 0);
            if due {
                state.last = Some(now);
            }
            due
        };
        match &self.shown.form {
            Form::Bar(bar) => {
                if begins {
                    bar.set_message("");
                    if total > 0 {
                        bar.set_length(total);
                        bar.set_style(style());
                    }
                    // What was there before does not count for the rate.
                    bar.set_position(have);
                    bar.reset_eta();
                }
                bar.set_position(have);
            }
            Form::Lines if due(LINE_EVERY, &mut state) => {
                let (since, first) = state.moving.unwrap_or((now, have));
                drop(state);
                let rate = rate(have - first.min(have), since.elapsed());
                let of = if total > 0 { format!(" of {}", HumanBytes(total)) } else { String::new() };
                line(&mut io::stderr(), &format!("{}{of}, {}/s", HumanBytes(have), HumanBytes(rate)));
            }
            Form::Json if due(JSON_EVERY, &mut state) => {
                drop(state);
                self.object(&json!({ "event": "progress", "bytes": have, "of": total }));
            }
            Form::Lines | Form::Json => {}
        }
    }
}

/// Shorter than this, a rate says more about the clock than about the network.
const LEAST_FOR_A_RATE: Duration = Duration::from_millis(50);

/// Bytes, time and rate, for people.
pub(crate) fn summary(bytes: u64, time: Duration) -> String {
    let shown = if time < Duration::from_secs(60) {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        HumanDuration(time).to_string()
    };
    if time < LEAST_FOR_A_RATE {
        return format!("{} in {shown}", HumanBytes(bytes));
    }
    format!("{} in {shown}, {}/s", HumanBytes(bytes), HumanBytes(rate(bytes, time)))
}

fn rate(bytes: u64, time: Duration) -> u64 {
    let micros = time.as_micros().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000 / micros).unwrap_or(u64::MAX)
}

fn describe(entries: u64, bytes: u64) -> String {
    format!("{}, {}", files(entries), HumanBytes(bytes))
}

/// So many files and folders.
pub(crate) fn files(entries: u64) -> String {
    if entries == 1 { "1 file".to_owned() } else { format!("{entries} files and folders") }
}

/// A terminal or pipe that is gone must not stop a transfer.
fn line(out: &mut impl Write, text: &str) {
    let _ = writeln!(out, "{text}");
}

fn style() -> ProgressStyle {
    let template = "{bar:30} {percent:>3} %  {bytes} of {total_bytes}  {binary_bytes_per_sec}  {eta} left";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn spinner() -> ProgressStyle {
    let template = "{spinner} {msg} {bytes}  {binary_bytes_per_sec}";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

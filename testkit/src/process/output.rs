//! What a process printed, line by line, for whoever waits for a line.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::sync::watch;

/// Most lines that are kept; older ones are dropped.
const MOST_LINES: usize = 20_000;
/// Longest line, so that a stream without line ends stays bounded.
const LONGEST_LINE: u64 = 64 * 1024;
/// Lines in an error message.
const TAIL: usize = 80;

/// Where a line was printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line, without its end.
#[derive(Debug, Clone)]
pub struct Line {
    /// Where it was printed.
    pub source: Source,
    /// What; bytes that are no UTF-8 are replaced.
    pub text: String,
}

/// Both streams of a process. Cheap to clone; all clones see the same.
#[derive(Clone)]
pub struct Output {
    lines: Arc<Mutex<Lines>>,
    changed: Arc<watch::Sender<()>>,
}

#[derive(Default)]
struct Lines {
    kept: VecDeque<Line>,
    dropped: usize,
    streams_ended: usize,
}

impl Default for Output {
    fn default() -> Self {
        Self { lines: Arc::default(), changed: Arc::new(watch::Sender::new(())) }
    }
}

impl Output {
    pub(super) async fn collect(self, source: Source, stream: impl AsyncRead + Unpin) {
        let mut stream = BufReader::new(stream);
        loop {
            let mut bytes = Vec::new();
            let read = (&mut stream).take(LONGEST_LINE).read_until(b'\n', &mut bytes).await;
            if !matches!(read, Ok(1..)) {
                break;
            }
            // A progress bar rewrites its line: every state is a line of its own here.
            let text = String::from_utf8_lossy(&bytes);
            let mut lines = self.lines.lock();
            for part in text.split(['\n', '\r']).filter(|part| !part.is_empty()) {
                lines.kept.push_back(Line { source, text: part.to_owned() });
            }
            while lines.kept.len() > MOST_LINES {
                lines.kept.pop_front();
                lines.dropped += 1;
            }
            drop(lines);
            self.changed.send_replace(());
        }
        self.lines.lock().streams_ended += 1;
        self.changed.send_replace(());
    }

    /// Waits for the first line on which `wanted` gives something; `None` when both streams ended.
    pub async fn find<T>(&self, wanted: impl Fn(&str) -> Option<T>) -> Option<T> {
        let mut changed = self.changed.subscribe();
        let mut seen = 0usize;
        loop {
            changed.mark_unchanged();
            {
                let lines = self.lines.lock();
                let skip = seen.saturating_sub(lines.dropped);
                if let Some(found) = lines.kept.iter().skip(skip).find_map(|line| wanted(&line.text)) {
                    return Some(found);
                }
                seen = lines.dropped + lines.kept.len();
                if lines.streams_ended == 2 {
                    return None;
                }
            }
            changed.changed().await.ok()?;
        }
    }

    pub(super) async fn ended(&self) {
        self.find(|_| None::<()>).await;
    }

    /// The lines so far, oldest first.
    pub fn lines(&self) -> Vec<Line> {
        self.lines.lock().kept.iter().cloned().collect()
    }

    /// Everything so far on one stream.
    pub fn text(&self, source: Source) -> String {
        let lines = self.lines();
        lines.iter().filter(|line| line.source == source).map(|line| line.text.clone() + "\n").collect()
    }

    /// Whether some line contains this.
    pub fn contains(&self, part: &str) -> bool {
        self.lines.lock().kept.iter().any(|line| line.text.contains(part))
    }

    /// The last lines of both streams, for people.
    pub fn tail(&self) -> String {
        let lines = self.lines();
        let mut text = String::new();
        for line in lines.iter().skip(lines.len().saturating_sub(TAIL)) {
            let mark = if line.source == Source::Stdout { '|' } else { '!' };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{mark} {}", line.text);
        }
        text
    }
}

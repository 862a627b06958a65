//! The workers of a run, here and elsewhere, as the coordinator sees them.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use culvert_testkit::process::{Plan as Child, Process, Program};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::args::Crew as Wanted;
use crate::control::{self, Order, Receiver, SILENCE, Secret, Sender, Used, Word};
use crate::launch;
use crate::worker::LISTENING;

/// From the start of a worker process to its address, and for connecting to one.
const STARTED: Duration = Duration::from_secs(20);
/// Words that wait for the coordinator.
const WORDS: usize = 64;

/// All workers.
pub(super) struct Crew {
    hands: Vec<Hand>,
    words: mpsc::Receiver<(usize, Heard)>,
    _readers: JoinSet<()>,
}

/// One worker.
pub(super) struct Hand {
    /// Its name: worker 1.
    pub(super) name: String,
    /// What it had used before it was told anything.
    pub(super) used: Used,
    sender: Sender,
    /// Its process, if it is a child.
    process: Option<Process>,
    heard: Instant,
    /// Whether it has said its last word, or is held to have.
    is_over: bool,
}

/// What comes from a worker.
pub(super) enum Heard {
    /// A word.
    Word(Word),
    /// The end of its connection, and why.
    End(String),
}

impl Crew {
    /// Starts those here and dials all.
    pub(super) async fn assemble(wanted: &Wanted, starter: &Program) -> Result<Self> {
        let (tell, words) = mpsc::channel(WORDS);
        let mut crew = Self { hands: Vec::new(), words, _readers: JoinSet::new() };
        for number in 1..=wanted.local {
            let name = format!("worker {number}");
            let (process, channel) = child(&name, starter).await?;
            crew.add(name, Some(process), channel, &tell).await?;
        }
        for host in &wanted.remote {
            let secret = wanted.secret.as_ref().context("--worker needs --worker-secret-file")?;
            let name = format!("worker {} ({host})", crew.hands.len() + 1);
            let channel = elsewhere(host, secret).await.with_context(|| name.clone())?;
            crew.add(name, None, channel, &tell).await?;
        }
        Ok(crew)
    }

    async fn add(
        &mut self,
        name: String,
        process: Option<Process>,
        (sender, mut receiver): (Sender, Receiver),
        tell: &mpsc::Sender<(usize, Heard)>,
    ) -> Result<()> {
        let word = timeout(SILENCE, receiver.recv()).await.map_err(|_| anyhow!("it says nothing"));
        let used = match word.and_then(|word| Ok(word?)).with_context(|| name.clone())? {
            Some(Word::Here { used, .. }) => used,
            Some(Word::Failed(sentence)) => bail!("{name}: {sentence}"),
            _ => bail!("{name} does not say who it is"),
        };
        let (index, tell) = (self.hands.len(), tell.clone());
        self._readers.spawn(async move {
            loop {
                let heard = match receiver.recv().await {
                    Ok(Some(word)) => Heard::Word(word),
                    Ok(None) => Heard::End("it ended".into()),
                    Err(error) => Heard::End(error.to_string()),
                };
                let is_end = matches!(heard, Heard::End(_));
                // Without a coordinator there is nobody to tell.
                if tell.send((index, heard)).await.is_err() || is_end {
                    return;
                }
            }
        });
        self.hands.push(Hand { name, used, sender, process, heard: Instant::now(), is_over: false });
        Ok(())
    }

    /// All of them, in the order of their shares.
    pub(super) fn hands(&self) -> &[Hand] {
        &self.hands
    }

    /// Gives one an order. One that cannot be reached says so by its end.
    pub(super) async fn order(&mut self, index: usize, order: &Order) {
        if let Some(hand) = self.hands.get_mut(index).filter(|hand| !hand.is_over) {
            let _sent = hand.sender.send(order).await;
        }
    }

    /// Gives all of them an order.
    pub(super) async fn order_all(&mut self, order: &Order) {
        for index in 0..self.hands.len() {
            self.order(index, order).await;
        }
    }

    /// What comes next from any of them. Cancel safe.
    pub(super) async fn hear(&mut self) -> (usize, Heard) {
        loop {
            // The readers hold the other end until all of them have told of an end.
            let Some((index, heard)) = self.words.recv().await else { std::future::pending().await };
            let Some(hand) = self.hands.get_mut(index) else { continue };
            hand.heard = Instant::now();
            if hand.is_over {
                continue;
            }
            hand.is_over =
                !matches!(heard, Heard::Word(Word::Here { .. } | Word::Ready | Word::Sample { .. }));
            return (index, heard);
        }
    }

    /// Whether all have said their last word.
    pub(super) fn is_over(&self) -> bool {
        self.hands.iter().all(|hand| hand.is_over)
    }

    /// Gives up those that have said nothing for too long, and gives a sentence about each.
    pub(super) fn give_up_silent(&mut self) -> Vec<String> {
        let silent = |hand: &&mut Hand| !hand.is_over && hand.heard.elapsed() > SILENCE;
        let mut sentences = Vec::new();
        for hand in self.hands.iter_mut().filter(silent) {
            hand.is_over = true;
            let silence = humantime::format_duration(SILENCE);
            sentences.push(format!("{} hangs: it has said nothing for {silence}", hand.name));
        }
        sentences
    }

    /// A sentence about one whose connection ended.
    pub(super) async fn loss(&mut self, index: usize, why: &str) -> String {
        let Some(hand) = self.hands.get_mut(index) else { return why.to_owned() };
        let Some(process) = &mut hand.process else { return format!("{} was lost: {why}", hand.name) };
        match process.wait(Duration::from_secs(1)).await {
            Ok(status) => {
                let said = process.output().text(culvert_testkit::process::Source::Stderr);
                let said =
                    said.lines().next_back().map(|line| format!("; it said: {line}")).unwrap_or_default();
                format!("{} died: {status}{said}", hand.name)
            }
            Err(_) => format!("{} was lost: {why}", hand.name),
        }
    }
}

/// A worker process on this machine, and the channel to it.
async fn child(name: &str, starter: &Program) -> Result<(Process, (Sender, Receiver))> {
    let secret = Secret::random()?;
    let mut process = Child::new(name, launch::itself()?.arg("worker").started_by(starter))
        .args(["--listen", "127.0.0.1:0", "--secret-file", "/dev/stdin", "--once"])
        .with_stdin()
        .start()?;
    process.feed(secret.as_bytes()).await?;
    process.end_stdin();
    let address = process.line(STARTED, |line| line.strip_prefix(LISTENING).map(str::to_owned)).await?;
    let channel = elsewhere(&address, &Secret::of(&secret)).await.with_context(|| name.to_owned())?;
    Ok((process, channel))
}

async fn elsewhere(host: &str, secret: &Secret) -> Result<(Sender, Receiver)> {
    let socket = timeout(STARTED, TcpStream::connect(host)).await;
    let socket = socket.map_err(|_| anyhow!("it does not answer within {STARTED:?}"))?;
    let socket = socket.context("it cannot be reached")?;
    control::dial(socket, secret).await.map_err(Into::into)
}

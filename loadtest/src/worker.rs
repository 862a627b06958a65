//! A worker process: makes its share of the load, on one thread.
//!
//! It listens, and does one run at a time for whoever dials it and knows the secret. It ends a run as soon
//! as its coordinator is gone, so a worker never makes load that nobody asks for. Workers on the
//! coordinator's machine are its children and do one run; those on other machines are started by hand.

mod play;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, LocalSet};

use crate::control::{self, Receiver, Secret, Sender, Word};
use crate::secrets;

/// What a worker prints before its address when it listens.
pub const LISTENING: &str = "listening on ";
/// Between a failed accept and the next.
const PAUSE: Duration = Duration::from_millis(100);

/// Settings of `worker`.
#[derive(Debug, Clone, Args)]
pub struct Worker {
    /// Where the coordinator dials it, such as 0.0.0.0:7070.
    #[arg(long, value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// File with the secret that the coordinator has too (`openssl rand -hex 32`).
    #[arg(long, value_name = "FILE")]
    pub secret_file: PathBuf,
    /// Ends after one run.
    #[arg(long)]
    pub once: bool,
}

impl Worker {
    /// Does runs until it is killed; or one.
    ///
    /// # Errors
    /// The secret cannot be read, the port cannot be bound, or the only run failed.
    pub async fn work(&self) -> Result<()> {
        let secret = Secret::of(&secrets::read(&self.secret_file)?);
        let listener = TcpListener::bind(self.listen).await;
        let listener = listener.with_context(|| format!("cannot listen on {}", self.listen))?;
        say(&format!("{LISTENING}{}", listener.local_addr()?))?;
        let mut strangers = JoinSet::new();
        loop {
            let (channel, from) = meet(&listener, &secret).await;
            let run = LocalSet::new();
            let mut playing = std::pin::pin!(run.run_until(play::play(channel)));
            let played = loop {
                tokio::select! {
                    played = &mut playing => break played,
                    // Whoever else dials is told, so that no coordinator waits for it.
                    (mut channel, _) = meet(&listener, &secret) => {
                        strangers.spawn(async move {
                            let word = Word::Failed("it is at work for another coordinator".into());
                            // Whether that is heard is the other one's concern.
                            let _sent = channel.0.send(&word).await;
                        });
                    }
                    Some(_) = strangers.join_next() => {}
                }
            };
            match played {
                Ok(()) => say(&format!("a run for {from} is over"))?,
                Err(error) if self.once => return Err(error),
                Err(error) => say(&format!("a run for {from} failed: {error:#}"))?,
            }
            if self.once {
                return Ok(());
            }
        }
    }
}

/// The next coordinator that knows the secret.
async fn meet(listener: &TcpListener, secret: &Secret) -> ((Sender, Receiver), SocketAddr) {
    loop {
        match shake(listener, secret).await {
            Ok(met) => return met,
            Err(error) => {
                // Nothing is left to do if nobody reads what it prints.
                let _printed = say(&format!("{error:#}"));
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn shake(listener: &TcpListener, secret: &Secret) -> Result<((Sender, Receiver), SocketAddr)> {
    let (socket, from): (TcpStream, _) = listener.accept().await.context("cannot accept")?;
    let channel = control::accept(socket, secret).await;
    Ok((channel.map_err(|error| anyhow!("refused {from}: {error}"))?, from))
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("nobody reads what this worker prints")
}

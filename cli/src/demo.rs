//! `culvert demo`: the whole path on one machine, with the relay restarted in the middle.
//!
//! Nothing in it is special: the relay, both peers and the transfer are what the other commands use, over
//! TLS on loopback.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use culvert_client::dial::RelayUrl;
use culvert_client::link::{Entry, Link};
use culvert_client::transfer::{Event, Progress};
use culvert_client::{Identity, ProxyChoice, RelayOptions, SystemRng};
use tokio_util::sync::CancellationToken;

use crate::certificate::Authority;
use crate::cli::DemoArgs;
use crate::embedded::Embedded;
use crate::failure::Code;
use crate::interrupt::Interrupt;
use crate::pair::{give, take, verify};
use crate::report::{Report, summary};

/// What the relay counted, before and after its restart.
#[derive(Default)]
struct Seen {
    connections: u64,
    frames: u64,
    bytes: u64,
}

impl Seen {
    fn add(&mut self, relay: &Embedded) {
        self.connections += relay.counted("culvert_relay_accepted_total");
        self.frames += relay.counted("culvert_relay_frames_forwarded_total");
        self.bytes += relay.counted("culvert_relay_bytes_forwarded_total");
    }
}

pub(crate) async fn run(args: DemoArgs, interrupt: Interrupt) -> Result<()> {
    let file = match args.file {
        Some(file) => file,
        None => std::env::current_exe().context("this program does not know its own file; name one")?,
    };
    let size = std::fs::metadata(&file).with_context(|| format!("cannot read {}", file.display()))?.len();
    let folder = tempfile::Builder::new().prefix("culvert-demo-").tempdir()?;
    let authority = Authority::in_folder(&folder.path().join("tls"))?;
    let tls = authority.issue(&[])?;
    let relay = Embedded::start(Embedded::config(SocketAddr::from(([127, 0, 0, 1], 0)), tls.clone())).await?;
    let address = relay.address();
    let url: RelayUrl = format!("wss://localhost:{}", address.port()).parse()?;
    let options = RelayOptions {
        ca_file: Some(authority.file()),
        proxy: ProxyChoice::Direct,
        ..RelayOptions::default()
    };
    say(&format!("1. A relay listens at {url}, with TLS, in this process."))?;
    let identity = Identity::generate(&mut SystemRng);
    let link = Link::new(url, identity.peer_id(), Entry::Open);
    say(&format!("2. The sender {} makes a link:\n   {}", identity.peer_id().short(), *link.reveal()?))?;

    let out = folder.path().join("received");
    let report = Report::new(false);
    let middle = CancellationToken::new();
    let progress = until_half(report.progress(), size, middle.clone());
    let cancelled = interrupt.token();
    let started = Instant::now();
    let receiver = Identity::generate(&mut SystemRng);
    say(&format!("3. The receiver {} opens it.", receiver.peer_id().short()))?;
    let transfer = async {
        tokio::try_join!(
            give(&file, &link, identity, options.clone(), &cancelled),
            take(&out, &link, receiver, options, &progress, &cancelled)
        )
    };
    let mut seen = Seen::default();
    let restart = async {
        middle.cancelled().await;
        let at = started.elapsed();
        report.note(format!(
            "4. The relay is killed after {:.1} s and started again on the same port.",
            at.as_secs_f64()
        ));
        seen.add(&relay);
        relay.kill().await;
        Embedded::start(Embedded::config(address, tls)).await
    };
    let ((served, received), relay) = tokio::select! {
        both = async { tokio::try_join!(transfer, restart) } => both?,
        () = cancelled.cancelled() => return Err(Code::Interrupted.because("the demo was interrupted")),
    };
    let time = started.elapsed();
    report.end();
    seen.add(&relay);
    relay.kill().await;
    let hash = verify(&file, served, &received).await?;
    say(&format!("5. It arrived whole: {}.\n   BLAKE3 {hash} on both sides.", summary(size, time)))?;
    say(&format!(
        "6. All the relay saw: {} connections, {} sealed frames, {} bytes of ciphertext. No name, no content.",
        seen.connections, seen.frames, seen.bytes
    ))?;
    say(
        "\nTry next:\n  culvert dev                run a relay that stays, and get commands to paste\n  culvert send --help        send to somebody else\n  culvert doctor URL         see whether a network lets you reach a relay",
    )
}

/// Passes events on, and tells when a third of the bytes has arrived.
fn until_half(progress: Progress, size: u64, middle: CancellationToken) -> Progress {
    Arc::new(move |event| {
        if let Event::Advanced { have } = event
            && have >= size / 3
        {
            middle.cancel();
        }
        progress(event);
    })
}

fn say(text: &str) -> Result<()> {
    writeln!(io::stdout(), "{text}")?;
    Ok(())
}

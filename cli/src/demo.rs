//! `culvert demo`: the whole path on one machine, with the relay restarted in the middle.
//!
//! Nothing in it is special: the relay, both peers and the transfer are what the other commands use, over
//! TLS on loopback.

use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use culvert_client::dial::RelayUrl;
use culvert_client::link::{Entry, Link};
use culvert_client::transfer::{Event, Offer, Progress, ReceiveOptions, Received, Served, receive};
use culvert_client::{Connection, Identity, PeerPolicy, ProxyChoice, RelayOptions, SystemRng};
use tokio_util::sync::CancellationToken;

use crate::certificate::Authority;
use crate::cli::DemoArgs;
use crate::embedded::Embedded;
use crate::failure::Code;
use crate::interrupt::Interrupt;
use crate::network::Meeting;
use crate::report::{Report, summary};

/// The longest the demo may take to find the peers together, restarts included.
const MEET: Duration = Duration::from_secs(60);

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
    let transfer = async {
        tokio::try_join!(
            give(&file, &link, identity, options.clone(), &cancelled),
            take(&out, &link, options.clone(), &progress, &cancelled)
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
    ensure!(served.is_complete() && received.left == 0, "not everything arrived: {received:?}");

    let arrived = received.paths.first().context("nothing arrived")?.clone();
    let original = file.clone();
    let (sent, got) =
        tokio::task::spawn_blocking(move || anyhow::Ok((blake3_of(&original)?, blake3_of(&arrived)?)))
            .await??;
    ensure!(sent == got, "the file that arrived is another one: BLAKE3 {got} instead of {sent}");
    say(&format!("5. It arrived whole: {}.\n   BLAKE3 {got} on both sides.", summary(size, time)))?;
    say(&format!(
        "6. All the relay saw: {} connections, {} sealed frames, {} bytes of ciphertext. No name, no content.",
        seen.connections, seen.frames, seen.bytes
    ))?;
    say(
        "\nTry next:\n  culvert dev                run a relay that stays, and get commands to paste\n  culvert send --help        send to somebody else\n  culvert doctor URL         see whether a network lets you reach a relay",
    )
}

/// The sender: joins, waits for the receiver, serves it.
async fn give(
    file: &Path,
    link: &Link,
    identity: Identity,
    options: RelayOptions,
    cancelled: &CancellationToken,
) -> Result<Served> {
    let silent = culvert_client::transfer::ignore();
    let offer = Offer::paths(&[file], silent.clone())?;
    let mut meeting =
        Meeting::join(&link.relay, link.topic_secret(), Some(identity), PeerPolicy::Anyone, options).await?;
    let mut lane =
        tokio::time::timeout(MEET, meeting.next()).await.context("the receiver did not come")??;
    let served = offer.serve(&mut lane, &silent, cancelled).await?;
    lane.close().await?;
    meeting.leave().await;
    Ok(served)
}

/// The receiver: joins with the link alone.
async fn take(
    out: &Path,
    link: &Link,
    options: RelayOptions,
    progress: &Progress,
    cancelled: &CancellationToken,
) -> Result<Received> {
    let identity = Identity::generate(&mut SystemRng);
    say(&format!("3. The receiver {} opens it.", identity.peer_id().short()))?;
    let only = PeerPolicy::Only(vec![link.sender]);
    let mut meeting = Meeting::join(&link.relay, link.topic_secret(), Some(identity), only, options).await?;
    let mut lane = tokio::time::timeout(MEET, meeting.next()).await.context("the sender did not come")??;
    let options = ReceiveOptions { out: PathBuf::from(out), overwrite: false };
    let received = receive(&mut lane, &options, progress, cancelled).await?;
    // The sender closes when it has heard that this is all.
    let _ = tokio::time::timeout(MEET, lane.receive()).await;
    meeting.leave().await;
    Ok(received)
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

fn blake3_of(path: &Path) -> Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(hasher.finalize())
}

fn say(text: &str) -> Result<()> {
    writeln!(io::stdout(), "{text}")?;
    Ok(())
}

//! Both halves against each other, over a pair of connections that can be cut and tampered with.

mod hostile;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};

use async_trait::async_trait;
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::transport::Connection;

type Tamper = Box<dyn FnMut(Vec<u8>) -> Option<Vec<u8>> + Send + Sync>;

/// One end of a conversation in memory.
struct End {
    out: Option<mpsc::Sender<Vec<u8>>>,
    inbox: mpsc::Receiver<Vec<u8>>,
    /// Sees every message that leaves here; `None` cuts the conversation.
    tamper: Option<Tamper>,
}

fn pair() -> (End, End) {
    let (a, from_a) = mpsc::channel(32);
    let (b, from_b) = mpsc::channel(32);
    (End { out: Some(a), inbox: from_b, tamper: None }, End { out: Some(b), inbox: from_a, tamper: None })
}

#[async_trait]
impl Connection for End {
    async fn send(&mut self, data: &[u8]) -> anyhow::Result<()> {
        assert!(data.len() <= MAX_MESSAGE);
        let data = match &mut self.tamper {
            Some(tamper) => tamper(data.to_vec()),
            None => Some(data.to_vec()),
        };
        let Some(data) = data else {
            self.out = None;
            self.inbox.close();
            anyhow::bail!("cut");
        };
        let Some(out) = &self.out else { anyhow::bail!("closed") };
        out.send(data).await.map_err(|_| anyhow::anyhow!("closed"))
    }

    async fn receive(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        Ok(self.inbox.recv().await)
    }

    async fn close(&mut self) -> anyhow::Result<()> {
        self.out = None;
        Ok(())
    }

    fn peer_id(&self) -> &str {
        "peer"
    }
}

fn bytes(len: usize) -> Vec<u8> {
    let mut state = len as u64 + 1;
    let next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn into(out: &Path) -> ReceiveOptions {
    ReceiveOptions { out: out.to_owned(), overwrite: false }
}

/// Everything under a folder; folders have no content.
fn tree_of(root: &Path) -> BTreeMap<String, Option<Vec<u8>>> {
    let found = walkdir::WalkDir::new(root).min_depth(1).into_iter().map(Result::unwrap);
    let entry = |found: walkdir::DirEntry| {
        let path = found.path().strip_prefix(root).unwrap().display().to_string();
        (path, found.file_type().is_file().then(|| fs::read(found.path()).unwrap()))
    };
    found.map(entry).collect()
}

async fn run(
    offer: &Offer,
    (mut left, mut right): (End, End),
    options: &ReceiveOptions,
) -> (Result<Served, SendError>, Result<Received, ReceiveError>) {
    let silent = ignore();
    let serve = async {
        let served = offer.serve(&mut left, &silent, &NEVER).await;
        drop(left);
        served
    };
    let take = async {
        let received = receive(&mut right, options, &silent, &NEVER).await;
        drop(right);
        received
    };
    tokio::join!(serve, take)
}

async fn pass(paths: &[impl AsRef<Path>], out: &Path) -> (Served, Received) {
    let offer = Offer::paths(paths, ignore()).unwrap();
    let (served, received) = run(&offer, pair(), &into(out)).await;
    (served.unwrap(), received.unwrap())
}

/// Nobody cancels.
static NEVER: LazyLock<CancellationToken> = LazyLock::new(CancellationToken::new);

fn events() -> (Progress, Arc<Mutex<Vec<Event>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&seen);
    (Arc::new(move |event| into.lock().unwrap().push(event)), seen)
}

#[tokio::test]
async fn files_of_every_size_arrive_and_are_the_same() {
    let (from, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    for len in [0, 1, 16383, 16384, 16385, 131_071, 131_072, 131_073, 3_000_000, 20_000_000] {
        let path = from.path().join(len.to_string());
        fs::write(&path, bytes(len)).unwrap();
        let (served, received) = pass(&[&path], out.path()).await;
        assert!(served.is_complete() && served.kept == 1, "{served:?}");
        assert_eq!((received.bytes, received.present), (len as u64, 0));
        assert_eq!(received.paths, [out.path().join(len.to_string())]);
        assert!(fs::read(out.path().join(len.to_string())).unwrap() == bytes(len), "{len}");
    }
    assert_eq!(tree_of(out.path()).len(), 10, "nothing but the files is left");
}

#[tokio::test]
async fn a_folder_arrives_with_empty_folders_modes_and_times_and_without_links() {
    let (from, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let root = from.path().join("dir");
    fs::create_dir_all(root.join("a/b/empty")).unwrap();
    fs::create_dir(root.join("many")).unwrap();
    for n in 0..600 {
        fs::write(root.join("many").join(n.to_string()), bytes(n)).unwrap();
    }
    fs::write(root.join("a/large"), bytes(1_000_000)).unwrap();
    let file = fs::File::options().write(true).open(root.join("a/large")).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_234_567_890, 123);
    file.set_modified(time).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.set_permissions(fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.join("a/link")).unwrap();
    }
    let (served, received) = pass(&[&root], out.path()).await;
    #[cfg(unix)]
    fs::remove_file(root.join("a/link")).unwrap();
    assert_eq!(served.kept, 606);
    assert_eq!(received.paths, [out.path().join("dir")]);
    assert!(tree_of(&root) == tree_of(&out.path().join("dir")));
    let meta = fs::metadata(out.path().join("dir/a/large")).unwrap();
    assert_eq!(meta.modified().unwrap(), time);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(meta.permissions().mode() & 0o100, 0o100);
        let plain = fs::metadata(out.path().join("dir/many/5")).unwrap();
        assert_eq!(plain.permissions().mode() & 0o111, 0);
    }
    // Once more: everything is there already, nothing is sent or touched.
    let (_, again) = pass(&[&root], out.path()).await;
    assert_eq!((again.kept, again.present, again.left), (606, received.bytes, 0));
}

#[tokio::test]
async fn an_existing_file_is_replaced_only_when_told() {
    let (from, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    for (name, len) in [("small", 100), ("large", 500_000)] {
        fs::write(from.path().join(name), bytes(len)).unwrap();
        fs::write(out.path().join(name), "mine").unwrap();
    }
    let offer = Offer::paths(&[from.path().join("small"), from.path().join("large")], ignore()).unwrap();
    let (served, received) = run(&offer, pair(), &into(out.path())).await;
    assert_eq!(served.unwrap().left, 2);
    let received = received.unwrap();
    assert_eq!((received.left, received.problems.len()), (2, 2));
    assert!(received.problems[0].reason.contains("overwritten"), "{received:?}");
    assert!(tree_of(out.path()).values().all(|content| content.as_deref() == Some(b"mine")));
    let options = ReceiveOptions { overwrite: true, ..into(out.path()) };
    let (served, received) = run(&offer, pair(), &options).await;
    assert!(served.unwrap().is_complete() && received.unwrap().kept == 2);
    assert!(tree_of(out.path()) == tree_of(from.path()));
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_in_the_place_of_a_file_is_replaced_and_never_followed() {
    let (from, out, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    fs::write(elsewhere.path().join("mine"), "mine").unwrap();
    for (name, len) in [("small", 100), ("large", 500_000)] {
        fs::write(from.path().join(name), bytes(len)).unwrap();
        std::os::unix::fs::symlink(elsewhere.path().join("mine"), out.path().join(name)).unwrap();
    }
    let offer = Offer::paths(&[from.path().join("small"), from.path().join("large")], ignore()).unwrap();
    let (_, received) = run(&offer, pair(), &into(out.path())).await;
    assert_eq!(received.unwrap().left, 2, "a link is something that is there");
    let options = ReceiveOptions { overwrite: true, ..into(out.path()) };
    let (_, received) = run(&offer, pair(), &options).await;
    assert_eq!(received.unwrap().kept, 2);
    assert!(tree_of(out.path()) == tree_of(from.path()));
    assert_eq!(fs::read(elsewhere.path().join("mine")).unwrap(), b"mine");
}

#[tokio::test]
async fn a_corrupting_peer_is_noticed_at_the_first_bad_group_and_refused() {
    let (from, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let path = from.path().join("x");
    fs::write(&path, bytes(5_000_000)).unwrap();
    let offer = Offer::paths(&[&path], ignore()).unwrap();
    let (mut left, right) = pair();
    let mut pieces = 0;
    left.tamper = Some(Box::new(move |mut data| {
        if data[0] == 1 {
            pieces += 1;
            if pieces == 3 {
                let last = data.len() - 1;
                data[last] ^= 1;
            }
        }
        Some(data)
    }));
    let (served, received) = run(&offer, (left, right), &into(out.path())).await;
    assert!(matches!(received, Err(ReceiveError::Corrupt { .. })), "{received:?}");
    assert!(matches!(served, Err(SendError::Stopped(StopReason::BadData))), "{served:?}");
    assert!(!out.path().join("x").exists(), "nothing wrong lands");
    // The two good pieces are kept: an honest sender goes on behind them.
    let (_, received) = run(&offer, pair(), &into(out.path())).await;
    assert_eq!(received.unwrap().present, 2 * PIECE);
    assert!(fs::read(out.path().join("x")).unwrap() == bytes(5_000_000));
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_sent_is_reported_to_both_and_does_not_land() {
    let (from, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let path = from.path().join("x");
    fs::write(&path, bytes(4_000_000)).unwrap();
    fs::write(from.path().join("y"), bytes(1000)).unwrap();
    let (progress, seen) = events();
    let offer = Offer::paths(&[&path, &from.path().join("y")], ignore()).unwrap();
    let (mut left, mut right) = pair();
    let mut pieces = 0;
    left.tamper = Some(Box::new(move |data| {
        pieces += u32::from(data[0] == 1);
        if pieces == 5 {
            // Same size, and back to the same time: only the hash can tell.
            let file = fs::File::options().write(true).open(&path).unwrap();
            let time = file.metadata().unwrap().modified().unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, b"changed", 900_000).unwrap();
            file.set_modified(time).unwrap();
        }
        Some(data)
    }));
    let options = into(out.path());
    let silent = ignore();
    let (served, received) = tokio::join!(
        offer.serve(&mut left, &progress, &NEVER),
        receive(&mut right, &options, &silent, &NEVER)
    );
    let served = served.unwrap();
    assert_eq!((served.left, served.gone), (1, 1));
    let received = received.unwrap();
    assert_eq!(received.problems[0].path, "x");
    assert!(received.problems[0].reason.contains("changed"), "{received:?}");
    assert_eq!(received.kept, 1, "the other file arrived");
    assert_eq!(tree_of(out.path()).keys().collect::<Vec<_>>(), ["y"]);
    let told = |event: &Event| matches!(event, Event::Skipped { path, .. } if path == "x");
    assert!(seen.lock().unwrap().iter().any(told));
}

#[tokio::test]
async fn a_file_that_grew_after_it_was_listed_is_reported() {
    let (from, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let path = from.path().join("x");
    fs::write(&path, bytes(400_000)).unwrap();
    let offer = Offer::paths(&[&path], ignore()).unwrap();
    let mut status = offer.catalogue.status();
    status.wait_for(|status| status.end.is_some()).await.unwrap();
    fs::File::options().append(true).open(&path).unwrap().write_all(b"more").unwrap();
    let (_, received) = run(&offer, pair(), &into(out.path())).await;
    assert!(received.unwrap().problems[0].reason.contains("changed"));
    assert!(tree_of(out.path()).is_empty());
}

#[tokio::test]
async fn a_stream_arrives_in_segments_and_goes_on_where_it_was() {
    let out = TempDir::new().unwrap();
    for len in [0_usize, 1, 40_000, 1_000_000] {
        let name = format!("s{len}");
        let options = OfferOptions { name: name.clone(), segment: 40_000 };
        let offer = Offer::stream(std::io::Cursor::new(bytes(len)), options, ignore()).unwrap();
        let (mut left, right) = pair();
        let mut pieces = 0;
        left.tamper = Some(Box::new(move |data| {
            pieces += u32::from(data[0] == 1);
            (pieces < 8).then_some(data)
        }));
        let (served, received) = run(&offer, (left, right), &into(out.path())).await;
        if len == 1_000_000 {
            served.unwrap_err();
            assert!(received.unwrap_err().may_resume());
            let (served, received) = run(&offer, pair(), &into(out.path())).await;
            assert!(served.unwrap().is_complete());
            assert_eq!(received.unwrap().present, 7 * 40_000);
            let late = TempDir::new().unwrap();
            let (_, received) = run(&offer, pair(), &into(late.path())).await;
            assert!(matches!(received, Err(ReceiveError::Forgotten)), "{received:?}");
        } else {
            assert!(served.unwrap().is_complete());
            received.unwrap();
        }
        assert!(fs::read(out.path().join(name)).unwrap() == bytes(len), "{len}");
    }
    assert_eq!(tree_of(out.path()).len(), 4, "nothing but the files is left");
}

/// A sparse file, so that hashing takes a while and the disk does nothing.
#[tokio::test]
async fn a_receiver_that_waits_for_the_hash_of_a_large_file_hears_how_far_it_is() {
    let from = TempDir::new().unwrap();
    fs::File::create(from.path().join("x")).unwrap().set_len(4 << 30).unwrap();
    let offer = Offer::paths(&[from.path().join("x")], ignore()).unwrap();
    let (mut left, mut right) = pair();
    let silent = ignore();
    let receiver = async move {
        let control = |bytes: Vec<u8>| match message::decode(&bytes).unwrap() {
            message::Message::Control(control) => control,
            message::Message::Piece(_) => panic!("nothing was asked for"),
        };
        right.send(&message::encode(&message::Control::Hello { version: 1 })).await.unwrap();
        while !matches!(control(right.receive().await.unwrap().unwrap()), message::Control::Offer { .. }) {}
        right.send(&message::encode(&message::Control::Page { from: 0 })).await.unwrap();
        let mut heard = 0;
        loop {
            match control(right.receive().await.unwrap().unwrap()) {
                message::Control::Preparing { done: 1.., total } if total == 4 << 30 => heard += 1,
                message::Control::Entries { .. } => return heard,
                message::Control::Preparing { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    };
    let (_, heard) = tokio::join!(offer.serve(&mut left, &silent, &NEVER), receiver);
    assert!(heard > 0);
}

#[tokio::test]
async fn what_cannot_be_offered_is_said_at_once() {
    let dir = TempDir::new().unwrap();
    let nothing: [&str; 0] = [];
    assert!(matches!(Offer::paths(&nothing, ignore()), Err(OfferError::Nothing)));
    let missing = Offer::paths(&[dir.path().join("missing")], ignore());
    assert!(matches!(missing, Err(OfferError::Path { .. })));
    fs::create_dir_all(dir.path().join("a")).unwrap();
    fs::write(dir.path().join("x"), "1").unwrap();
    fs::write(dir.path().join("a/x"), "2").unwrap();
    let twice = Offer::paths(&[dir.path().join("x"), dir.path().join("a/x")], ignore());
    assert!(matches!(twice, Err(OfferError::SameName(_))));
    let options = OfferOptions { name: "../x".to_owned(), ..Default::default() };
    assert!(matches!(Offer::stream(std::io::empty(), options, ignore()), Err(OfferError::Name(_))));
}

#[tokio::test]
async fn a_cancelled_transfer_tells_the_other_side_and_keeps_what_arrived() {
    let (from, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let path = from.path().join("x");
    fs::write(&path, bytes(8_000_000)).unwrap();
    let offer = Offer::paths(&[&path], ignore()).unwrap();
    let (mut left, mut right) = pair();
    let (options, silent) = (into(out.path()), ignore());
    let cancelled = CancellationToken::new();
    let at_two_megabytes = cancelled.clone();
    let watch: Progress = Arc::new(move |event| {
        if matches!(event, Event::Advanced { have } if have > 2_000_000) {
            at_two_megabytes.cancel();
        }
    });
    let serve = async {
        let served = offer.serve(&mut left, &silent, &NEVER).await;
        drop(left);
        served
    };
    let (served, received) = tokio::join!(serve, receive(&mut right, &options, &watch, &cancelled));
    assert!(matches!(served, Err(SendError::Stopped(StopReason::Cancelled))), "{served:?}");
    assert!(matches!(received, Err(ReceiveError::Cancelled)), "{received:?}");
    let (_, received) = run(&offer, pair(), &into(out.path())).await;
    assert!(received.unwrap().present >= 2_000_000);
    assert!(fs::read(out.path().join("x")).unwrap() == bytes(8_000_000));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The sender's side of the conversation is cut after any number of messages, again and again;
    /// every attempt begins with at least what the one before had.
    #[test]
    fn a_transfer_cut_anywhere_goes_on_and_arrives_whole(
        sizes in proptest::collection::vec(0usize..900_000, 1..4),
        cuts in proptest::collection::vec(1usize..14, 0..5),
    ) {
        let (from, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        for (n, size) in sizes.iter().enumerate() {
            fs::write(from.path().join(format!("f{n}")), bytes(*size)).unwrap();
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let paths: Vec<_> = (0..sizes.len()).map(|n| from.path().join(format!("f{n}"))).collect();
            let offer = Offer::paths(&paths, ignore()).unwrap();
            let mut before = 0;
            for cut in cuts {
                let (mut left, right) = pair();
                let mut left_over = cut;
                left.tamper = Some(Box::new(move |data| {
                    left_over = left_over.checked_sub(1)?;
                    Some(data)
                }));
                let (_, received) = run(&offer, (left, right), &into(out.path())).await;
                if let Ok(received) = received {
                    assert!(received.present >= before);
                    before = received.bytes;
                }
            }
            let (served, received) = run(&offer, pair(), &into(out.path())).await;
            assert!(served.unwrap().is_complete());
            assert!(received.unwrap().present >= before);
        });
        prop_assert!(tree_of(from.path()) == tree_of(out.path()));
    }
}

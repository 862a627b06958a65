//! Sharing through a broker: two users, a relay that asks for tickets, and nothing else between them.

mod world;

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use culvert_client::broker::handover::{HandoverError, present};
use culvert_client::broker::{BrokerApi, RelayAddress, SyncClient};
use culvert_client::{
    AdmissionSource, Connection, Identity, PeerPolicy, ProxyChoice, RelayOptions, RelayTransport, SystemRng,
    Transport as _, TransportConfig, TransportMode,
};
use culvert_testkit::process::Source;

use crate::support::{LONG, content, ended, has_bytes};
use world::{PASSWORD, World, get};

#[tokio::test]
async fn what_one_user_shares_another_fetches_through_the_relay_only() -> Result<()> {
    let world = World::new().await?;
    let (alice, bob) = (world.user("alice").await?, world.user("bob").await?);
    alice.file("shared/notes.txt", 1234)?;
    alice.file("shared/dir/a/large", 3_000_000)?;
    let serves = world.serve(&alice, &[]).await?;
    let paths = ["shared/notes.txt", "shared/dir", "--to", "users:bob", "--title", "Results"];
    let (code, out, err) = alice.ends(world.share(&paths)).await?;
    assert_eq!(code, 0, "{err}");
    let link = out.trim();
    assert!(link.starts_with("culvert://share/") && out.lines().count() == 1, "{out}");

    let mut fetches = world.fetch(&bob, link, &[]).start()?;
    let (code, out, err) = ended(&mut fetches).await?;
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("Fetching through the relay"), "{err}");
    assert_eq!(out.lines().count(), 2, "{out}");
    assert_eq!(fs::read(bob.path("out/notes.txt"))?, content(1234));
    assert_eq!(fs::read(bob.path("out/dir/a/large"))?, content(3_000_000));
    assert!(serves.output().contains("bob has Results"), "{}", serves.output().tail());

    // Both see it listed, bob without what opens it.
    let (_, mine, _) = alice.ends(["shares"]).await?;
    assert!(mine.contains(link) && mine.contains("users:bob"), "{mine}");
    let (_, with_me, _) = bob.ends(["shares", "--with-me"]).await?;
    assert!(
        with_me.contains("alice") && with_me.contains("Results") && !with_me.contains("share/"),
        "{with_me}"
    );

    // The first protocol's link names it as well; once it is taken back, neither does.
    let ddalab = link.replace("culvert://", "ddalab://");
    let (code, _, err) = bob.ends(["fetch", &ddalab, "--out", "again"]).await?;
    assert_eq!(code, 0, "{err}");
    assert_eq!(alice.ends(["unshare", link]).await?.0, 0);
    let (code, _, err) = bob.ends(["fetch", link, "--out", "late"]).await?;
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("SHARE_NOT_FOUND"), "{err}");
    assert_eq!(world.not_admitted(), 0.0, "nobody knocks without a ticket: operators are warned of that");
    Ok(())
}

#[tokio::test]
async fn a_relay_that_is_open_needs_no_tickets_of_the_broker() -> Result<()> {
    let world = World::open().await?;
    let (alice, bob) = (world.user("alice").await?, world.user("bob").await?);
    alice.file("shared/notes.txt", 1234)?;
    let _serves = world.serve(&alice, &[]).await?;
    let (code, out, err) = alice.ends(world.share(&["shared/notes.txt", "--to", "users:bob"])).await?;
    assert_eq!(code, 0, "{err}");
    let (code, _, err) = ended(&mut world.fetch(&bob, out.trim(), &[]).start()?).await?;
    assert_eq!(code, 0, "{err}");
    assert_eq!(fs::read(bob.path("out/notes.txt"))?, content(1234));
    assert_eq!(world.not_admitted(), 2.0, "each showed its ticket first");
    Ok(())
}

#[tokio::test]
async fn a_share_is_refused_to_whom_it_is_not_for_and_waits_for_an_owner_who_is_offline() -> Result<()> {
    let world = World::new().await?;
    let (alice, bob, carol) =
        (world.user("alice").await?, world.user("bob").await?, world.user("carol").await?);
    alice.file("shared/x", 5000)?;
    let (_, link, _) = alice.ends(world.share(&["shared/x", "--to", "users:bob"])).await?;
    let (code, _, err) = carol.ends(["fetch", link.trim()]).await?;
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("ACCESS_DENIED"), "{err}");
    let (code, _, err) = bob.ends(["fetch", link.trim(), "--wait", "0"]).await?;
    assert_eq!(code, 4, "{err}");
    assert!(err.contains("alice is offline"), "{err}");
    // The same command, without a limit, goes on when she comes.
    let mut fetches = world.fetch(&bob, link.trim(), &[]).start()?;
    let waits = |line: &str| line.contains("alice is offline").then_some(());
    fetches.line(LONG, waits).await?;
    let _serves = world.serve(&alice, &[]).await?;
    fetches.succeeds(LONG).await?;
    assert_eq!(fs::read(bob.path("out/x"))?, content(5000));
    Ok(())
}

#[tokio::test]
async fn a_download_goes_on_where_it_was_after_the_owner_was_killed() -> Result<()> {
    let world = World::new().await?;
    let (alice, bob) = (world.user("alice").await?, world.user("bob").await?);
    let size = 120_000_000;
    alice.file("shared/large", size)?;
    let serves = world.serve(&alice, &[]).await?;
    let (_, link, _) = alice.ends(world.share(&["shared/large"])).await?;
    let mut fetches = world.fetch(&bob, link.trim(), &["--json"]).start()?;
    has_bytes(&fetches, 4_000_000).await?;
    serves.kill().await?;
    assert!(fetches.is_running(), "it was over before the owner was gone");
    let _serves = world.serve(&alice, &[]).await?;
    fetches.succeeds(LONG).await?;
    assert!(fs::read(bob.path("out/large"))? == content(size));
    let said = fetches.output().text(Source::Stdout);
    let going_on = said.lines().any(|line| line.contains("going on at"));
    assert!(going_on, "everything was fetched again:\n{}", fetches.output().tail());
    Ok(())
}

#[tokio::test]
async fn an_owner_gives_nothing_for_a_grant_of_somebody_else_or_of_a_share_that_is_over() -> Result<()> {
    let world = World::new().await?;
    let alice = world.user("alice").await?;
    alice.file("shared/x", 5000)?;
    let _serves = world.serve(&alice, &[]).await?;
    let (_, link, _) = alice.ends(world.share(&["shared/x"])).await?;
    let link = link.trim();
    let (bob, bobs) = world.member("bob").await?;
    let (carol, carols) = world.member("carol").await?;
    let share = bob.access_share(link).await?;
    let (grant, address) = (share.grant.clone().context("a grant")?, share.relays[0].clone());

    let stolen = meet(&carol, &carols, &address, &grant).await?;
    assert_eq!(stolen, "GRANT_OTHER_HOLDER");
    // One character of the signature is another.
    let (before, rest) = grant.split_at(grant.len() - 10);
    let other = if rest.starts_with('A') { 'B' } else { 'A' };
    let forged = format!("{before}{other}{}", &rest[1..]);
    assert_eq!(meet(&bob, &bobs, &address, &forged).await?, "GRANT_SIGNATURE");
    assert_eq!(meet(&bob, &bobs, &address, "nothing").await?, "GRANT_INVALID");
    assert_eq!(meet(&bob, &bobs, &address, &grant).await?, "accepted");

    assert_eq!(alice.ends(["unshare", link]).await?.0, 0);
    assert_eq!(meet(&bob, &bobs, &address, &grant).await?, "RESULT_GONE");
    Ok(())
}

#[tokio::test]
async fn an_owners_own_server_is_used_where_it_can_be_reached_and_checks_the_same_grant() -> Result<()> {
    let world = World::new().await?;
    let (alice, bob) = (world.user("alice").await?, world.user("bob").await?);
    alice.file("shared/dir/y", 900_000)?;
    fs::write(alice.path("shared/x.json"), r#"{"answer":42}"#)?;
    let port = culvert_testkit::process::free_port()?;
    let _serves = world.serve(&alice, &["--listen", &format!("127.0.0.1:{port}")]).await?;
    let (_, folder, _) = alice.ends(world.share(&["shared/dir"])).await?;
    let (code, _, err) = bob.ends(["fetch", folder.trim(), "--out", "direct"]).await?;
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("from the owner's own server"), "{err}");
    assert_eq!(fs::read(bob.path("direct/dir/y"))?, content(900_000));
    let (code, _, err) = bob.ends(["fetch", folder.trim(), "--out", "relayed", "--relay-only"]).await?;
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("Fetching through the relay"), "{err}");

    // As the first protocol's applications ask, with the grant in X-Share-Token.
    let (_, link, _) = alice.ends(world.share(&["shared/x.json", "--to", "public"])).await?;
    let (carol, _) = world.member_without_device("carol").await?;
    let share = carol.access_share(link.trim()).await?;
    let grant = share.grant.clone().context("a grant")?;
    let url = share.download_url.clone();
    let (status, body) = get(&url, &[("X-Share-Token", &grant)]).await?;
    assert_eq!((status, body.as_str()), (200, r#"{"answer":42}"#));
    let (status, body) = get(&url, &[("X-Share-Token", &grant), ("Range", "bytes=2-7")]).await?;
    assert_eq!((status, body.as_str()), (206, "answer"));
    assert_eq!(get(&url, &[]).await?.0, 401);
    let other = url.rsplit_once('/').context("a path")?.0.to_owned() + "/x.json";
    assert_eq!(get(&other, &[("X-Share-Token", &grant)]).await?.0, 404, "a grant is for its result alone");
    // A grant that was given to a device is worth nothing without its key.
    let (dave, _) = world.member("dave").await?;
    let bound = dave.access_share(link.trim()).await?.grant.clone().context("a grant")?;
    let (status, body) = get(&url, &[("X-Share-Token", &bound)]).await?;
    assert!(status == 403 && body.contains("GRANT_OTHER_HOLDER"), "{status} {body}");
    Ok(())
}

#[tokio::test]
async fn who_has_not_logged_in_or_not_with_the_right_password_is_told_what_to_do() -> Result<()> {
    let world = World::new().await?;
    let home = crate::support::Home::new()?;
    home.file("x", 1)?;
    let (code, _, err) = home.ends(["share", "x"]).await?;
    assert!(code == 2 && err.contains("culvert login"), "{code} {err}");
    let mut wrong = world.login(&home, "alice").with_stdin().start()?;
    wrong.feed(b"not the password\n").await?;
    wrong.end_stdin();
    let (code, _, err) = ended(&mut wrong).await?;
    assert!(code != 0 && err.contains("password"), "{code} {err}");
    // A name that is bound to another machine's key is not to be had by the institution's password alone.
    world.user("alice").await?;
    let mut again = world.login(&home, "alice").with_stdin().start()?;
    again.feed(format!("{PASSWORD}\n").as_bytes()).await?;
    again.end_stdin();
    let (code, _, err) = ended(&mut again).await?;
    assert_eq!(code, 3, "{err}");
    Ok(())
}

#[tokio::test]
async fn a_login_that_is_over_is_renewed_with_this_machines_key() -> Result<()> {
    let world = World::with(|config| config.timing.session = Duration::from_secs(1)).await?;
    let alice = world.user("alice").await?;
    let session = || -> Result<culvert_client::broker::Login> {
        let logins = culvert_client::broker::Logins::in_folder(alice.path("data/culvert"))?;
        logins.current().cloned().context("a login")
    };
    let first = session()?;
    let end = tokio::time::Instant::now() + LONG;
    while !first.is_over() {
        anyhow::ensure!(tokio::time::Instant::now() < end, "the session does not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (code, _, err) = alice.ends(["shares"]).await?;
    assert_eq!(code, 0, "{err}");
    assert_ne!(session()?.session_token, first.session_token);
    Ok(())
}

#[tokio::test]
async fn an_owner_goes_on_serving_when_the_login_is_over() -> Result<()> {
    let world = World::with(|config| {
        config.timing.session = Duration::from_secs(2);
        config.timing.ticket = Duration::from_secs(3);
    })
    .await?;
    let (alice, bob) = (world.user("alice").await?, world.user("bob").await?);
    alice.file("shared/notes.txt", 1234)?;
    let mut serves = world.serve(&alice, &[]).await?;
    let (code, link, err) = alice.ends(world.share(&["shared/notes.txt", "--to", "users:bob"])).await?;
    assert_eq!(code, 0, "{err}");
    // Longer than session and ticket last.
    assert!(serves.wait(Duration::from_secs(5)).await.is_err(), "{}", serves.output().tail());
    let (code, _, err) = ended(&mut world.fetch(&bob, link.trim(), &[]).start()?).await?;
    assert_eq!(code, 0, "{err}");
    assert_eq!(fs::read(bob.path("out/notes.txt"))?, content(1234));
    Ok(())
}

/// Meets an owner at the relay and shows a grant: `accepted`, or the owner's code.
async fn meet(
    client: &SyncClient,
    identity: &Identity,
    address: &RelayAddress,
    grant: &str,
) -> Result<String> {
    let config = TransportConfig {
        mode: TransportMode::Relay,
        relay_url: Some(address.url.clone()),
        ..Default::default()
    };
    let ticket = client.relay_ticket(identity.peer_id(), vec![address.topic]).await?;
    let options = RelayOptions {
        identity: Some(identity.clone()),
        peers: PeerPolicy::Only(vec![address.peer_id]),
        admission: AdmissionSource::Ticket(ticket),
        proxy: ProxyChoice::Direct,
        ..Default::default()
    };
    let mut transport = RelayTransport::new(config, options)?;
    let mut owners = transport.connect_relay(address.topic.0).await?;
    let mut owner = tokio::time::timeout(LONG, owners.recv()).await?.context("the owner is there")?;
    let mut lane = Lane(owner.take_bulk().context("a lane for files")?);
    let presented = present(&mut lane, grant).await;
    drop(lane);
    let _ = tokio::time::timeout(Duration::from_secs(5), transport.disconnect()).await;
    match presented {
        Ok(()) => Ok("accepted".to_owned()),
        Err(HandoverError::Refused { code, .. }) => Ok(code),
        Err(error) => Err(error.into()),
    }
}

/// The lane of a conversation in which grants and files go.
struct Lane((culvert_client::SendHalf, culvert_client::ReceiveHalf));

#[async_trait::async_trait]
impl Connection for Lane {
    async fn send(&mut self, data: &[u8]) -> Result<()> {
        self.0.0.send(bytes::Bytes::copy_from_slice(data)).await?;
        Ok(())
    }

    async fn receive(&mut self) -> Result<Option<Vec<u8>>> {
        Ok(self.0.1.receive().await?.map(Vec::from))
    }

    async fn close(&mut self) -> Result<()> {
        Ok(())
    }

    fn peer_id(&self) -> &str {
        ""
    }
}

/// A new member of the institution, by the library: a login by its password from a device of their own.
async fn log_in(world: &World, user: &str) -> Result<(culvert_client::broker::Login, Identity)> {
    let identity = Identity::generate(&mut SystemRng);
    let options = RelayOptions { proxy: ProxyChoice::Direct, ..Default::default() };
    let api = BrokerApi::new(world.broker_url().parse()?, &options, false, LONG).await?;
    let (login, _) = api.login_institution(user, PASSWORD, &identity, None, None).await?;
    Ok((login, identity))
}

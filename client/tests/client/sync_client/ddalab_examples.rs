//! The Rust example of the first protocol's document, literally: only the crate's name is another one.
//!
//! It dials `wss://ddalab-sync.university.edu/ws`, so it runs in a process of its own, for which that name
//! leads, through a proxy, to a broker of this test, whose certificate it trusts, and in whose data folder
//! Alice is logged in. The test starts itself again for that: without the variable it sets the stage.

#![allow(clippy::print_stdout, reason = "the example prints")]

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use culvert_client::broker::{Credentials, Login, Logins};
use culvert_testkit::certs::TestCa;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::world::World;

const STAGED: &str = "CULVERT_TEST_DDALAB_STAGED";
const LIMIT: Duration = Duration::from_secs(120);

/// What the example downloads.
#[derive(Debug, Deserialize)]
struct DDAResult {
    answer: u32,
}

async fn example() -> Result<()> {
    // From here to the end of the block as printed, but for the crate's name.
    use culvert_client::sync::{AccessPolicy, SyncClient};

    // Connect to broker
    let client = SyncClient::connect(
        "wss://ddalab-sync.university.edu/ws".to_string(),
        "alice@university.edu".to_string(),
        "http://localhost:3001".to_string(),
    )
    .await?;

    // Share a result
    let share_link = client.share_result("result-123", "My Analysis", None, AccessPolicy::Public).await?;

    println!("Share link: {}", share_link);
    // Output: ddalab://share/abc123xyz

    // Access a shared result
    let share_info = client.access_share("abc123xyz").await?;
    if share_info.owner_online {
        // Download from owner's endpoint
        let result = reqwest::get(&share_info.download_url).await?.json::<DDAResult>().await?;
        println!("Downloaded: {}", result.answer);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_example_of_the_first_client_works_literally() -> Result<()> {
    if std::env::var_os(STAGED).is_some() {
        return tokio::time::timeout(LIMIT, example()).await?;
    }
    let world = World::new().await;
    let mut tasks = JoinSet::new();

    // Somebody shared a result, and is online with a server of their own.
    let owner = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}", owner.local_addr()?);
    tasks.spawn(serve_result(owner));
    let bob = world.builder("bob@university.edu").await.endpoint(endpoint).connect().await?;
    let policy = culvert_client::broker::AccessPolicy::Public;
    bob.publish("abc123xyz".parse()?, "result-7", "Bob's analysis", None, policy).await?;

    // Alice is logged in.
    let Credentials::Session(token) = world.user("alice@university.edu").await else { unreachable!() };
    let data = tempfile::tempdir()?;
    Logins::in_folder(data.path().join("culvert"))?.keep(Login {
        broker_url: "wss://ddalab-sync.university.edu/ws".into(),
        user_id: "alice@university.edu".into(),
        session_token: token.to_string(),
        expires_at: None,
        broker_key: None,
    })?;

    // The name leads to the broker, through a proxy, over TLS.
    let ca = TestCa::new("university authority")?;
    let leaf = ca.issue(&["ddalab-sync.university.edu"])?;
    let acceptor = TlsAcceptor::from(leaf.server_config()?);
    let proxy = TcpListener::bind("127.0.0.1:0").await?;
    let proxy_url = format!("http://{}", proxy.local_addr()?);
    tasks.spawn(tunnel(proxy, acceptor, world.addr));

    let path = concat!(module_path!(), "::the_rust_example_of_the_first_client_works_literally");
    let (_, name) = path.split_once("::").context("the program's name comes first")?;
    let mut program = tokio::process::Command::new(std::env::current_exe()?);
    let child = program
        .args(["--exact", name, "--nocapture", "--quiet"])
        .env(STAGED, "1")
        .env("HTTPS_PROXY", proxy_url)
        .env("NO_PROXY", "127.0.0.1,localhost")
        .env("SSL_CERT_FILE", ca.path())
        .env("XDG_DATA_HOME", data.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let ended = tokio::time::timeout(LIMIT, child).await.context("the example does not end")??;
    let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    ensure!(ended.status.success(), "the example failed: {err}");
    let link =
        out.lines().find_map(|line| line.strip_prefix("Share link: ddalab://share/")).context("a link")?;
    ensure!(out.contains("Downloaded: 42"), "nothing was downloaded: {out}");
    let share = bob.access_share(link).await?;
    ensure!(share.metadata.title == "My Analysis" && share.metadata.owner_user_id == "alice@university.edu");
    Ok(())
}

/// An application's own server.
async fn serve_result(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut request = [0; 1024];
        let Ok(len) = stream.read(&mut request).await else { continue };
        let is_right = request[..len].starts_with(b"GET /api/results/result-7 ");
        let (status, body) = if is_right { ("200 OK", r#"{"answer":42}"#) } else { ("404 Not Found", "") };
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}

/// CONNECT for one name, and the TLS of who has that name.
async fn tunnel(listener: TcpListener, acceptor: TlsAcceptor, broker: std::net::SocketAddr) {
    let mut tunnels = JoinSet::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tunnels.spawn(async move {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                ensure!(stream.read_buf(&mut request).await? > 0, "no request");
            }
            ensure!(request.starts_with(b"CONNECT ddalab-sync.university.edu:443 "), "another name");
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            let mut client = acceptor.accept(stream).await?;
            let mut server = TcpStream::connect(broker).await?;
            tokio::io::copy_bidirectional(&mut client, &mut server).await?;
            Ok(())
        });
    }
}

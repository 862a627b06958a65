//! `culvert demo` and `culvert dev`, whole.

use anyhow::Result;
use culvert_testkit::process::Signal;

use crate::support::{Home, LONG, content, ended};

#[tokio::test]
async fn the_demo_passes_a_file_over_a_restarted_relay_and_verifies_it() -> Result<()> {
    let home = Home::new()?;
    home.file("x", 6_000_000)?;
    let (code, out, err) = home.ends(["demo", "x"]).await?;
    assert_eq!(code, 0, "{err}");
    let hash = blake3::hash(&content(6_000_000)).to_string();
    assert!(out.contains(&hash), "{out}");
    assert!(err.contains("killed"), "{err}");
    for expected in ["It arrived whole", "sealed frames", "Try next", "culvert dev"] {
        assert!(out.contains(expected), "{expected}: {out}");
    }
    assert!(!home.path("received").exists());
    Ok(())
}

/// The commands that `dev` prints work as printed.
#[tokio::test]
async fn dev_runs_a_relay_and_prints_commands_that_work() -> Result<()> {
    let home = Home::new()?;
    home.file("FILE", 100_000)?;
    let port = culvert_testkit::process::free_port()?;
    let listen = [port, culvert_testkit::process::free_port()?].map(|port| format!("127.0.0.1:{port}"));
    let mut dev = home.culvert(["dev", "--listen", &listen[0], "--broker-listen", &listen[1]]).start()?;
    let command = |wanted: &'static str| {
        move |line: &str| {
            let line = line.trim();
            line.starts_with(&format!("culvert {wanted} ")).then(|| line.to_owned())
        }
    };
    let words = |line: String| line.split(' ').skip(1).map(str::to_owned).collect::<Vec<_>>();
    let send = words(dev.line(LONG, command("send")).await?);
    let receive = words(dev.line(LONG, command("receive")).await?);
    let mut sends = home.culvert(send).start()?;
    let link = crate::support::link(&sends).await?;
    let receive = receive.iter().map(|word| if word == "LINK" { &link } else { word });
    let mut receives = home.culvert(receive).args(["--out", "out"]).start()?;
    receives.succeeds(LONG).await?;
    sends.succeeds(LONG).await?;
    assert_eq!(std::fs::read(home.path("out/FILE"))?, content(100_000));
    dev.signal(Signal::INT)?;
    let (code, _, err) = ended(&mut dev).await?;
    assert_eq!(code, 0, "{err}");
    Ok(())
}

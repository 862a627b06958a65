//! The tour of the README, its commands exactly as printed.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use culvert_testkit::process::{Plan, Source, free_port};

use crate::support::{Home, LONG, link};

/// A copy of this repository's texts with a built release, and the blocks of commands to type in it.
struct Tour {
    home: Home,
    /// In the order of the README; each is taken when it was typed.
    blocks: Vec<String>,
    typed: Vec<String>,
    ports: [(&'static str, u16); 3],
}

impl Tour {
    fn begin() -> Result<Self> {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let home = Home::new()?;
        for folder in ["docs", "target/release"] {
            fs::create_dir_all(home.path(folder))?;
        }
        fs::copy(repository.join("docs/protocol.md"), home.path("docs/protocol.md"))?;
        fs::copy(repository.join("README.md"), home.path("README.md"))?;
        symlink(env!("CARGO_BIN_EXE_culvert"), home.path("target/release/culvert"))?;
        let readme = fs::read_to_string(repository.join("README.md"))?;
        let tour = readme.split_once("## Five minutes").context("the tour")?.1;
        let tour = tour.split_once("### From a program").context("the end of the tour")?.0;
        let blocks = tour.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
        Ok(Self {
            home,
            blocks: blocks.map(str::to_owned).collect(),
            typed: Vec::new(),
            // Others on this machine may be on the same tour.
            ports: [("8443", free_port()?), ("8080", free_port()?), ("8444", free_port()?)],
        })
    }

    /// A new terminal, in which the first block and then the one with this command is typed.
    fn terminal(&mut self, command: &str, link: &str) -> Result<Plan> {
        let exports = self.blocks.first().context("the exports")?.clone();
        let block =
            self.blocks.iter().find(|block| block.contains(command)).context("in the README")?.clone();
        self.typed.extend([exports.clone(), block.clone()]);
        // What runs until Ctrl-C takes the place of the shell, so that it ends with the test.
        let exec = if block.lines().count() == 1 && !block.contains('|') { "exec " } else { "" };
        let mut script = format!("set -e\n{exports}{exec}{}", block.replace("LINK", link));
        for (printed, free) in self.ports {
            script = script.replace(printed, &free.to_string());
        }
        let listen = format!("127.0.0.1:{}", self.ports[0].1);
        let plan = self.home.run("bash").args(["-c", &script]);
        let plan = plan.env("CULVERT_DEV_BROKER_LISTEN", format!("127.0.0.1:{}", self.ports[2].1));
        Ok(plan.env("CULVERT_DEV_LISTEN", listen).env("CULVERT_RELAY_ADMIN_LISTEN", "none"))
    }

    fn received(&self, name: &str, sent: &str) -> Result<()> {
        let (received, sent) = (self.home.path("received").join(name), self.home.path(sent));
        ensure!(fs::read(received)? == fs::read(sent)?, "{name} is another file");
        Ok(())
    }
}

#[tokio::test]
async fn the_tour_works_as_printed() -> Result<()> {
    let mut tour = Tour::begin()?;
    let dev = tour.terminal("culvert dev", "")?.start()?;
    dev.line(LONG, |line| line.starts_with("A relay runs").then_some(())).await?;

    let mut sends = tour.terminal("culvert doctor", "")?.start()?;
    let pasted = link(&sends).await?;
    tour.terminal("culvert receive", &pasted)?.start()?.succeeds(LONG).await?;
    sends.succeeds(LONG).await?;
    let said = sends.output().text(Source::Stdout);
    assert!(said.contains("This network lets you use"), "{said}");
    tour.received("README.md", "README.md")?;
    tour.received("docs/protocol.md", "docs/protocol.md")?;

    let mut pipes = tour.terminal("tar c docs", "")?.start()?;
    let pasted = link(&pipes).await?;
    tour.terminal("culvert receive", &pasted)?.start()?.succeeds(LONG).await?;
    pipes.succeeds(LONG).await?;
    assert!(fs::metadata(tour.home.path("received/docs.tar"))?.len() > 0);

    let mut shares = tour.terminal("--user alice", "")?.start()?;
    shares.succeeds(LONG).await?;
    let pasted = link(&shares).await?;
    assert!(pasted.starts_with("culvert://share/"), "{pasted}");
    let serves = tour.terminal("culvert serve", "")?.start()?;
    serves.line(LONG, |line| line.starts_with("Serving ").then_some(())).await?;
    let mut fetches = tour.terminal("--user bob", &pasted)?.start()?;
    fetches.succeeds(LONG).await?;
    assert!(fetches.output().contains("through the relay"), "{}", fetches.output().tail());
    assert_eq!(fs::read(tour.home.path("fetched/README.md"))?, fs::read(tour.home.path("README.md"))?);

    fs::remove_dir_all(tour.home.path("received"))?;
    tour.terminal("culvert ticket keygen", "")?.start()?.succeeds(LONG).await?;
    let mut relay = tour.terminal("culvert relay", "")?.start()?;
    relay.answers(SocketAddr::from(([127, 0, 0, 1], tour.ports[1].1)), LONG).await?;
    let mut sends = tour.terminal("--ticket me.ticket", "")?.start()?;
    let pasted = link(&sends).await?;
    tour.terminal("culvert receive", &pasted)?.start()?.succeeds(LONG).await?;
    sends.succeeds(LONG).await?;
    tour.received("README.md", "README.md")?;

    let untyped: Vec<_> = tour.blocks.iter().filter(|block| !tour.typed.contains(block)).collect();
    assert!(untyped.is_empty(), "printed, but not tried: {untyped:?}");
    Ok(())
}

//! The fourth promise: `culvert` works through the proxies that companies run, and says what is wrong where
//! it does not.

use std::path::{Path, PathBuf};
use std::time::Duration;

use culvert_testkit::certs::TestCa;
use culvert_testkit::process::{Plan, Process};
use culvert_testkit::proxies::{Credentials, Mitmproxy, Socks, Squid};
use culvert_testkit::relay::{RelayPlan, RelayProcess};
use culvert_testkit::user::{self, User};
use culvert_testkit::{binaries, raw};

/// Longer than any transfer here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A relay over TLS, known as `relay.culvert.test` and `localhost`, and two people.
struct World {
    ca: TestCa,
    relay: RelayProcess,
    anna: User,
    ben: User,
}

impl World {
    async fn new() -> Self {
        let ca = TestCa::new("Culvert test").unwrap();
        let leaf = ca.issue(&["relay.culvert.test", "localhost", "127.0.0.1"]).unwrap();
        let plan = RelayPlan::open(binaries::relay().await.unwrap()).unwrap().tls(&leaf, &ca).unwrap();
        let relay = plan.start().await.unwrap();
        Self { ca, relay, anna: User::new().await.unwrap(), ben: User::new().await.unwrap() }
    }

    fn url(&self, host: &str) -> String {
        format!("wss://{host}:{}", self.relay.addr().port())
    }

    /// `culvert send` of a file of 3 MiB, with this network for whoever sends and receives.
    fn send(&self, url: &str, network: impl Fn(Plan) -> Plan) -> Process {
        let file = self.anna.home().join("report.bin");
        std::fs::write(&file, report()).unwrap();
        network(self.anna.culvert("send").args(["--relay", url])).arg(file).start().unwrap()
    }

    /// Sends and receives, both through this network.
    async fn passes(&self, url: &str, network: impl Fn(Plan) -> Plan) {
        let mut sender = self.send(url, &network);
        let link = user::link(&sender).await.unwrap();
        let out = self.ben.home().join("in");
        let receive = self.ben.culvert("receive").arg(link).arg("--out").arg(&out);
        network(receive).start().unwrap().succeeds(PATIENCE).await.unwrap();
        sender.succeeds(PATIENCE).await.unwrap();
        assert_eq!(std::fs::read(out.join("report.bin")).unwrap(), report(), "the file differs");
    }

    /// What `culvert send` prints when it cannot get out, and its exit code.
    async fn fails(&self, url: &str, network: impl Fn(Plan) -> Plan) -> (Option<i32>, String) {
        let mut sender = self.send(url, network);
        let status = sender.wait(PATIENCE).await.unwrap();
        assert!(!status.success(), "it got through:\n{}", sender.output().tail());
        (status.code(), sender.output().tail())
    }
}

fn report() -> Vec<u8> {
    (0..3 << 18).flat_map(|n: u32| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

fn trusting(ca: PathBuf) -> impl Fn(Plan) -> Plan {
    move |plan| plan.arg("--ca-file").arg(&ca)
}

#[tokio::test]
async fn it_goes_through_squid_with_basic_authentication_and_leaves_the_name_to_it() {
    let world = World::new().await;
    let credentials = Credentials::new("anna", "p+a/s:s wörd=");
    let squid = Squid::start(Some(credentials)).await.unwrap();
    let trusting = trusting(world.ca.path());
    // The name resolves for squid only, so an address that came from here could not be right.
    let url = world.url("relay.culvert.test");
    world.passes(&url, |plan| trusting(plan).args(["--proxy", &squid.url()])).await;
    let log = squid.access_log().unwrap();
    let through = format!("CONNECT relay.culvert.test:{} anna", world.relay.addr().port());
    assert!(log.contains(&through), "{log}");
}

#[tokio::test]
async fn the_environment_names_the_proxy_and_what_goes_around_it() {
    let world = World::new().await;
    let squid = Squid::start(Some(Credentials::new("anna", "secret"))).await.unwrap();
    let trusting = trusting(world.ca.path());
    let environment = |plan: Plan| trusting(plan).env("HTTPS_PROXY", squid.url());
    world.passes(&world.url("relay.culvert.test"), environment).await;
    // Around the proxy, the name means nothing.
    let around = |plan: Plan| environment(plan).env("NO_PROXY", ".culvert.test");
    let (code, printed) = world.fails(&world.url("relay.culvert.test"), around).await;
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("relay.culvert.test"), "{printed}");
    // And without a name to resolve, around works.
    world.passes(&world.url("localhost"), |plan| environment(plan).env("no_proxy", "localhost")).await;
}

#[tokio::test]
async fn a_proxy_that_wants_other_credentials_is_said_to() {
    let world = World::new().await;
    let squid = Squid::start(Some(Credentials::new("anna", "secret"))).await.unwrap();
    let trusting = trusting(world.ca.path());
    let wrong = Credentials::new("anna", "not-the-secret");
    for proxy in [squid.url_with(Some(&wrong)), squid.url_with(None)] {
        let (code, printed) = world
            .fails(&world.url("relay.culvert.test"), |plan| trusting(plan).args(["--proxy", &proxy]))
            .await;
        assert_eq!(code, Some(1), "{printed}");
        assert!(printed.contains("407") || printed.to_lowercase().contains("password"), "{printed}");
        assert!(!printed.contains("not-the-secret"), "the password is shown: {printed}");
    }
}

#[tokio::test]
async fn it_goes_through_a_socks_proxy_that_resolves_the_name() {
    let world = World::new().await;
    let socks = Socks::start(Some(Credentials::new("anna", "secret"))).await.unwrap();
    let trusting = trusting(world.ca.path());
    world.passes(&world.url("localhost"), |plan| trusting(plan).args(["--proxy", &socks.url()])).await;
    socks.connected(&format!("localhost:{}", world.relay.addr().port())).await.unwrap();
}

#[tokio::test]
async fn it_goes_through_an_inspecting_proxy_whose_authority_is_given() {
    let world = World::new().await;
    let proxy = Mitmproxy::start(&world.ca.path(), Some(Credentials::new("anna", "secret"))).await.unwrap();
    let trusting = trusting(proxy.ca_path());
    world.passes(&world.url("localhost"), |plan| trusting(plan).args(["--proxy", &proxy.url()])).await;
}

#[tokio::test]
async fn without_the_authority_of_the_inspecting_proxy_the_error_names_it_and_says_what_to_do() {
    let world = World::new().await;
    let proxy = Mitmproxy::start(&world.ca.path(), None).await.unwrap();
    // The relay's own authority is trusted, but it is not what the proxy shows.
    let trusting = trusting(world.ca.path());
    let (code, printed) =
        world.fails(&world.url("localhost"), |plan| trusting(plan).args(["--proxy", &proxy.url()])).await;
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("mitmproxy"), "the issuer is not named: {printed}");
    assert!(printed.contains("CA file"), "it does not say what to do: {printed}");
}

#[tokio::test]
async fn doctor_says_that_the_way_is_inspected_and_by_whom() {
    let world = World::new().await;
    let proxy = Mitmproxy::start(&world.ca.path(), None).await.unwrap();
    let (url, ca) = (world.url("localhost"), proxy.ca_path());
    let doctor = |ca: &Path| {
        let plan =
            world.anna.culvert("doctor").args([&url, "--proxy", &proxy.url()]).arg("--ca-file").arg(ca);
        plan.start().unwrap()
    };
    let mut well = doctor(&ca);
    well.succeeds(PATIENCE).await.unwrap();
    assert!(well.output().contains("mitmproxy"), "{}", well.output().tail());
    let mut ill = doctor(&world.ca.path());
    assert!(!ill.wait(PATIENCE).await.unwrap().success());
    assert!(ill.output().contains("mitmproxy"), "{}", ill.output().tail());
    // The relay itself is fine: it was only the way.
    raw::RawPeer::connect(world.relay.addr(), &world.relay.raw()).await.unwrap();
}

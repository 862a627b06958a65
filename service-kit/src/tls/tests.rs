//! Certificates from files, through real handshakes in memory.

use std::path::Path;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, NamedGroup, RootCertStore, SupportedProtocolVersion};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::metric_set::Registry;

struct Issued {
    certificate: String,
    der: CertificateDer<'static>,
    key: String,
}

fn issue(names: &[&str]) -> Issued {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    Issued { certificate: certificate.pem(), der: certificate.der().clone(), key: key.serialize_pem() }
}

struct Folder {
    folder: tempfile::TempDir,
    registry: Registry,
}

impl Folder {
    fn with(issued: &Issued) -> Self {
        let folder = Self { folder: tempfile::tempdir().unwrap(), registry: Registry::new() };
        folder.write(&issued.certificate, &issued.key);
        folder
    }

    fn write(&self, certificate: &str, key: &str) {
        std::fs::write(self.path("tls.crt"), certificate).unwrap();
        std::fs::write(self.path("tls.key"), key).unwrap();
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        Path::join(self.folder.path(), name)
    }

    fn load(&self) -> Result<Arc<Certificates>, TlsError> {
        let files = Files { certificate: self.path("tls.crt"), key: self.path("tls.key") };
        Certificates::load(files, Metrics::register(self.registry.recorder()))
    }
}

/// Does a handshake as a client that trusts `root` only; gives the client's side of it.
async fn connect(
    certificates: &Arc<Certificates>,
    root: &Issued,
    host: &str,
    provider: CryptoProvider,
    version: &'static SupportedProtocolVersion,
) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(root.der.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let (near, far) = tokio::io::duplex(64 * 1024);
    let acceptor = TlsAcceptor::from(certificates.server_config().unwrap());
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let (client, server) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
    server.unwrap();
    let (_, state) = client.unwrap().into_inner();
    assert_eq!(state.alpn_protocol(), Some(&b"http/1.1"[..]));
    state
}

/// The certificate that a handshake showed.
async fn handshake(certificates: &Arc<Certificates>, root: &Issued, host: &str) -> CertificateDer<'static> {
    let state = connect(certificates, root, host, aws_lc_rs::default_provider(), &TLS13).await;
    state.peer_certificates().unwrap()[0].clone().into_owned()
}

#[tokio::test]
async fn the_cheapest_suite_of_those_offered_is_used_whatever_the_client_puts_first() {
    let issued = issue(&["relay.example"]);
    let certificates = Folder::with(&issued).load().unwrap();
    let used = async |version, without: &[CipherSuite]| {
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites.retain(|suite| !without.contains(&suite.suite()));
        let state = connect(&certificates, &issued, "relay.example", provider, version).await;
        let group = state.negotiated_key_exchange_group().unwrap().name();
        (state.negotiated_cipher_suite().unwrap().suite(), group)
    };
    let aes = [CipherSuite::TLS13_AES_128_GCM_SHA256, CipherSuite::TLS13_AES_256_GCM_SHA384];
    for (version, without, suite, group) in [
        (&TLS13, &[][..], aes[0], NamedGroup::X25519MLKEM768),
        (&TLS13, &aes[..1], aes[1], NamedGroup::X25519MLKEM768),
        (&TLS13, &aes[..], CipherSuite::TLS13_CHACHA20_POLY1305_SHA256, NamedGroup::X25519MLKEM768),
        (&TLS12, &[][..], CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, NamedGroup::X25519),
    ] {
        assert_eq!(used(version, without).await, (suite, group));
    }
}

#[tokio::test]
async fn a_handshake_uses_the_files() {
    let issued = issue(&["relay.example", "127.0.0.1"]);
    let folder = Folder::with(&issued);
    let certificates = folder.load().unwrap();
    assert_eq!(handshake(&certificates, &issued, "relay.example").await, issued.der);
    assert_eq!(handshake(&certificates, &issued, "127.0.0.1").await, issued.der);
}

#[test]
fn names_and_expiry_are_those_of_the_certificate() {
    let folder = Folder::with(&issue(&["relay.example", "*.relays.example", "127.0.0.1", "::1"]));
    let certificates = folder.load().unwrap();
    let names: Vec<String> = certificates.names().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["relay.example", "*.relays.example", "127.0.0.1", "::1"]);
    for (host, covered) in [
        ("relay.example", true),
        ("RELAY.example", true),
        ("a.relays.example", true),
        ("a.b.relays.example", false),
        ("relays.example", false),
        ("example", false),
        ("127.0.0.1", true),
        ("127.0.0.2", false),
        ("::1", true),
        ("not a host", false),
        ("", false),
    ] {
        assert_eq!(certificates.covers(host), covered, "{host}");
    }
    // rcgen's certificates end in 4096.
    assert_eq!(certificates.not_after(), 67_090_118_400);
    let line = "culvert_tls_certificate_expiry_timestamp_seconds 67090118400";
    assert!(folder.registry.render().contains(line), "{}", folder.registry.render());
}

#[tokio::test]
async fn changed_files_are_used_by_new_handshakes() {
    let (old, new) = (issue(&["relay.example"]), issue(&["other.example"]));
    let folder = Folder::with(&old);
    let certificates = folder.load().unwrap();
    assert_eq!(certificates.reload().unwrap(), Reload::Unchanged);
    folder.write(&new.certificate, &new.key);
    assert_eq!(certificates.reload().unwrap(), Reload::Replaced);
    assert_eq!(handshake(&certificates, &new, "other.example").await, new.der);
    assert_eq!(certificates.names(), [Name::Dns("other.example".into())]);
    assert!(folder.registry.render().contains(r#"culvert_tls_reloads_total{outcome="replaced"} 1"#));
}

#[tokio::test]
async fn unusable_files_keep_the_old_certificate_and_say_what_is_wrong() {
    let (old, new) = (issue(&["relay.example"]), issue(&["relay.example"]));
    let nameless = issue(&[]);
    let folder = Folder::with(&old);
    let certificates = folder.load().unwrap();
    let malformed = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (certificate, key, file, fault) in [
        (&*new.certificate, &*old.key, "tls.key", "does not fit the first certificate"),
        ("", &new.key, "tls.crt", "no CERTIFICATE section"),
        (&new.certificate, "", "tls.key", "no PRIVATE KEY section"),
        (&new.certificate, &new.certificate, "tls.key", "no PRIVATE KEY section"),
        (malformed, &new.key, "tls.crt", "certificate"),
        ("-----BEGIN CERTIFICATE-----\n!", &new.key, "tls.crt", "not valid PEM"),
        (&nameless.certificate, &nameless.key, "tls.crt", "subject alternative names"),
    ] {
        folder.write(certificate, key);
        let error = certificates.reload().unwrap_err().to_string();
        assert!(error.contains(file) && error.contains(fault), "expected {fault}: {error}");
        assert!(!error.contains(new.key.lines().nth(1).unwrap()), "the key is in the message");
        assert_eq!(handshake(&certificates, &old, "relay.example").await, old.der);
    }
    std::fs::remove_file(folder.path("tls.crt")).unwrap();
    let error = certificates.reload().unwrap_err().to_string();
    assert!(error.contains("tls.crt: No such file"), "{error}");
    assert!(folder.load().is_err());
}

#[tokio::test(start_paused = true)]
async fn the_watch_picks_up_changes_and_counts_a_bad_file_once() {
    let (old, new) = (issue(&["relay.example"]), issue(&["other.example"]));
    let folder = Folder::with(&old);
    let certificates = folder.load().unwrap();
    let mut watch = tokio::task::JoinSet::new();
    watch.spawn(certificates.clone().watch());
    let rejected = |count| format!(r#"culvert_tls_reloads_total{{outcome="rejected"}} {count}"#);

    folder.write("", "");
    until(|| folder.registry.render().contains(&rejected(1))).await;
    assert_eq!(certificates.names(), [Name::Dns("relay.example".into())]);
    folder.write(&new.certificate, &new.key);
    until(|| certificates.names() == [Name::Dns("other.example".into())]).await;
    // Several polls found the bad file or its half-written successor; only new faults count.
    let rejections = folder.registry.render();
    assert!(rejections.contains(&rejected(1)) || rejections.contains(&rejected(2)), "{rejections}");
}

#[tokio::test]
async fn a_hangup_signal_reloads_without_waiting_for_the_next_poll() {
    let (old, new) = (issue(&["relay.example"]), issue(&["other.example"]));
    let folder = Folder::with(&old);
    let certificates = folder.load().unwrap();
    folder.write("", "");
    let mut watch = tokio::task::JoinSet::new();
    watch.spawn(certificates.clone().watch_every(Duration::from_secs(3600)));
    // The first poll rejects the empty files; from then on the handler is there and the signal is safe.
    let rejected = r#"culvert_tls_reloads_total{outcome="rejected"} 1"#;
    until(|| folder.registry.render().contains(rejected)).await;
    folder.write(&new.certificate, &new.key);
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::HUP).unwrap();
    until(|| certificates.names() == [Name::Dns("other.example".into())]).await;
}

/// Waits for a condition that another task brings about.
async fn until(condition: impl Fn() -> bool) {
    tokio::time::timeout(Duration::from_secs(60), async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
}

//! The broker announces itself, and says goodbye.

use culvert_broker_api::announce::SERVICES;
use culvert_relay::config::Tls;
use culvert_service_kit::Clock;
use culvert_service_kit::tls::Files;
use culvert_testkit::certs::TestCa;
use data_encoding::HEXLOWER;
use mdns_sd::{Receiver, ResolvedService, ServiceDaemon, ServiceEvent};
use sha2::{Digest, Sha256};

use crate::common::{DEADLINE, Running};

/// The next thing that is heard and wanted.
async fn heard<T>(events: &Receiver<ServiceEvent>, wanted: impl Fn(ServiceEvent) -> Option<T>) -> T {
    let search = async {
        loop {
            if let Some(found) = wanted(events.recv_async().await.expect("the search goes on")) {
                return found;
            }
        }
    };
    tokio::time::timeout(DEADLINE, search).await.expect("heard in time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hole_1_b_8_the_announcement_is_withdrawn_at_shutdown_and_says_nothing_of_the_password() {
    let authority = TestCa::new("announce").unwrap();
    let leaf = authority.loopback().unwrap();
    let fingerprint = HEXLOWER.encode(&Sha256::digest(leaf.der().unwrap()));
    let listener = ServiceDaemon::new().unwrap();
    let searches = SERVICES.map(|service| listener.browse(service).unwrap());

    let files = Files { certificate: leaf.cert_path().to_owned(), key: leaf.key_path().to_owned() };
    let broker = Running::sqlite_with(Clock::system(), |config| {
        config.tls = Tls::Files(files);
        config.announce = true;
        config.institution = "University of Somewhere".to_owned();
        config.institution_password = Some("correct horse battery staple".to_owned().into());
    })
    .await;

    let port = broker.addr().port();
    let ours = |event| match event {
        ServiceEvent::ServiceResolved(service) if service.get_port() == port => Some(service),
        _ => None,
    };
    let mut names = Vec::new();
    for events in &searches {
        let service: Box<ResolvedService> = heard(events, ours).await;
        let property = |key: &str| service.get_property_val_str(key).unwrap_or_default().to_owned();
        assert_eq!(property("institution"), "University of Somewhere");
        assert_eq!(property("version"), env!("CARGO_PKG_VERSION"));
        assert_eq!((property("auth_required"), property("tls")), ("true".into(), "true".into()));
        assert_eq!(property("fingerprint"), fingerprint);
        let mut keys: Vec<_> = service.get_properties().iter().map(|property| property.key()).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["auth_required", "fingerprint", "host", "institution", "tls", "version"]);
        let hash = HEXLOWER.encode(&Sha256::digest("correct horse battery staple"));
        assert!(!format!("{service:?}").contains(&hash), "a hash of the password was announced");
        names.push(service.get_fullname().to_owned());
    }

    broker.drain().await.unwrap();
    for (events, name) in searches.iter().zip(&names) {
        heard(events, |event| match event {
            ServiceEvent::ServiceRemoved(_, gone) if gone == *name => Some(()),
            _ => None,
        })
        .await;
    }
    listener.shutdown().unwrap();
}

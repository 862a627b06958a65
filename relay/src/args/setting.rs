//! Forms of values that only a relay has.

use std::net::SocketAddr;

use bytesize::ByteSize;
use culvert_service_kit::config::Setting;
use culvert_service_kit::fetch::Fetcher;
use url::Url;

use crate::config::{KeySource, TenantScope};
use crate::quota::Rate;

/// Where the admin port is, if anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdminAddress(pub Option<SocketAddr>);

impl Setting for AdminAddress {
    const FORM: &'static str = "an address with a port such as 127.0.0.1:9443, or none";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "none" => Some(Self(None)),
            _ => text.parse().ok().map(|address| Self(Some(address))),
        }
    }
}

impl Setting for TenantScope {
    const FORM: &'static str = "node or cluster";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "node" => Some(Self::Node),
            "cluster" => Some(Self::Cluster),
            _ => None,
        }
    }
}

impl Setting for KeySource {
    const FORM: &'static str =
        "the path of a file, or an https:// URL (http:// at a loopback address) of a JSON Web Key Set";

    fn parse(text: &str) -> Option<Self> {
        if !text.contains("://") {
            return (!text.is_empty()).then(|| Self::File(text.into()));
        }
        Url::parse(text).ok().filter(Fetcher::accepts).map(Self::Url)
    }
}

/// What no limit is called.
const UNLIMITED: &str = "unlimited";

impl Setting for Rate {
    const FORM: &'static str = "a number a second such as 1000, with a burst such as 1000:5000, or unlimited";

    fn parse(text: &str) -> Option<Self> {
        rate(text, |number| number.parse().ok())
    }
}

/// A rate of bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ByteRate(pub Rate);

impl Setting for ByteRate {
    const FORM: &'static str =
        "a size a second such as 10MiB, with a burst such as 10MiB:64MiB, or unlimited";

    fn parse(text: &str) -> Option<Self> {
        rate(text, |size| ByteSize::parse(size).map(|size| size.as_u64())).map(Self)
    }
}

/// Reads `RATE` or `RATE:BURST`; zero is refused, because it would read as "nothing" and mean no limit.
fn rate(text: &str, number: impl Fn(&str) -> Option<u64>) -> Option<Rate> {
    if text == UNLIMITED {
        return Some(Rate::UNLIMITED);
    }
    let positive = |text: &str| number(text).filter(|&number| number > 0);
    match text.split_once(':') {
        Some((per_second, burst)) => {
            Some(Rate { per_second: positive(per_second)?, burst: positive(burst)? })
        }
        None => positive(text).map(Rate::per_second),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_with_or_without_a_burst_or_unlimited() {
        assert_eq!(Rate::parse("1000"), Some(Rate { per_second: 1000, burst: 1000 }));
        assert_eq!(Rate::parse("500:5000"), Some(Rate { per_second: 500, burst: 5000 }));
        assert_eq!(Rate::parse("unlimited"), Some(Rate::UNLIMITED));
        assert_eq!(ByteRate::parse("1KiB:1MiB"), Some(ByteRate(Rate { per_second: 1024, burst: 1 << 20 })));
        for bad in ["", "0", "10:0", "0:10", "10:", "-1", "10/s", "1MiB", "10:20:30"] {
            assert_eq!(Rate::parse(bad), None, "{bad}");
        }
        assert_eq!(ByteRate::parse("0"), None);
    }

    #[test]
    fn ticket_keys_are_files_or_urls_that_nobody_on_the_way_can_change() {
        assert_eq!(KeySource::parse("keys.pem"), Some(KeySource::File("keys.pem".into())));
        for url in ["https://broker.example/.well-known/jwks.json", "http://127.0.0.1:8080/jwks"] {
            assert_eq!(KeySource::parse(url), Some(KeySource::Url(url.parse().unwrap())));
        }
        for bad in ["", "http://broker.example/jwks", "ftp://broker.example/jwks", "https://"] {
            assert_eq!(KeySource::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_admin_port_can_be_turned_off() {
        assert_eq!(AdminAddress::parse("none"), Some(AdminAddress(None)));
        assert_eq!(AdminAddress::parse("127.0.0.1:1").unwrap().0, "127.0.0.1:1".parse().ok());
        assert_eq!(AdminAddress::parse("9443"), None);
    }
}

//! Forms of values that only a broker has.

use std::time::Duration;

use culvert_service_kit::config::Setting;

use crate::live::Rate;

/// A duration, or a bare number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seconds(pub Duration);

impl Setting for Seconds {
    const FORM: &'static str = "a duration such as 5m, or a number of seconds such as 300";

    fn parse(text: &str) -> Option<Self> {
        let bare = text.parse().ok().map(Duration::from_secs);
        bare.or_else(|| Duration::parse(text)).map(Self)
    }
}

/// The URL of a broker, without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl(pub String);

impl Setting for PublicUrl {
    const FORM: &'static str = "an http:// or https:// URL of a host, such as https://broker.example.org";

    fn parse(text: &str) -> Option<Self> {
        let url: hyper::Uri = text.parse().ok()?;
        let (scheme, authority) = (url.scheme_str()?, url.authority()?);
        let is_host = matches!(scheme, "http" | "https")
            && matches!(url.path(), "" | "/")
            && url.query().is_none()
            && !authority.as_str().contains('@');
        is_host.then(|| Self(format!("{scheme}://{authority}")))
    }
}

impl Setting for Rate {
    const FORM: &'static str = "a number in a time such as 10/1m: so many at once, and again as time passes";

    fn parse(text: &str) -> Option<Self> {
        let (count, time) = text.split_once('/')?;
        let burst: u32 = count.trim().parse().ok().filter(|&count| count > 0)?;
        let time = Duration::parse(time.trim()).filter(|time| !time.is_zero())?;
        Some(Rate { per_second: f64::from(burst) / time.as_secs_f64(), burst })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_in_a_time() {
        assert_eq!(Rate::parse("10/1s"), Some(Rate { per_second: 10.0, burst: 10 }));
        assert_eq!(Rate::parse("10 / 1m"), Some(Rate { per_second: 10.0 / 60.0, burst: 10 }));
        for bad in ["", "10", "0/1s", "10/0s", "10/s", "-1/1s", "1.5/1s", "10/1m/2"] {
            assert_eq!(Rate::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_public_url_names_a_host_and_nothing_else() {
        let url = |text: &str| PublicUrl::parse(text).map(|url| url.0);
        assert_eq!(url("https://broker.example.org/").as_deref(), Some("https://broker.example.org"));
        assert_eq!(url("http://127.0.0.1:8080").as_deref(), Some("http://127.0.0.1:8080"));
        for bad in ["", "broker.example.org", "wss://b", "https://b/path", "https://b?q", "https://u:p@b"] {
            assert_eq!(url(bad), None, "{bad}");
        }
    }

    #[test]
    fn seconds_need_no_unit() {
        assert_eq!(Seconds::parse("300"), Some(Seconds(Duration::from_secs(300))));
        assert_eq!(Seconds::parse("5m"), Some(Seconds(Duration::from_secs(300))));
        assert_eq!(Seconds::parse("soon"), None);
    }
}

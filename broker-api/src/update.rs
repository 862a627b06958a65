//! Whether there is a newer version: asked of a list that the operator names, said in one log line.
//!
//! The list has the form of the tags of a repository at Docker Hub: pages of `results`, each with a `name`,
//! and `next` for the page that follows. Names that are no versions are passed over. It never delays or
//! stops anything: it runs beside the broker, each page may take 5 s, and what goes wrong is one line.

use std::time::Duration;

use culvert_service_kit::fetch::{FetchError, Fetcher};
use semver::Version;
use serde::Deserialize;
use tokio::time::{MissedTickBehavior, interval};
use url::Url;

use crate::config::Config;

/// How often.
const EVERY: Duration = Duration::from_secs(24 * 3600);
/// Longest wait for one page.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest page.
const PAGE_BYTES: usize = 1 << 20;
/// A list that goes on for longer is not one.
const PAGES: usize = 100;

/// An answer that does not come.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// A page does not come.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A page is not one.
    #[error("{url} is no page of a list of versions")]
    Page {
        /// Where.
        url: Url,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A page names something as the next one that is no URL.
    #[error("the page after {after} has no URL")]
    Next {
        /// Where.
        after: Url,
        /// Why.
        #[source]
        source: url::ParseError,
    },
    /// The URL is none.
    #[error("update-url is no URL")]
    Url(#[from] url::ParseError),
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    next: Option<String>,
    results: Vec<Tag>,
}

#[derive(Deserialize)]
struct Tag {
    name: String,
}

/// Asks at start and then every day, if it is to ask at all, until dropped.
pub(crate) async fn watch(config: &Config) {
    let Some(url) = &config.update_url else { return std::future::pending().await };
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match newer(url, env!("CARGO_PKG_VERSION"), None).await {
            Ok(Some(version)) => {
                let current = env!("CARGO_PKG_VERSION");
                tracing::info!(%version, current, "a newer version of the broker is there");
            }
            Ok(None) => tracing::debug!("there is no newer version"),
            Err(error) => {
                let error = crate::args::chain(&error);
                tracing::info!(
                    error,
                    "nobody could say whether there is a newer version; asked again tomorrow"
                );
            }
        }
    }
}

/// The newest version in the list at `url` that is newer than `current`, no preliminary one; `ca` is trusted
/// beside the system's authorities.
///
/// # Errors
/// See [`UpdateError`].
pub async fn newer(url: &str, current: &str, ca: Option<&[u8]>) -> Result<Option<Version>, UpdateError> {
    let fetcher = Fetcher::new(ca, PATIENCE, PAGE_BYTES)?;
    let mut url: Url = url.parse()?;
    let mut names = Vec::new();
    for _ in 0..PAGES {
        let text = fetcher.get(&url).await?;
        let page: Page =
            serde_json::from_slice(&text).map_err(|source| UpdateError::Page { url: url.clone(), source })?;
        names.extend(page.results.into_iter().map(|tag| tag.name));
        match page.next {
            Some(next) => url = url.join(&next).map_err(|source| UpdateError::Next { after: url, source })?,
            None => break,
        }
    }
    let newest = names.iter().filter_map(|name| version(name)).max();
    Ok(newest.filter(|newest| version(current).is_none_or(|current| *newest > current)))
}

/// A version that is no preliminary one; with or without a `v` before it.
fn version(name: &str) -> Option<Version> {
    let version = Version::parse(name.strip_prefix('v').unwrap_or(name)).ok()?;
    version.pre.is_empty().then_some(version)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;

    use super::*;

    /// Serves these pages by their paths, one request per connection; `None` is never answered.
    async fn pages(pages: Vec<(&'static str, Option<String>)>) -> (String, JoinSet<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut held = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = vec![0; 4096];
                let read = stream.read(&mut head).await.unwrap();
                let path = String::from_utf8_lossy(&head[..read]).split(' ').nth(1).unwrap().to_owned();
                match pages.iter().find(|(known, _)| *known == path) {
                    Some((_, Some(body))) => {
                        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                        stream.write_all(head.as_bytes()).await.unwrap();
                        stream.write_all(body.as_bytes()).await.unwrap();
                    }
                    Some((_, None)) => held.push(stream),
                    None => stream.write_all(b"HTTP/1.1 404 Not Found\r\n\r\n").await.unwrap(),
                }
            }
        });
        (url, server)
    }

    fn page(names: &[&str], next: Option<&str>) -> Option<String> {
        let results: Vec<_> = names.iter().map(|name| serde_json::json!({ "name": name })).collect();
        Some(serde_json::json!({ "count": 9, "next": next, "results": results }).to_string())
    }

    /// Only the first page was ever read once.
    #[tokio::test]
    async fn hole_1_b_8_all_pages_are_read_and_odd_versions_are_passed_over() {
        let (url, _server) = pages(vec![
            (
                "/tags",
                page(&["latest", "0.2.0", "", "v", "9", "1.2.3.4", "99.0.0-rc.1"], Some("/tags?page=2")),
            ),
            ("/tags?page=2", page(&["v0.10.0", "0.9.0", "main-2024", "18446744073709551616.0.0"], None)),
        ])
        .await;
        let list = format!("{url}/tags");
        assert_eq!(newer(&list, "0.1.0", None).await.unwrap().unwrap().to_string(), "0.10.0");
        assert_eq!(newer(&list, "0.10.0", None).await.unwrap(), None);
        assert_eq!(newer(&list, "not a version", None).await.unwrap().unwrap().to_string(), "0.10.0");
    }

    #[tokio::test]
    async fn a_list_that_never_ends_ends() {
        let (url, _server) = pages(vec![("/tags", page(&["1.0.0"], Some("/tags")))]).await;
        let found = newer(&format!("{url}/tags"), "0.1.0", None).await.unwrap();
        assert_eq!(found.unwrap().to_string(), "1.0.0");
    }

    #[tokio::test]
    async fn what_is_no_list_is_an_error_and_so_is_nothing() {
        let (url, _server) =
            pages(vec![("/html", Some("<html>".into())), ("/odd", page(&[], Some("http://[")))]).await;
        let ask = async |path: &str| newer(&format!("{url}{path}"), "0.1.0", None).await.unwrap_err();
        assert!(matches!(ask("/html").await, UpdateError::Page { .. }));
        assert!(matches!(ask("/odd").await, UpdateError::Next { .. }));
        assert!(matches!(ask("/gone").await, UpdateError::Fetch(FetchError::Status { .. })));
        assert!(matches!(newer("nonsense", "0.1.0", None).await.unwrap_err(), UpdateError::Url(_)));
    }

    #[tokio::test]
    async fn a_list_that_does_not_answer_is_waited_for_5_seconds() {
        let (url, _server) = pages(vec![("/silent", None)]).await;
        let started = tokio::time::Instant::now();
        let error = newer(&format!("{url}/silent"), "0.1.0", None).await.unwrap_err();
        assert!(matches!(error, UpdateError::Fetch(FetchError::Late { .. })), "{error}");
        let waited = started.elapsed();
        assert!(waited >= PATIENCE && waited < 3 * PATIENCE, "{waited:?}");
    }
}

//! A scrape of a relay's metrics, in the text format of Prometheus.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest wait for an admin port.
const DEADLINE: Duration = Duration::from_secs(10);

/// All series at one moment.
#[derive(Debug, Clone)]
pub struct Metrics(String);

impl Metrics {
    /// From the text of a scrape.
    pub fn of(text: String) -> Self {
        Self(text)
    }

    /// Asks the admin port for them.
    ///
    /// # Errors
    /// The port does not answer with them in time.
    pub async fn scrape(admin: SocketAddr) -> Result<Self> {
        let (status, body) = get(admin, "/metrics").await?;
        ensure!(status == 200, "/metrics answers {status}");
        Ok(Self(body))
    }

    /// The sum of a series over those of its label sets that contain every one of `labels`.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
        let value = |line: &str| {
            let rest = line.strip_prefix(name)?;
            let (set, number) = rest.rsplit_once(' ')?;
            let is_it = set.is_empty() || set.starts_with('{');
            (is_it && labels.iter().all(|label| set.contains(label.as_str()))).then(|| number.parse::<f64>())
        };
        self.0.lines().filter_map(value).filter_map(Result::ok).sum()
    }

    /// The text as it came.
    pub fn text(&self) -> &str {
        &self.0
    }
}

/// Status and body of a plain HTTP/1.1 GET.
///
/// # Errors
/// Nothing answers in time.
pub(crate) async fn get(addr: SocketAddr, path: &str) -> Result<(u16, String)> {
    let answer = async {
        let mut stream = TcpStream::connect(addr).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        anyhow::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = tokio::time::timeout(DEADLINE, answer).await.context("no answer in time")??;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
    Ok((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_summed_over_the_label_sets_that_match() {
        let metrics = Metrics(
            "# TYPE x_total counter\nx_total{a=\"1\",b=\"2\"} 3\nx_total{a=\"1\",b=\"3\"} 4\n\
             x_total_other 50\nx_total{a=\"2\"} 8\ny 1.5\n"
                .into(),
        );
        assert_eq!(metrics.sum("x_total", &[("a", "1")]), 7.0);
        assert_eq!(metrics.sum("x_total", &[]), 15.0);
        assert_eq!(metrics.sum("y", &[]), 1.5);
        assert_eq!(metrics.sum("x_total", &[("b", "9")]), 0.0);
    }
}

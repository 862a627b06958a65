//! A report in a file: written whole or not at all, and read only if it can be understood.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use tempfile::{Builder, NamedTempFile};

use crate::report::{Report, SCHEMA};

/// Everybody may read a report; the umask takes away what it takes away.
#[cfg(unix)]
const MODE: u32 = 0o666;

/// The one field that every version has.
#[derive(Deserialize)]
struct Versioned {
    schema: u32,
}

impl Report {
    /// Reads a report from its JSON file.
    ///
    /// # Errors
    /// A sentence: there is no such file, it is not a report, it is one of another version, or it is damaged.
    pub fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::from_json(&text).with_context(|| format!("{} cannot be used", path.display()))
    }

    /// Writes it as JSON: there is a whole file afterwards, or the one that was there before.
    ///
    /// # Errors
    /// A sentence that says what to do.
    pub fn write(&self, path: &Path) -> Result<()> {
        let json = serde_json::to_vec(self).context("the report cannot be written as JSON")?;
        write_atomically(path, &json)
    }

    fn from_json(text: &str) -> Result<Self> {
        let Ok(Versioned { schema }) = serde_json::from_str(text) else {
            bail!("it is not a report: culvert-loadtest writes them with --json FILE");
        };
        if schema != SCHEMA {
            let which = if schema > SCHEMA { "a newer" } else { "an older" };
            bail!(
                "it was written by {which} culvert-loadtest (schema {schema}, this one reads {SCHEMA}); \
                 use the version that wrote it"
            );
        }
        let report: Report = serde_json::from_str(text).map_err(|error| anyhow!("it is damaged: {error}"))?;
        let samples = std::iter::once(&report.total).chain(&report.timeline);
        for times in samples.flat_map(|sample| sample.times.values()) {
            times.decode().context("it is damaged")?;
        }
        Ok(report)
    }
}

/// Writes a file so that it is there whole, or as it was before: a temporary file in the same folder, flushed
/// to the disk, takes its place.
///
/// # Errors
/// A sentence that says what to do.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    let folder = folder_of(path);
    write_and_rename(path, &folder, content).map_err(|error| anyhow!(sentence(path, &folder, &error)))
}

fn write_and_rename(path: &Path, folder: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = temporary(folder)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    // The name is on the disk only when its folder is.
    File::open(folder)?.sync_all()
}

fn temporary(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = Builder::new();
    builder.prefix(".culvert-loadtest-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(MODE));
    }
    builder.tempfile_in(folder)
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn sentence(path: &Path, folder: &Path, error: &io::Error) -> String {
    let (path, folder) = (path.display(), folder.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => format!(
            "{path} was not written: the disk of {folder} is full; free some room or name a file elsewhere"
        ),
        io::ErrorKind::NotFound => {
            format!("{path} was not written: there is no folder {folder}; make it or name a file elsewhere")
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            format!("{path} was not written: no permission to write in {folder}; name a file elsewhere")
        }
        io::ErrorKind::IsADirectory => format!("{path} was not written: it is a folder; name a file in it"),
        _ => format!("{path} was not written: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{Encoded, Series};
    use crate::report::example;

    /// 1,000 values of 1 to 1,000 (each a µs in ns), encoded by HdrHistogram for Python (hdrhistogram 0.10.8).
    const BY_PYTHON: &str = "HISTFAAAAIp4nJNpmSzMwMB+mgECmKE0I5DpZrBjAYP9B4jAeX6ms/xMUzmYnrIzLWRh+sgMRcuZmL4zYkErGZmqmSrx4GwmayC0BZPk0bpM0kyyQIgg6c/nZ+Jl4gZiCESwsIsOV3l2JlYwZIbSqJB40VH9Q18/MxMjGsQQwAWJVkgLM0ctH7V8ZFgOAPvuP1M=";

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.json");
        let report = example::steady();
        report.write(&path).unwrap();
        assert_eq!(Report::read(&path).unwrap(), report);
        let files = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(files, 1, "no temporary file stays");
    }

    #[test]
    fn a_file_that_is_there_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.json");
        std::fs::write(&path, "x".repeat(1 << 20)).unwrap();
        write_atomically(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_report_of_another_version_is_refused_with_a_sentence() {
        for (schema, expected) in [(SCHEMA + 1, "newer"), (0, "older")] {
            let mut report = example::steady();
            report.schema = schema;
            let json = serde_json::to_string(&report).unwrap();
            let refusal = Report::from_json(&json).unwrap_err().to_string();
            assert!(
                refusal.contains(expected) && refusal.contains("use the version that wrote it"),
                "{refusal}"
            );
        }
        // Fields that this version does not know do not hide the sentence.
        let refusal = Report::from_json(r#"{"schema": 7, "new": {}}"#).unwrap_err().to_string();
        assert!(refusal.contains("schema 7"), "{refusal}");
    }

    #[test]
    fn what_is_no_report_or_damaged_is_refused_with_a_sentence() {
        let mut report = example::steady();
        report.timeline[3].times.insert(Series::OneWay, Encoded("AAAA".into()));
        let damaged = serde_json::to_string(&report).unwrap();
        let cut = &damaged[..damaged.len() / 2];
        for (text, expected) in [
            ("", "not a report"),
            ("{}", "not a report"),
            (cut, "not a report"),
            (r#"{"schema": 1}"#, "damaged"),
            (&damaged, "damaged"),
        ] {
            let refusal = Report::from_json(text).unwrap_err().to_string();
            assert!(refusal.contains(expected), "{refusal}");
        }
    }

    #[test]
    fn where_a_report_cannot_be_written_the_error_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let refusal = |path: &Path| write_atomically(path, b"x").unwrap_err().to_string();
        assert!(refusal(&folder.path().join("missing/run.json")).contains("there is no folder"));
        let taken = folder.path().join("folder");
        std::fs::create_dir_all(taken.join("inside")).unwrap();
        assert!(refusal(&taken).contains("was not written"), "{}", refusal(&taken));
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert!(sentence(Path::new("run.json"), Path::new("."), &full).contains("is full; free some room"));
    }

    #[test]
    fn histograms_are_those_of_other_implementations() {
        let times = Encoded(BY_PYTHON.into()).decode().unwrap();
        assert_eq!(times.len(), 1000);
        let p99 = times.value_at_quantile(0.99);
        assert!((989_000..=991_000).contains(&p99), "{p99}");
    }
}

//! The file with the counts.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};

const HEAD: &str = "# Instructions of one operation in user space, by callgrind on x86-64. Written by\n\
                    # cargo bench -p culvert-loadtest --bench instructions -- --refresh\n";

/// Instructions by the name of the case, in the order of the cases.
#[derive(Default)]
pub(crate) struct Counts(Vec<(String, u64)>);

impl Counts {
    /// Reads the file.
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("{} does not read", file.display()))?;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let counts = lines.map(|line| {
            let (name, count) = line.rsplit_once(' ').with_context(|| format!("{line:?} has no count"))?;
            anyhow::Ok((name.trim_end().to_owned(), count.parse()?))
        });
        Ok(Self(counts.collect::<Result<_>>()?))
    }

    /// Writes the file.
    pub(crate) fn write(&self, file: &Path) -> Result<()> {
        let mut text = HEAD.to_owned();
        for (name, count) in &self.0 {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name:<44} {count}");
        }
        std::fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))
    }

    /// Adds one.
    pub(crate) fn add(&mut self, name: &str, count: u64) {
        self.0.push((name.to_owned(), count));
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, count)| (name.as_str(), *count))
    }

    /// The count of this case.
    pub(crate) fn get(&self, name: &str) -> Option<u64> {
        self.iter().find(|(known, _)| *known == name).map(|(_, count)| count)
    }
}

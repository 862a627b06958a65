//! Everything that is wrong with a configuration.

use std::fmt;
use std::path::PathBuf;

use super::{Given, Origin, Setting};
use crate::secret::Secret;

/// One thing to correct: which setting, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Name of the setting.
    pub key: String,
    /// What is wrong and what is accepted; follows the name.
    pub sentence: String,
}

/// The things to correct, collected while settings are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Nothing wrong so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a problem.
    pub fn push(&mut self, key: impl Into<String>, sentence: impl Into<String>) {
        self.0.push(Problem { key: key.into(), sentence: sentence.into() });
    }

    /// The value of a setting; `None` if it is bad, which is then noted.
    pub fn read<T: Setting>(&mut self, given: &Given<T>) -> Option<T> {
        let value = T::parse(given.text());
        if value.is_none() {
            self.push(described(given), format!("`{}` is not {}", given.text(), T::FORM));
        }
        value
    }

    /// The value of a setting that may be absent; `None` also if it is bad, which is then noted.
    pub fn read_optional<T: Setting>(&mut self, given: &Option<Given<T>>) -> Option<T> {
        given.as_ref().and_then(|given| self.read(given))
    }

    /// The value of a setting that must meet a condition, given in words to follow "must be".
    pub fn read_checked<T: Setting>(
        &mut self,
        given: &Given<T>,
        must_be: &str,
        check: impl FnOnce(&T) -> bool,
    ) -> Option<T> {
        let value = self.read(given)?;
        if !check(&value) {
            self.push(described(given), format!("is {} and must be {must_be}", given.text()));
            return None;
        }
        Some(value)
    }

    /// A secret, from the environment variable of one setting or the file that another one names.
    ///
    /// The setting exists for its variable: as a flag or in the file the secret would be open to whoever
    /// lists processes or reads configuration, so there it is a problem.
    pub fn read_secret(
        &mut self,
        value: &Option<Given<Secret<String>>>,
        file: &Option<Given<PathBuf>>,
    ) -> Option<Secret<String>> {
        match (value, file) {
            (Some(value), Some(file)) => {
                self.push(described(value), format!("is given twice, also by {}", file.key()));
                None
            }
            (Some(value), None) if !matches!(value.origin(), Origin::Environment(_)) => {
                let sentence = "is a secret and taken from its environment variable or a file only";
                self.push(value.key(), sentence);
                None
            }
            (Some(value), None) => self.read(value),
            (None, Some(file)) => {
                let path = self.read(file)?;
                Secret::from_file(&path).map_err(|error| self.push(described(file), error.to_string())).ok()
            }
            (None, None) => None,
        }
    }

    /// Notes a problem unless the first setting is smaller than the second; bad ones are not compared.
    pub fn require_less<T: Setting + PartialOrd>(&mut self, smaller: &Given<T>, larger: &Given<T>) {
        if let (Some(small), Some(large)) = (T::parse(smaller.text()), T::parse(larger.text()))
            && small >= large
        {
            let (key, limit) = (larger.key(), larger.text());
            let sentence = format!("is {} and must be less than {key}, which is {limit}", smaller.text());
            self.push(described(smaller), sentence);
        }
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is wrong, in the order found.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// The configuration, if nothing was wrong with it.
    ///
    /// `None` without a problem would be a defect of the caller; it is reported as one.
    pub fn finish<C>(mut self, config: Option<C>) -> Result<C, Problems> {
        match config {
            Some(config) if self.is_empty() => Ok(config),
            None if self.is_empty() => {
                self.push("configuration", "is incomplete, and the program cannot say why; report this");
                Err(self)
            }
            _ => Err(self),
        }
    }
}

/// The key, with the variable where that is what has to be corrected.
fn described<T>(given: &Given<T>) -> String {
    match given.origin() {
        Origin::Environment(variable) => format!("{} ({variable})", given.key()),
        Origin::Flag => format!("{} (--{})", given.key(), given.key()),
        Origin::File | Origin::Default => given.key().to_owned(),
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("1 problem with the configuration:")?,
            many => write!(f, "{many} problems with the configuration:")?,
        }
        for problem in &self.0 {
            write!(f, "\n  {}: {}", problem.key, problem.sentence)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

//! What to run: a file, and the arguments that make it the program that is meant.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// A program: a file, and arguments that come before all others.
///
/// One file can be several programs, told apart by a first argument, and a program can be started by
/// another one, as by `nice`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    path: PathBuf,
    args: Vec<OsString>,
}

impl Program {
    /// One more argument of its own.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// The same, started by another program that gets this one as its last arguments and becomes it.
    #[must_use]
    pub fn started_by(self, starter: &Program) -> Self {
        let itself = std::iter::once(self.path.into_os_string());
        let args = starter.args.iter().cloned().chain(itself).chain(self.args).collect();
        Self { path: starter.path.clone(), args }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn args(&self) -> &[OsString] {
        &self.args
    }
}

impl From<PathBuf> for Program {
    fn from(path: PathBuf) -> Self {
        Self { path, args: Vec::new() }
    }
}

impl<P: AsRef<OsStr> + ?Sized> From<&P> for Program {
    fn from(path: &P) -> Self {
        PathBuf::from(path).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_another_one_starts_comes_after_the_arguments_of_that_one() {
        let nice = Program::from("/usr/bin/nice").arg("-n").arg("5");
        let relay = Program::from("/bin/culvert").arg("relay").started_by(&nice);
        assert_eq!(relay.path(), "/usr/bin/nice");
        assert_eq!(relay.args(), ["-n", "5", "/bin/culvert", "relay"]);
    }
}

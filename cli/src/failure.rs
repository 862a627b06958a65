//! How the command ends: exit codes, and the sentence before them.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use culvert_client::dial::DialError;
use culvert_client::relay::LinkError;

/// Why a command did not succeed, as far as scripts care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// Something went wrong.
    Failed = 1,
    /// The arguments make no sense together.
    Usage = 2,
    /// The relay, or a signature, says no.
    Refused = 3,
    /// Interrupted; the same command goes on where it was.
    Interrupted = 4,
}

/// An error that carries its exit code.
#[derive(Debug)]
struct Coded {
    code: Code,
    source: anyhow::Error,
}

impl fmt::Display for Coded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The whole chain is this one's sentence; it has no source of its own.
        write!(f, "{:#}", self.source)
    }
}

impl std::error::Error for Coded {}

impl Code {
    /// The error with this code.
    pub(crate) fn with(self, error: impl Into<anyhow::Error>) -> anyhow::Error {
        Coded { code: self, source: error.into() }.into()
    }

    /// An error of one sentence with this code.
    pub(crate) fn because(
        self,
        sentence: impl fmt::Display + fmt::Debug + Send + Sync + 'static,
    ) -> anyhow::Error {
        self.with(anyhow::Error::msg(sentence))
    }

    fn of(error: &anyhow::Error) -> Self {
        if let Some(coded) = error.downcast_ref::<Coded>() {
            return coded.code;
        }
        match error.chain().find_map(|cause| cause.downcast_ref::<LinkError>()) {
            Some(LinkError::Dial(DialError::Proxy { .. })) | None => Code::Failed,
            Some(link) if link.may_reconnect() || matches!(link, LinkError::Dial(_)) => Code::Failed,
            Some(_) => Code::Refused,
        }
    }
}

/// Says what went wrong, once, and gives the exit code.
pub(crate) fn exit_code(ended: anyhow::Result<()>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If standard error is gone there is nobody to tell.
            let _ = writeln!(io::stderr(), "culvert: {error:#}");
            ExitCode::from(Code::of(&error) as u8)
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn codes_survive_and_refusals_of_the_relay_are_recognised() {
        assert_eq!(Code::of(&Code::Interrupted.because("x")), Code::Interrupted);
        let closed = |code| LinkError::Closed { code, reason: String::new() };
        let refused = Err::<(), _>(closed(4505)).context("cannot enter").unwrap_err();
        assert_eq!(Code::of(&refused), Code::Refused);
        assert_eq!(Code::of(&closed(4001).into()), Code::Failed);
        assert_eq!(Code::of(&anyhow::anyhow!("x")), Code::Failed);
    }
}

//! What someone sends: paths or a stream, listed and hashed in the background while it is offered.

use std::collections::HashSet;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::catalogue::{Catalogue, Maker};
use super::path::SafePath;
use super::progress::Progress;
use super::serve::{self, SendError, Served};
use super::tree::Root;
use super::walk::Base;
use crate::transport::Connection;

/// Bytes of a segment of a stream: what is lost of it when a transfer breaks in the middle.
const SEGMENT: u64 = 16 * 1024 * 1024;

/// Why something cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum OfferError {
    /// Nothing was named.
    #[error("there is nothing to send: name a file, a folder, or `-` for standard input")]
    Nothing,
    /// A path cannot be read.
    #[error("cannot send {path}")]
    Path {
        /// As it was given.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Two paths would arrive under the same name.
    #[error("two of the paths are called {0}: send them one by one, or put them into folders")]
    SameName(String),
    /// The name does not do.
    #[error("{0:?} cannot be the name of a file: choose one without `/`")]
    Name(String),
    /// The temporary folder cannot be used.
    #[error("cannot use the temporary folder {}: set TMPDIR to one with room", std::env::temp_dir().display())]
    Temporary(#[source] io::Error),
}

/// How a stream is offered.
#[derive(Debug, Clone)]
pub struct OfferOptions {
    /// The name it gets at the receiver.
    pub name: String,
    /// Bytes in a segment.
    pub segment: u64,
}

impl Default for OfferOptions {
    fn default() -> Self {
        Self { name: "stdin".to_owned(), segment: SEGMENT }
    }
}

/// Something to send, to any number of receivers.
///
/// Dropping it stops the work in the background; what was being read from a stream is lost.
#[derive(Debug)]
pub struct Offer {
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) id: Root,
    pub(super) name: String,
    pub(super) stream: bool,
}

impl Offer {
    /// Offers files and folders. Returns at once; they are listed and hashed by a thread.
    ///
    /// # Errors
    /// A path is not there or not readable, two have the same name, or there is none.
    pub fn paths(paths: &[impl AsRef<Path>], progress: Progress) -> Result<Self, OfferError> {
        let mut bases = Vec::new();
        let mut names = HashSet::new();
        for path in paths {
            let path = path.as_ref();
            let failed = |source| OfferError::Path { path: path.to_owned(), source };
            let base = Base::new(path).map_err(failed)?;
            // Found out now rather than when somebody asks for it.
            if base.path.is_dir() {
                std::fs::read_dir(&base.path).map_err(failed)?;
            } else {
                std::fs::File::open(&base.path).map_err(failed)?;
            }
            if !names.insert(base.name.clone()) {
                return Err(OfferError::SameName(base.name));
            }
            bases.push(base);
        }
        let name = match &bases[..] {
            [] => return Err(OfferError::Nothing),
            [only] => only.name.clone(),
            [first, rest @ ..] => format!("{} and {} more", first.name, rest.len()),
        };
        Self::start(bases, name, false, progress, Maker::make_paths)
    }

    /// Offers what a reader gives, once, to one receiver. A thread reads it, in segments.
    ///
    /// # Errors
    /// The name does not do, or the temporary folder cannot be used.
    pub fn stream(
        reader: impl Read + Send + 'static,
        options: OfferOptions,
        progress: Progress,
    ) -> Result<Self, OfferError> {
        let OfferOptions { name, segment } = options;
        if SafePath::new(std::slice::from_ref(&name)).is_err() {
            return Err(OfferError::Name(name));
        }
        Self::start(Vec::new(), name, true, progress, move |maker| maker.make_stream(reader, segment.max(1)))
    }

    fn start(
        bases: Vec<Base>,
        name: String,
        stream: bool,
        progress: Progress,
        make: impl FnOnce(Maker) + Send + 'static,
    ) -> Result<Self, OfferError> {
        let catalogue = Arc::new(Catalogue::new(bases).map_err(OfferError::Temporary)?);
        let maker = Maker::new(Arc::clone(&catalogue), progress);
        // A thread of its own, not the runtime's: a read from a terminal may never return, and a
        // runtime waits for its threads. It ends when the offer is dropped or with the process.
        std::thread::Builder::new()
            .name("culvert-offer".to_owned())
            .spawn(move || make(maker))
            .map_err(OfferError::Temporary)?;
        let mut id = [0; 32];
        aws_lc_rs::rand::fill(&mut id)
            .map_err(|_| OfferError::Temporary(io::Error::other("the system gives no random numbers")))?;
        Ok(Self { catalogue, id: Root(id), name, stream })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is a stream, which only one receiver can have.
    pub fn is_stream(&self) -> bool {
        self.stream
    }

    /// Gives one receiver what it asks for, until it has everything or leaves.
    ///
    /// Cancel it by the token: the receiver is told.
    ///
    /// # Errors
    /// The receiver left or stopped, broke the protocol, or what is offered cannot be read.
    pub async fn serve(
        &self,
        connection: &mut dyn Connection,
        progress: &Progress,
        cancelled: &CancellationToken,
    ) -> Result<Served, SendError> {
        serve::serve(self, connection, progress, cancelled).await
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        self.catalogue.cancel();
    }
}

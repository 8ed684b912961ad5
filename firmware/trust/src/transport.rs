//! Ways to a repository: the guard that every file of metadata comes through, and a folder as a repository.
//!
//! Sockets are the caller's: it brings a `tough::Transport`. The guard lets only files through that a repository of ours has,
//! never more of one than its limit (tough takes the length of `targets.json` from metadata that a stolen server can sign), and
//! keeps the roots that pass, because tough tells only of the last one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{StreamExt, stream};
use tough::{Bytes, Transport, TransportError, TransportErrorKind, TransportStream, async_trait};
use url::Url;

use crate::error::TooLong;
use crate::limits::Limits;

/// What of a file is read at once.
const CHUNK: usize = 64 * 1024;

/// Roots that have passed, by their number. Nobody has checked them.
pub(crate) type Roots = Arc<Mutex<BTreeMap<u64, Vec<u8>>>>;

/// Stands before the caller's transport.
#[derive(Debug, Clone)]
pub(crate) struct Guard<T> {
    inner: T,
    metadata: Url,
    limits: Limits,
    roots: Roots,
}

/// What a file of metadata is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Root(u64),
    Other(u64),
}

impl<T: Transport> Guard<T> {
    pub(crate) fn new(inner: T, metadata: Url, limits: Limits) -> (Self, Roots) {
        let roots = Roots::default();
        (Self { inner, metadata, limits, roots: Arc::clone(&roots) }, roots)
    }

    fn kind(&self, url: &Url) -> Option<Kind> {
        let Some(name) = url.as_str().strip_prefix(self.metadata.as_str()) else {
            return Some(Kind::Other(self.limits.target_bytes));
        };
        if name == "timestamp.json" {
            return Some(Kind::Other(self.limits.metadata_bytes));
        }
        let (version, role) = name.split_once('.')?;
        let version: u64 = version.parse().ok()?;
        match role {
            "root.json" => Some(Kind::Root(version)),
            "snapshot.json" => Some(Kind::Other(self.limits.metadata_bytes)),
            "targets.json" => Some(Kind::Other(self.limits.targets_bytes)),
            _ => None,
        }
    }

    async fn root(&self, version: u64, url: Url) -> Result<TransportStream, TransportError> {
        let fetched = match self.inner.fetch(url.clone()).await {
            Ok(stream) => whole(bounded(stream, url.clone(), self.limits.metadata_bytes)).await,
            Err(error) => Err(error),
        };
        match fetched {
            Ok(bytes) => {
                let mut roots = self.roots.lock().unwrap_or_else(PoisonError::into_inner);
                roots.insert(version, bytes.clone());
                Ok(stream::iter([Ok(Bytes::from(bytes))]).boxed_sync())
            }
            Err(error) if error.kind() == TransportErrorKind::FileNotFound => Err(error),
            // In the stream, or tough would take it for the end of the roots.
            Err(error) => Ok(stream::iter([Err(error)]).boxed_sync()),
        }
    }
}

#[async_trait]
impl<T: Transport + Clone> Transport for Guard<T> {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        match self.kind(&url) {
            Some(Kind::Root(version)) => self.root(version, url).await,
            Some(Kind::Other(limit)) => Ok(bounded(self.inner.fetch(url.clone()).await?, url, limit)),
            None => Err(TransportError::new(TransportErrorKind::FileNotFound, url)),
        }
    }
}

/// Streams of tough's must be `Sync`, which `StreamExt::boxed` forgets.
trait BoxedSync {
    fn boxed_sync(self) -> TransportStream;
}

impl<S> BoxedSync for S
where
    S: futures_util::Stream<Item = Result<Bytes, TransportError>> + Send + Sync + 'static,
{
    fn boxed_sync(self) -> TransportStream {
        Box::pin(self)
    }
}

fn bounded(stream: TransportStream, url: Url, limit: u64) -> TransportStream {
    let mut length: u64 = 0;
    let checked = stream.map(move |chunk| {
        let chunk = chunk?;
        length = length.saturating_add(chunk.len() as u64);
        if length > limit {
            let kind = TransportErrorKind::Other;
            return Err(TransportError::new_with_cause(kind, url.clone(), TooLong { limit }));
        }
        Ok(chunk)
    });
    checked.boxed_sync()
}

pub(crate) async fn whole(mut stream: TransportStream) -> Result<Vec<u8>, TransportError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk?);
    }
    Ok(bytes)
}

/// A repository in a folder: a stick, or a mirror on this machine. It follows no links and gives nothing but ordinary files below
/// the folder. Reading blocks: who must not wait for a stick uses it in a thread of its own.
#[derive(Debug, Clone)]
pub struct Folder {
    root: PathBuf,
    base: Url,
}

impl Folder {
    /// The folder that has `metadata` and `targets`.
    ///
    /// # Errors
    /// When there is no such folder.
    pub fn open(folder: &Path) -> std::io::Result<Self> {
        let root = folder.canonicalize()?;
        let no_folder = || std::io::Error::from(std::io::ErrorKind::NotADirectory);
        let base = Url::from_directory_path(&root).map_err(|()| no_folder())?;
        if root.is_dir() { Ok(Self { root, base }) } else { Err(no_folder()) }
    }

    /// What [`crate::refresh`] takes as the repository's address.
    #[must_use]
    pub fn base(&self) -> &Url {
        &self.base
    }

    fn open_file(&self, url: &Url) -> std::io::Result<File> {
        let not_found = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let name = url.as_str().strip_prefix(self.base.as_str()).ok_or_else(not_found)?;
        if !name.split('/').all(is_plain) {
            return Err(not_found());
        }
        let path = self.root.join(name);
        // The same path again, or something on the way was a link. Pipes and devices are never opened.
        if path.canonicalize()? != path || !path.symlink_metadata()?.is_file() {
            return Err(not_found());
        }
        File::open(path)
    }
}

#[async_trait]
impl Transport for Folder {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        let failed = |url: &Url, error: std::io::Error| {
            let kind = match error.kind() {
                std::io::ErrorKind::NotFound => TransportErrorKind::FileNotFound,
                _ => TransportErrorKind::Other,
            };
            TransportError::new_with_cause(kind, url, error)
        };
        let mut file = self.open_file(&url).map_err(|error| failed(&url, error))?;
        let chunk = move || {
            let mut buffer = vec![0; CHUNK];
            match file.read(&mut buffer) {
                Ok(0) => None,
                Ok(length) => {
                    buffer.truncate(length);
                    Some(Ok(Bytes::from(buffer)))
                }
                Err(error) => Some(Err(failed(&url, error))),
            }
        };
        Ok(stream::iter(std::iter::from_fn(chunk)).boxed_sync())
    }
}

/// A part of a name that is a name and nothing else: no `..`, nothing hidden, nothing encoded.
#[must_use]
pub fn is_plain(part: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (1..=200).contains(&part.len()) && part.bytes().all(plain) && !part.starts_with('.')
}

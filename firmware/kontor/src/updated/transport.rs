//! How metadata comes: over HTTP or from a folder, each file kept in a mirror on its way.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kontor_sys::file::write_atomic;
use kontor_trust::tough::{Bytes, async_trait};
use kontor_trust::{
    Folder, Limits, Store, Transport, TransportError, TransportErrorKind, TransportStream, Trusted, Url,
};

use super::fetch::{clock, local};
use super::http::{Client, HttpError};

/// No file of metadata, and no document, is longer; what is checked more closely is so by `kontor_trust`.
const MAX_BYTES: u64 = 2 << 20;

/// Metadata that has been checked, with what is remembered in `memory`.
pub(super) async fn refresh<T>(
    memory: &Path,
    root: &[u8],
    base: &Url,
    transport: T,
    clock_floor: u64,
) -> anyhow::Result<Trusted>
where
    T: Transport + Clone + 'static,
{
    let mut store = Store::open(memory, root)?;
    store.reports().iter().for_each(|report| eprintln!("error: {report}"));
    Ok(kontor_trust::refresh(&mut store, base, transport, clock(clock_floor), Limits::default()).await?)
}

/// Futures of `kontor_trust` need nothing but to be polled.
pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().build().context("cannot make a runtime")
}

/// A transport that keeps every file it brings.
#[derive(Debug, Clone)]
pub(super) struct Mirrored {
    base: Url,
    mirror: PathBuf,
    source: Source,
}

#[derive(Debug, Clone)]
enum Source {
    Server(Client),
    Folder(Folder),
}

impl Mirrored {
    pub(super) fn new(from: &str, mirror: PathBuf) -> anyhow::Result<Self> {
        let (base, source) = match local(from) {
            Some(folder) => {
                let folder = Folder::open(folder).with_context(|| from.to_owned())?;
                (folder.base().clone(), Source::Folder(folder))
            }
            None => (Url::parse(from).with_context(|| from.to_owned())?, Source::Server(Client::new())),
        };
        Ok(Self { base, mirror, source })
    }

    pub(super) fn base(&self) -> &Url {
        &self.base
    }

    fn keep(&self, url: &Url, bytes: &[u8]) -> anyhow::Result<()> {
        let name = url.as_str().strip_prefix(self.base.as_str().trim_end_matches('/'));
        let name = name.map(|name| name.trim_start_matches('/')).context("not below the repository")?;
        anyhow::ensure!(name.split('/').all(kontor_trust::is_plain), "{name:?} is no file of a repository");
        let path = self.mirror.join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        write_atomic(&path, bytes).with_context(|| path.display().to_string())
    }

    async fn bytes(&self, url: &Url) -> Result<Vec<u8>, TransportError> {
        let client = match &self.source {
            Source::Folder(folder) => {
                return kontor_trust::tough::IntoVec::into_vec(folder.fetch(url.clone()).await?).await;
            }
            Source::Server(client) => client,
        };
        let failed = |kind, error: Box<dyn std::error::Error + Send + Sync>| {
            TransportError::new_with_cause(kind, url, error)
        };
        let answer = client.get(url.as_str(), 0).map_err(|error| match error {
            HttpError::NotFound(_) => failed(TransportErrorKind::FileNotFound, error.into()),
            _ => failed(TransportErrorKind::Other, error.into()),
        })?;
        let mut bytes = Vec::new();
        let read = answer.body.take(MAX_BYTES).read_to_end(&mut bytes);
        read.map_err(|error| failed(TransportErrorKind::Other, error.into()))?;
        Ok(bytes)
    }
}

#[async_trait]
impl Transport for Mirrored {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        let bytes = self.bytes(&url).await?;
        self.keep(&url, &bytes).map_err(|error| {
            let error: Box<dyn std::error::Error + Send + Sync> = error.into();
            TransportError::new_with_cause(TransportErrorKind::Other, &url, error)
        })?;
        Ok(Box::pin(futures_util::stream::iter([Ok(Bytes::from(bytes))])))
    }
}

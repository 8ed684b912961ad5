//! Downloads over HTTP, or from a folder (`file:///…`): retried, resumed, size-checked. What a mirror sends is never
//! trusted here; hashes are checked by the callers.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

/// Attempts for one file: enough for a mirror that restarts, few enough that a dead one is reported within a minute.
const ATTEMPTS: u32 = 5;

/// Where distributions keep the bundle of trusted certificates; the first that exists is used.
const CERTIFICATE_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
];

/// Why a file could not be had.
#[derive(Debug)]
pub enum HttpError {
    /// The server has no such file (404 or 410).
    NotFound {
        /// Address asked for.
        url: String,
        /// Status of the answer.
        status: u16,
    },
    /// An answer that is no file.
    Status {
        /// Address asked for.
        url: String,
        /// Status of the answer.
        status: u16,
    },
    /// No answer, or one that broke off.
    Transport {
        /// Address asked for.
        url: String,
        /// What went wrong.
        source: ureq::Error,
    },
    /// Fewer bytes came than promised.
    Truncated {
        /// Address asked for.
        url: String,
        /// Bytes there are.
        have: u64,
        /// Bytes there should be.
        want: u64,
    },
    /// The file has another size than the signed index says.
    Size {
        /// Address asked for.
        url: String,
        /// Size offered.
        have: u64,
        /// Size expected.
        want: u64,
    },
    /// The local file could not be written.
    Local(std::io::Error),
    /// A mirror that is a folder could not be read.
    Folder {
        /// Address asked for.
        url: String,
        /// What went wrong.
        source: std::io::Error,
    },
}

impl std::fmt::Display for HttpError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HttpError::NotFound { url, .. } if folder_path(url).is_some() => {
                write!(f, "{url}: there is no such file")
            }
            HttpError::NotFound { url, status } => {
                write!(f, "{url}: the mirror has no such file (status {status})")
            }
            HttpError::Folder { url, .. } => write!(f, "{url}: cannot be read"),
            HttpError::Status { url, status } => write!(f, "{url}: the mirror answered with status {status}"),
            HttpError::Transport { url, .. } => write!(f, "{url}: no usable answer"),
            HttpError::Truncated { url, have, want } => {
                write!(f, "{url}: the transfer broke off at {have} of {want} bytes")
            }
            HttpError::Size { url, have, want } => {
                write!(f, "{url}: the mirror's file has {have} bytes, the signed index says {want}")
            }
            HttpError::Local(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                write!(f, "no space left on the device of the cache: free some, or set KONTOR_CACHE")
            }
            HttpError::Local(_) => write!(f, "writing the downloaded file"),
        }
    }
}

impl std::error::Error for HttpError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            HttpError::Transport { source, .. } => Some(source),
            HttpError::Local(source) | HttpError::Folder { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl HttpError {
    /// Whether another attempt may help.
    fn retryable(&self) -> bool {
        match self {
            HttpError::Status { status, .. } => *status >= 500 || matches!(status, 408 | 425 | 429),
            HttpError::Transport { .. } | HttpError::Truncated { .. } => true,
            HttpError::NotFound { .. }
            | HttpError::Size { .. }
            | HttpError::Local(_)
            | HttpError::Folder { .. } => false,
        }
    }
}

/// An HTTP client for mirrors.
#[derive(Debug, Clone)]
pub struct Client {
    agent: ureq::Agent,
    /// Pause before the second attempt; doubled each time.
    backoff: Duration,
}

impl Client {
    /// A client that honours `http_proxy`, `https_proxy` and `no_proxy`; a proxy is always asked to CONNECT.
    pub fn new() -> Result<Self> {
        let mut tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
        if let Some(bundle) = CERTIFICATE_BUNDLES.iter().find(|path| std::path::Path::new(path).exists()) {
            let pem = std::fs::read(bundle).with_context(|| format!("reading {bundle}"))?;
            // Entries that are no certificate are of no use, and no harm.
            let roots = parse_pem(&pem).filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            });
            tls = tls.root_certs(RootCerts::Specific(Arc::new(roots.collect())));
        }
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .tls_config(tls.build())
            .user_agent(concat!("kontor-xtask/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(Duration::from_secs(15)))
            .timeout_recv_response(Some(Duration::from_secs(30)))
            .timeout_per_read(Some(Duration::from_secs(30)))
            .max_idle_connections_per_host(16)
            .build();
        Ok(Client { agent: config.new_agent(), backoff: Duration::from_millis(500) })
    }

    /// Sets the pause before the second attempt.
    pub fn with_backoff(self, backoff: Duration) -> Self {
        Client { backoff, ..self }
    }

    /// A small file, whole; `limit` bounds what a hostile mirror can make us keep.
    pub fn get(&self, url: &str, limit: u64) -> Result<Vec<u8>, HttpError> {
        if let Some(path) = folder_path(url) {
            return read_whole(url, &path, limit);
        }
        self.retry(|| {
            let mut response = self.call(url, 0)?;
            let declared = response.body().content_length();
            let mut bytes = Vec::new();
            let copied = response.body_mut().as_reader().take(limit + 1).read_to_end(&mut bytes);
            let have = bytes.len() as u64;
            if have > limit {
                return Err(HttpError::Size { url: url.to_owned(), have, want: limit });
            }
            if let Err(error) = copied {
                return Err(HttpError::Transport { url: url.to_owned(), source: error.into() });
            }
            match declared {
                Some(want) if want != have => Err(HttpError::Truncated { url: url.to_owned(), have, want }),
                _ => Ok(bytes),
            }
        })
    }

    /// Downloads `size` bytes into `file`, going on where the file ends. `progress` is told the position.
    pub fn download(
        &self,
        url: &str,
        file: &mut File,
        size: u64,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), HttpError> {
        if let Some(path) = folder_path(url) {
            return copy_whole(url, &path, file, size, progress);
        }
        self.retry(|| {
            let mut have = file.seek(SeekFrom::End(0)).map_err(HttpError::Local)?;
            if have > size {
                have = restart(file)?;
            }
            if have == size {
                return Ok(());
            }
            let mut response = self.call(url, have)?;
            if have > 0 && !continues_at(&response, have) {
                have = restart(file)?;
            }
            if let Some(rest) = response.body().content_length()
                && have + rest != size
            {
                return Err(HttpError::Size { url: url.to_owned(), have: have + rest, want: size });
            }
            progress(have);
            copy(url, &mut response.body_mut().as_reader(), file, have, size, progress)
        })
    }

    fn call(&self, url: &str, from: u64) -> Result<ureq::http::Response<ureq::Body>, HttpError> {
        let mut request = self.agent.get(url);
        if from > 0 {
            request = request.header("Range", format!("bytes={from}-"));
        }
        let response =
            request.call().map_err(|source| HttpError::Transport { url: url.to_owned(), source })?;
        let url = url.to_owned();
        match response.status().as_u16() {
            200 | 206 => Ok(response),
            // The part kept from an earlier run does not fit: the caller's next attempt begins anew.
            416 if from > 0 => self.call(&url, 0),
            status @ (404 | 410) => Err(HttpError::NotFound { url, status }),
            status => Err(HttpError::Status { url, status }),
        }
    }

    fn retry<T>(&self, mut attempt: impl FnMut() -> Result<T, HttpError>) -> Result<T, HttpError> {
        let mut pause = self.backoff;
        for _ in 1..ATTEMPTS {
            match attempt() {
                Err(error) if error.retryable() => std::thread::sleep(pause),
                result => return result,
            }
            pause *= 2;
        }
        attempt()
    }
}

/// The path of `file:///…`, with `%XX` undone.
#[must_use]
pub fn folder_path(url: &str) -> Option<std::path::PathBuf> {
    let path = url.strip_prefix("file://")?.as_bytes();
    let mut plain = Vec::with_capacity(path.len());
    let mut at = 0;
    while let Some(byte) = path.get(at) {
        let code = path
            .get(at + 1..at + 3)
            .filter(|_| *byte == b'%')
            .and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(escaped) => {
                plain.push(escaped);
                at += 3;
            }
            None => {
                plain.push(*byte);
                at += 1;
            }
        }
    }
    Some(std::ffi::OsString::from_vec(plain).into())
}

fn open_in_folder(url: &str, path: &std::path::Path) -> Result<(File, u64), HttpError> {
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
    match opened {
        Ok((length, file)) => Ok((file, length)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(HttpError::NotFound { url: url.to_owned(), status: 404 })
        }
        Err(source) => Err(HttpError::Folder { url: url.to_owned(), source }),
    }
}

fn read_whole(url: &str, path: &std::path::Path, limit: u64) -> Result<Vec<u8>, HttpError> {
    let (file, length) = open_in_folder(url, path)?;
    if length > limit {
        return Err(HttpError::Size { url: url.to_owned(), have: length, want: limit });
    }
    let mut bytes = Vec::new();
    let read = file.take(limit).read_to_end(&mut bytes);
    read.map_err(|source| HttpError::Folder { url: url.to_owned(), source })?;
    Ok(bytes)
}

/// Nothing is resumed: a copy is quick, and what was there may be anything.
fn copy_whole(
    url: &str,
    path: &std::path::Path,
    file: &mut File,
    size: u64,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(), HttpError> {
    let (mut source, length) = open_in_folder(url, path)?;
    if length != size {
        return Err(HttpError::Size { url: url.to_owned(), have: length, want: size });
    }
    restart(file)?;
    copy(url, &mut source, file, 0, size, progress)
}

fn restart(file: &mut File) -> Result<u64, HttpError> {
    file.set_len(0).and_then(|()| file.rewind()).map_err(HttpError::Local)?;
    Ok(0)
}

/// Whether the answer is the rest of the file from `have` on; servers may ignore `Range` (RFC 9110, section 14.2).
fn continues_at(response: &ureq::http::Response<ureq::Body>, have: u64) -> bool {
    let range = response.headers().get("content-range").and_then(|value| value.to_str().ok());
    response.status() == 206 && range.is_some_and(|range| range.starts_with(&format!("bytes {have}-")))
}

fn copy(
    url: &str,
    body: &mut impl Read,
    file: &mut File,
    mut have: u64,
    size: u64,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(), HttpError> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = match body.read(&mut buffer) {
            Ok(0) if have == size => return Ok(()),
            Ok(0) => return Err(HttpError::Truncated { url: url.to_owned(), have, want: size }),
            Ok(count) => count,
            Err(_) if have > 0 => return Err(HttpError::Truncated { url: url.to_owned(), have, want: size }),
            Err(error) => return Err(HttpError::Transport { url: url.to_owned(), source: error.into() }),
        };
        have += count as u64;
        if have > size {
            restart(file)?;
            return Err(HttpError::Size { url: url.to_owned(), have, want: size });
        }
        file.write_all(&buffer[..count]).map_err(HttpError::Local)?;
        progress(have);
    }
}

//! What dnsd tells others: its status file and the box's resolv.conf.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kontor_dns::Forwarder;
use kontor_status::DnsStatus;
use kontor_status::paths::Paths;
use kontor_sys::file::write_atomic;

/// Counters change with every query; nobody reads them more often.
const EVERY: Duration = Duration::from_secs(1);

/// The status file.
#[derive(Debug)]
pub(crate) struct StatusFile {
    path: PathBuf,
    written: Option<DnsStatus>,
    next_at: Option<Instant>,
}

impl StatusFile {
    pub(crate) fn new(paths: &Paths) -> Self {
        Self { path: paths.dns_status(), written: None, next_at: None }
    }

    /// Writes the status if it has changed and the last writing is long enough ago.
    pub(crate) fn publish(&mut self, now: Instant, forwarder: &Forwarder, problems: &[String]) {
        if self.next_at.is_some_and(|at| now < at) {
            return;
        }
        let status = current(forwarder, problems);
        if self.written.as_ref() == Some(&status) {
            return;
        }
        self.next_at = Some(now + EVERY);
        let written = serde_json::to_vec(&status).map_err(io::Error::other);
        match written.and_then(|text| write_atomic(&self.path, &text)) {
            Ok(()) => self.written = Some(status),
            Err(error) => eprintln!("cannot write {}: {error}", self.path.display()),
        }
    }
}

fn current(forwarder: &Forwarder, problems: &[String]) -> DnsStatus {
    let counters = forwarder.counters();
    DnsStatus {
        upstreams: forwarder.upstreams().map(|upstream| SocketAddr::ip(&upstream)).collect(),
        local_names: forwarder.local_names(),
        cache_entries: forwarder.cache_entries(),
        queries: counters.queries,
        cache_hits: counters.cache_hits,
        upstream_timeouts: counters.upstream_timeouts,
        problems: problems.to_vec(),
    }
}

/// Writes the resolv.conf that the box's own programs use.
pub(crate) fn write_resolv_conf(directory: &Path, domain: &str) -> io::Result<()> {
    let text = format!("nameserver 127.0.0.1\nsearch {domain}\n");
    write_atomic(&directory.join("resolv.conf"), text.as_bytes())
}

//! The published status: written when something changed, at most once a second.

use std::path::PathBuf;
use std::time::Duration;

use kontor_dhcp4::Instant;
use kontor_dhcp4::server::{LeaseView, Server};
use kontor_status::{DhcpStatus, LeaseState, LeaseStatus};

/// Shortest pause between two writes.
const PAUSE: Duration = Duration::from_secs(1);
/// The remaining times in the file are never older than this.
const REFRESH: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct StatusFile {
    path: PathBuf,
    written: Option<(Instant, DhcpStatus)>,
}

impl StatusFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, written: None }
    }

    /// Writes the status if it is due.
    pub(super) fn update(&mut self, now: Instant, server: &Server, durable: bool, problems: Vec<String>) {
        let age = self.written.as_ref().map(|(at, _)| now.since(*at));
        if age.is_some_and(|age| age < PAUSE) {
            return;
        }
        let leases = server.leases(now).into_iter().map(lease_status).collect();
        let status = DhcpStatus { leases, durable, problems };
        let same = self.written.as_ref().is_some_and(|(_, old)| without_times(old) == without_times(&status));
        if same && age.is_some_and(|age| age < REFRESH) {
            return;
        }
        match serde_json::to_vec_pretty(&status)
            .map(|bytes| kontor_sys::file::write_atomic(&self.path, &bytes))
        {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("{}: {error}", self.path.display()),
            Err(error) => eprintln!("status: {error}"),
        }
        self.written = Some((now, status));
    }
}

fn without_times(status: &DhcpStatus) -> DhcpStatus {
    let mut status = status.clone();
    status.leases.iter_mut().for_each(|lease| lease.remaining_s = 0);
    status
}

fn lease_status(view: LeaseView) -> LeaseStatus {
    let state = match (view.declined, view.reserved) {
        (true, _) => LeaseState::Declined,
        (false, true) => LeaseState::Reserved,
        (false, false) => LeaseState::Dynamic,
    };
    let mac: Vec<String> = view.mac.iter().map(|octet| format!("{octet:02x}")).collect();
    LeaseStatus {
        address: view.address,
        mac: mac.join(":"),
        name: view.name,
        network: view.network,
        state,
        remaining_s: view.remaining_s,
    }
}

//! Every run-time and state path of the firmware, in one place (the table in ARCHITECTURE.md).

use std::path::{Path, PathBuf};

/// Run-time directory (tmpfs); one sub-directory per daemon, owned by that daemon's user.
pub const RUN: &str = "/run/kontor";
/// The validated site text in force; written by `kontor site`, read by every daemon at start and on SIGHUP.
pub const SITE: &str = "/run/kontor/site/site.toml";
/// The file of the board this machine is: a link into [`BOARDS`], made by `init` before any service starts.
pub const BOARD: &str = "/run/kontor/board.toml";
/// The board files in the base image, one for each machine type it serves.
pub const BOARDS: &str = "/usr/share/kontor/board";
/// [`crate::SiteStatus`]; written by `kontor site`.
pub const SITE_STATUS: &str = "/run/kontor/site/status.json";
/// There when the last choice of the site at boot was made with the disk that is there; written by `kontor site`, taken away by
/// `kontor storage`, read by PID 1.
pub const SITE_FROM_DISK: &str = "/run/kontor/site/from-disk";
/// [`crate::StorageStatus`]; written by `kontor storage`.
pub const STORAGE_STATUS: &str = "/run/kontor/storage/status.json";
/// Device node of the disk storage has found; there from the moment it begins to bring it up.
pub const STORAGE_DISK: &str = "/run/kontor/storage/disk";
/// The site file of a seed that could not be imported, as there is no state partition; written by storage.
pub const SEED_SITE: &str = "/run/kontor/storage/seed-site.toml";
/// The order to install that the stick's seed holds; written by storage, carried out by the service `install`.
pub const INSTALL_ORDER: &str = "/run/kontor/storage/install.toml";
/// [`crate::InstallStatus`]; written by who installs.
pub const INSTALL_STATUS: &str = "/run/kontor/install/status.json";
/// [`crate::NetStatus`]; written by netd.
pub const NET_STATUS: &str = "/run/kontor/netd/status.json";
/// [`crate::DhcpStatus`]; written by dhcpd.
pub const DHCP_STATUS: &str = "/run/kontor/dhcpd/status.json";
/// [`crate::DnsStatus`]; written by dnsd.
pub const DNS_STATUS: &str = "/run/kontor/dnsd/status.json";
/// [`crate::UpdateStatus`]; written by updated.
pub const UPDATE_STATUS: &str = "/run/kontor/updated/status.json";
/// What an operator asks updated for; written by `kontor ctl update`, taken away by updated.
pub const UPDATE_REQUEST: &str = "/run/kontor/updated/request.json";
/// Unix stream socket of dnsd on which dhcpd announces names (JSON lines, see kontor's `dnsd::names`).
pub const DNS_NAMES_SOCKET: &str = "/run/kontor/dnsd/names.sock";
/// Control socket of PID 1 (root only).
pub const INIT_SOCKET: &str = "/run/kontor/init/control.sock";

/// Mount point of the `data` partition.
pub const DATA: &str = "/data";
/// Mount point of the `state` partition: durable state, one sub-directory per daemon, owned by that daemon's user. Absent while the disk is not
/// (yet) there: every owner must work without it and pick it up when it appears.
pub const STATE: &str = "/state";
/// The operator's site file, durable.
pub const STATE_SITE: &str = "/state/site/site.toml";
/// The last site that validated and was applied.
pub const STATE_SITE_GOOD: &str = "/state/site/good.toml";
/// What came with the seed beside the site file, for root alone.
pub const STATE_SECRETS: &str = "/state/site/secrets";
/// Lease journal of dhcpd.
pub const STATE_LEASES: &str = "/state/dhcpd/leases.journal";
/// WAN lease of netd, for INIT-REBOOT.
pub const STATE_WAN_LEASE: &str = "/state/netd/wan-lease.json";
/// Port pins of netd (name, PCI path, MAC).
pub const STATE_PORTS: &str = "/state/netd/ports.json";
/// Private keys of tunnels, by name; for netd alone.
pub const STATE_TUNNEL_KEYS: &str = "/state/netd/tunnel-keys.json";

/// The paths of one process: the constants of this module, or other places given on the command line so
/// that a daemon can be tried unprivileged, inside a namespace, beside the one that serves the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Run-time directory, [`RUN`].
    pub run: PathBuf,
    /// Durable state, [`STATE`].
    pub state: PathBuf,
    /// Board file, [`BOARD`].
    pub board: PathBuf,
    site: Option<PathBuf>,
}

impl Default for Paths {
    fn default() -> Self {
        Self { run: RUN.into(), state: STATE.into(), board: BOARD.into(), site: None }
    }
}

impl Paths {
    /// The defaults, with `--run DIR`, `--state DIR`, `--site FILE` and `--board FILE` put in (also as
    /// `--run=DIR`). Every other argument is left to the caller.
    #[must_use]
    pub fn from_args(args: &[String]) -> Self {
        let mut paths = Self::default();
        let mut rest = args.iter();
        while let Some(argument) = rest.next() {
            let (flag, inline) = match argument.split_once('=') {
                Some((flag, value)) => (flag, Some(PathBuf::from(value))),
                None => (argument.as_str(), None),
            };
            if !matches!(flag, "--run" | "--state" | "--site" | "--board") {
                continue;
            }
            let Some(value) = inline.or_else(|| rest.next().map(PathBuf::from)) else { break };
            match flag {
                "--run" => paths.run = value,
                "--state" => paths.state = value,
                "--site" => paths.site = Some(value),
                _ => paths.board = value,
            }
        }
        paths
    }

    /// See [`SITE`].
    #[must_use]
    pub fn site(&self) -> PathBuf {
        self.site.clone().unwrap_or_else(|| Self::under(&self.run, RUN, SITE))
    }

    /// See [`SITE_STATUS`].
    #[must_use]
    pub fn site_status(&self) -> PathBuf {
        Self::under(&self.run, RUN, SITE_STATUS)
    }

    /// See [`SITE_FROM_DISK`].
    #[must_use]
    pub fn site_from_disk(&self) -> PathBuf {
        Self::under(&self.run, RUN, SITE_FROM_DISK)
    }

    /// See [`STORAGE_STATUS`].
    #[must_use]
    pub fn storage_status(&self) -> PathBuf {
        Self::under(&self.run, RUN, STORAGE_STATUS)
    }

    /// See [`STORAGE_DISK`].
    #[must_use]
    pub fn storage_disk(&self) -> PathBuf {
        Self::under(&self.run, RUN, STORAGE_DISK)
    }

    /// See [`SEED_SITE`].
    #[must_use]
    pub fn seed_site(&self) -> PathBuf {
        Self::under(&self.run, RUN, SEED_SITE)
    }

    /// See [`INSTALL_STATUS`].
    #[must_use]
    pub fn install_status(&self) -> PathBuf {
        Self::under(&self.run, RUN, INSTALL_STATUS)
    }

    /// See [`NET_STATUS`].
    #[must_use]
    pub fn net_status(&self) -> PathBuf {
        Self::under(&self.run, RUN, NET_STATUS)
    }

    /// See [`DHCP_STATUS`].
    #[must_use]
    pub fn dhcp_status(&self) -> PathBuf {
        Self::under(&self.run, RUN, DHCP_STATUS)
    }

    /// See [`DNS_STATUS`].
    #[must_use]
    pub fn dns_status(&self) -> PathBuf {
        Self::under(&self.run, RUN, DNS_STATUS)
    }

    /// See [`UPDATE_STATUS`].
    #[must_use]
    pub fn update_status(&self) -> PathBuf {
        Self::under(&self.run, RUN, UPDATE_STATUS)
    }

    /// See [`UPDATE_REQUEST`].
    #[must_use]
    pub fn update_request(&self) -> PathBuf {
        Self::under(&self.run, RUN, UPDATE_REQUEST)
    }

    /// See [`DNS_NAMES_SOCKET`].
    #[must_use]
    pub fn names_socket(&self) -> PathBuf {
        Self::under(&self.run, RUN, DNS_NAMES_SOCKET)
    }

    /// See [`INIT_SOCKET`].
    #[must_use]
    pub fn init_socket(&self) -> PathBuf {
        Self::under(&self.run, RUN, INIT_SOCKET)
    }

    /// See [`STATE_LEASES`].
    #[must_use]
    pub fn leases(&self) -> PathBuf {
        Self::under(&self.state, STATE, STATE_LEASES)
    }

    /// See [`STATE_WAN_LEASE`].
    #[must_use]
    pub fn wan_lease(&self) -> PathBuf {
        Self::under(&self.state, STATE, STATE_WAN_LEASE)
    }

    /// See [`STATE_PORTS`].
    #[must_use]
    pub fn ports(&self) -> PathBuf {
        Self::under(&self.state, STATE, STATE_PORTS)
    }

    /// See [`STATE_TUNNEL_KEYS`].
    #[must_use]
    pub fn tunnel_keys(&self) -> PathBuf {
        Self::under(&self.state, STATE, STATE_TUNNEL_KEYS)
    }

    /// See [`STATE_SITE`].
    #[must_use]
    pub fn state_site(&self) -> PathBuf {
        Self::under(&self.state, STATE, STATE_SITE)
    }

    /// See [`STATE_SITE_GOOD`].
    #[must_use]
    pub fn state_site_good(&self) -> PathBuf {
        Self::under(&self.state, STATE, STATE_SITE_GOOD)
    }

    fn under(root: &Path, default_root: &str, constant: &str) -> PathBuf {
        match Path::new(constant).strip_prefix(default_root) {
            Ok(relative) => root.join(relative),
            Err(_) => PathBuf::from(constant),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_the_constants() {
        let paths = Paths::from_args(&[]);
        assert_eq!(paths.site(), Path::new(SITE));
        assert_eq!(paths.names_socket(), Path::new(DNS_NAMES_SOCKET));
        assert_eq!(paths.leases(), Path::new(STATE_LEASES));
    }

    #[test]
    fn flags_replace_whole_trees() {
        let args =
            ["boot", "--run", "/tmp/r", "--state=/tmp/s", "--site", "/x.toml", "--state"].map(String::from);
        let paths = Paths::from_args(&args);
        assert_eq!(paths.dhcp_status(), Path::new("/tmp/r/dhcpd/status.json"));
        assert_eq!(paths.leases(), Path::new("/tmp/s/dhcpd/leases.journal"));
        assert_eq!(paths.site(), Path::new("/x.toml"));
    }
}

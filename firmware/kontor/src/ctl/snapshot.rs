//! Everything the daemons say about themselves at one moment.

use std::path::Path;

use kontor_status::paths::Paths;
use kontor_status::{
    DhcpStatus, DnsStatus, InitStatus, InstallStatus, NetStatus, SiteStatus, StorageStatus, UpdateStatus,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::control;

/// What could be read; a part is absent while its daemon has not spoken yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) init: Option<InitStatus>,
    pub(crate) site: Option<SiteStatus>,
    pub(crate) net: Option<NetStatus>,
    pub(crate) dhcp: Option<DhcpStatus>,
    pub(crate) dns: Option<DnsStatus>,
    pub(crate) storage: Option<StorageStatus>,
    pub(crate) update: Option<UpdateStatus>,
    #[serde(default)]
    pub(crate) install: Option<InstallStatus>,
    /// Slot on the kernel's command line: known before the disk is.
    pub(crate) slot: Option<String>,
}

impl Snapshot {
    /// Reads all status files and asks PID 1.
    pub(crate) fn take(paths: &Paths) -> Self {
        let init = control::ask(&paths.init_socket(), "status").ok();
        Self {
            init: init.and_then(|answer| serde_json::from_str(&answer).ok()),
            site: read(&paths.site_status()),
            net: read(&paths.net_status()),
            dhcp: read(&paths.dhcp_status()),
            dns: read(&paths.dns_status()),
            storage: read(&paths.storage_status()),
            update: read(&paths.update_status()),
            install: read(&paths.install_status()),
            slot: slot(&std::fs::read_to_string("/proc/cmdline").unwrap_or_default()),
        }
    }
}

/// Status files are replaced atomically; one that does not parse comes from another version: as good as none.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn slot(cmdline: &str) -> Option<String> {
    cmdline.split_whitespace().find_map(|word| word.strip_prefix("kontor.slot=")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_comes_from_the_command_line() {
        assert_eq!(slot("console=ttyS0 kontor.slot=b panic=10").as_deref(), Some("b"));
        assert_eq!(slot("quiet"), None);
    }
}

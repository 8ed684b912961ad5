//! What runs on this box, as releases are compared with it.

use std::fs;

use anyhow::Context as _;
use kontor_config::site::Tunnel;
use kontor_status::paths::Paths;
use kontor_update::{Facts, Version};
use serde::Deserialize;

use super::store;
use crate::site;

const RELEASE: &str = "/usr/share/kontor/release.toml";

/// The running release, and the box.
#[derive(Debug, Clone)]
pub(super) struct Running {
    pub(super) facts: Facts,
    /// When it was built, in seconds since 1970.
    pub(super) built_at: u64,
    /// Whether it trusts keys of a development machine.
    pub(super) development: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ReleaseFile {
    product: String,
    version: String,
    epoch_s: u64,
    #[serde(default)]
    security_epoch: u32,
    #[serde(default)]
    development: bool,
}

impl Running {
    /// # Errors
    /// When the base does not say what it is.
    pub(super) fn find(paths: &Paths) -> anyhow::Result<Self> {
        let text = fs::read_to_string(RELEASE).context(RELEASE)?;
        let release: ReleaseFile = toml::from_str(&text).context(RELEASE)?;
        let version: Version = release.version.parse().context(RELEASE)?;
        let journal = store::load().unwrap_or_default();
        let facts = Facts {
            product: release.product,
            board: site::board(paths)?.name,
            version,
            security_epoch: release.security_epoch,
            state_schema: kontor_migrate::TABLE.span(),
            seed: journal.seed,
            failed: journal.failed_versions(),
        };
        Ok(Self { facts, built_at: release.epoch_s, development: release.development })
    }
}

/// Tunnels that the box keeps up by itself, as `TUNNEL/PEER`; none when the site in force cannot be read.
pub(super) fn kept_tunnels(paths: &Paths) -> Option<Vec<String>> {
    let site = site::read_in_force(paths).ok()?;
    let of_tunnel = |tunnel: &Tunnel| -> Vec<String> {
        let kept = tunnel.peers.iter().filter(|peer| peer.is_kept());
        kept.map(|peer| format!("{}/{}", tunnel.name, peer.name)).collect()
    };
    Some(site.tunnels.iter().flat_map(of_tunnel).collect())
}

/// The box's own name, as the office asks for it.
pub(super) fn own_name(paths: &Paths) -> Option<String> {
    let site = site::read_in_force(paths).ok()?;
    Some(format!("{}.{}", site.office.host_name, site.office.domain))
}

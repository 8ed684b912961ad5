//! The children that speak with servers: users without any right, who decompress as well. They decide nothing.
//!
//! `metadata` looks at a repository as the daemon will, to know which files that takes, and leaves them in a mirror; `images`
//! makes what it is told to of what the box has and what comes, goes on where an earlier one was cut off (`images.rs`). Progress
//! goes to standard output, a line of JSON each.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use kontor_update::Channel;
use serde::{Deserialize, Serialize};

use super::child::read_order;
use super::held::Held;
use super::images::{self, Wanted};
use super::places::Places;
use super::store;
use super::transport::{Mirrored, refresh};

/// What a child is to fetch.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Order {
    /// The repository: `http://…`, `https://…`, or a folder.
    pub(super) from: String,
    /// Where everything goes.
    pub(super) work: PathBuf,
    pub(super) channel: String,
    pub(super) product: String,
    /// The trusted root.
    pub(super) root: PathBuf,
    /// When the running release was built.
    pub(super) clock_floor: u64,
    pub(super) rate_limit_kbit_s: Option<u32>,
    /// Images to be made; empty for `metadata`.
    #[serde(default)]
    pub(super) images: Vec<Wanted>,
    /// What the box has already, open in the child.
    #[serde(default)]
    pub(super) held: Vec<Held>,
}

/// A line of progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// Bytes that have come, in this attempt.
    pub(super) bytes: u64,
    /// Bytes that are needed, as far as is known.
    pub(super) of: u64,
    /// Bytes of everything, had the box had nothing of it.
    pub(super) full: u64,
}

/// `fetch metadata ORDER`, `fetch images ORDER`.
pub(super) fn run(what: &str, order: &Path) -> anyhow::Result<()> {
    let order: Order = read_order(order)?;
    match what {
        "metadata" => metadata(&order),
        "images" => images::fetch(&order).map(drop),
        _ => bail!("usage: kontor updated fetch metadata|images ORDER"),
    }
}

/// Leaves in the mirror what the daemon needs to see: metadata, the channel, and manifests of the product's current releases.
fn metadata(order: &Order) -> anyhow::Result<()> {
    let places = Places::new(&order.work);
    let mirrored = Mirrored::new(&order.from, places.mirror())?;
    let runtime = super::transport::runtime()?;
    runtime.block_on(async {
        let root = fs::read(&order.root).with_context(|| order.root.display().to_string())?;
        let trusted =
            refresh(&places.memory(), &root, mirrored.base(), mirrored.clone(), order.clock_floor).await?;
        let channel: Channel = trusted.channel(&order.channel).await?;
        for current in channel.current.iter().filter(|current| current.product == order.product) {
            trusted.release(&current.product, current.version).await?;
        }
        Ok(())
    })
}

/// A repository that is a folder.
pub(super) fn local(from: &str) -> Option<&Path> {
    from.starts_with('/').then(|| Path::new(from))
}

/// The time, as metadata is checked against it.
pub(super) fn clock(floor: u64) -> kontor_trust::Clock {
    kontor_trust::Clock { now: store::now(), floor }
}

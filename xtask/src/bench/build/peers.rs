//! The peers: mmdebstrap and mkosi of the locked set `bench-build`, each at its fastest fitting settings.

use std::process::Command;

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};

use super::repository::{self, SUITE};
use super::room;
use crate::archive::cache::Cache;
use crate::archive::lock_file::{LockFile, LockedPackage};
use crate::image::plan::BASE_SET;
use crate::image::process;
use crate::tools::Tools;
use crate::workspace::Workspace;

/// The set the peers come from.
const PEERS_SET: &str = "bench-build";
/// The package source, as the peers see it. mkosi has a use of its own for `/repository`.
const SOURCE: &str = "/packages";

/// The peers' tree, and the packages they are given.
#[derive(Debug)]
pub(super) struct Peers {
    tools: Tools,
    packages: Vec<(LockedPackage, Utf8PathBuf)>,
    /// The folder of the cache in which all packages are.
    cached: Utf8PathBuf,
}

impl Peers {
    /// Unpacks the peers and finds the packages they are given.
    ///
    /// # Errors
    /// When a package cannot be had.
    pub(super) fn prepare(lock: &LockFile, cache: &Cache, workspace: &Workspace) -> Result<Self> {
        let tools = Tools::prepare_set(PEERS_SET, lock, cache, workspace.target())?;
        let packages = lock.set(BASE_SET)?;
        let debs = cache.fetch(&packages.iter().collect::<Vec<_>>())?;
        let cached =
            debs.first().and_then(|deb| deb.parent()?.parent()).context("the base has no packages")?;
        let cached = cached.to_owned();
        Ok(Self { tools, packages: packages.iter().cloned().zip(debs).collect(), cached })
    }

    /// A root of the base's packages, unpacked and not configured, as a directory: ours runs no maintainer scripts
    /// either, and every other variant and format does more.
    ///
    /// # Errors
    /// When it fails.
    pub(super) fn mmdebstrap(&self, directory: &Utf8Path) -> Result<()> {
        let mut command = self.command("mmdebstrap", directory)?;
        // Nothing is run in the root, so nothing need be mounted there; the cached lists need not be removed.
        command.args([
            "--mode=root",
            "--variant=extract",
            "--format=directory",
            "--skip=chroot/mount,cleanup",
        ]);
        command.arg(format!("--include={}", self.names().join(",")));
        // `file:` would spare a copy, but mmdebstrap refuses it.
        let source = format!("deb [trusted=yes] copy://{SOURCE} {SUITE} main");
        command.args([SUITE, "/work/root", &source]);
        process::run(command).map(drop)
    }

    /// A bootable image of the base's packages.
    ///
    /// # Errors
    /// When it fails, or mkosi cannot run on this host.
    pub(super) fn mkosi(&self, directory: &Utf8Path) -> Result<()> {
        let mut command = self.command("mkosi", directory)?;
        command.args([
            "--directory=/work",
            "--output-dir=/work",
            "--distribution=debian",
            "--release=trixie",
        ]);
        // Of a mirror mkosi takes only `file:` into its own sandbox.
        command.arg(format!("--local-mirror=file://{SOURCE}"));
        command.args(["--format=disk", "--bootable=yes", "--with-network=no"]);
        command.arg(format!("--package={}", self.names().join(",")));
        process::run(command).map(drop)
    }

    fn names(&self) -> Vec<&str> {
        self.packages.iter().map(|(package, _)| package.name.as_str()).collect()
    }

    /// A peer in a room with `directory` as `/work` and the packages.
    fn command(&self, peer: &str, directory: &Utf8Path) -> Result<Command> {
        let repository = directory.join("repository");
        repository::write(&repository, &self.cached, &self.packages)?;
        let cached = format!("{SOURCE}/{}", repository::CACHED);
        let lend = [(directory, "/work"), (repository.as_path(), SOURCE), (self.cached.as_path(), &*cached)];
        let mut command = room::command(self.tools.root(), &lend, peer)?;
        // The room knows one user, so that no file can be given to another.
        command.env("TAR_OPTIONS", "--no-same-owner").env("TMPDIR", "/work");
        Ok(command)
    }
}

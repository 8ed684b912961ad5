//! Older releases: today's lock with versions that the mirror still has beside the locked ones.

use anyhow::{Context, Result};
use camino::Utf8Path;

use crate::archive::index::Index;
use crate::archive::lock_file::{LockFile, LockedPackage};
use crate::archive::version;
use crate::image::plan::BASE_SET;

/// The kernels of one series, `linux-image-6.12.118+deb13-amd64`.
const KERNEL: (&str, &str) = ("linux-image-", "-amd64");

/// Which packages are to be older.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Older<'a> {
    /// Those of a source package.
    Source(&'a str),
    /// The kernel.
    Kernel,
    /// Every one of which there is an older version.
    All,
}

/// The lock of a release before; and what differs, one line per package and set.
pub(super) fn older(
    lock: &LockFile,
    index: &Index,
    which: Older<'_>,
    component: &str,
    path: &Utf8Path,
) -> Result<(LockFile, Vec<String>)> {
    // Under another path: nothing may write the repository's lock.
    let mut old = LockFile::parse(path, &lock.to_text()?)?;
    for set in [BASE_SET, component] {
        let before =
            |package: &LockedPackage| before(package, index, which).unwrap_or_else(|| package.clone());
        let packages = lock.set(set)?.iter().map(before).collect();
        old.replace(set, packages);
    }
    let changes: Vec<String> = old.changes(lock);
    changes.first().with_context(|| format!("the mirror has no older version for {which:?}"))?;
    Ok((old, changes))
}

/// The latest version before the locked one.
fn before(package: &LockedPackage, index: &Index, which: Older<'_>) -> Option<LockedPackage> {
    let is_kernel = kernel_version(&package.name).is_some();
    let wanted = match which {
        Older::Source(source) => package.source == source,
        Older::Kernel => is_kernel,
        Older::All => true,
    };
    let same = |name: &str| if is_kernel { kernel_version(name).is_some() } else { name == package.name };
    let older = |version: &str| version::compare(version, &package.version).is_lt();
    let candidates = index.packages().iter().filter(|found| same(&found.name) && older(&found.version));
    let latest = candidates.max_by(|a, b| version::compare(&a.version, &b.version));
    latest.filter(|_| wanted).map(LockedPackage::from)
}

fn kernel_version(name: &str) -> Option<&str> {
    let version = name.strip_prefix(KERNEL.0)?.strip_suffix(KERNEL.1)?;
    let is_plain = version.starts_with("6.12.") && !version.contains("cloud") && !version.contains("rt");
    is_plain.then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_of_other_flavours_are_none() {
        assert_eq!(kernel_version("linux-image-6.12.117+deb13-amd64"), Some("6.12.117+deb13"));
        for name in [
            "linux-image-6.12.117+deb13-cloud-amd64",
            "linux-image-6.12.117+deb13-rt-amd64",
            "linux-image-amd64",
            "samba",
        ] {
            assert_eq!(kernel_version(name), None, "{name}");
        }
    }
}

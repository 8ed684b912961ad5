//! Copies of the tree to build in: what is in the repository, nothing that was built.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::symlink;

use anyhow::{Context, Result};
use camino::{Utf8DirEntry, Utf8Path};

/// In which order files are made, and so, on many file systems, listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// By name.
    Sorted,
    /// By name, backwards.
    Reversed,
}

/// What is never a source, at any depth.
const NEVER: [&str; 4] = ["target", ".git", "corpus", "artifacts"];
/// Zeros of this length are left out of sparse copies.
const BLOCK: usize = 1 << 16;

/// Copies the sources below `from` to the new folder `to`.
pub(super) fn copy(from: &Utf8Path, to: &Utf8Path, order: Order) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("making {to}"))?;
    for entry in listed(from, order)? {
        if NEVER.contains(&entry.file_name()) {
            continue;
        }
        one(&entry, &to.join(entry.file_name()), order)
            .with_context(|| format!("copying {} to {to}", entry.path()))?;
    }
    Ok(())
}

/// Everything below `from`, whatever it is called.
pub(super) fn copy_all(from: &Utf8Path, to: &Utf8Path, order: Order) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("making {to}"))?;
    for entry in listed(from, order)? {
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_all(entry.path(), &target, order)?;
        } else {
            one(&entry, &target, order).with_context(|| format!("copying {} to {to}", entry.path()))?;
        }
    }
    Ok(())
}

fn listed(folder: &Utf8Path, order: Order) -> Result<Vec<Utf8DirEntry>> {
    let read = folder.read_dir_utf8().and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut entries = read.with_context(|| format!("reading {folder}"))?;
    entries.sort_by(|a, b| a.file_name().cmp(b.file_name()));
    if order == Order::Reversed {
        entries.reverse();
    }
    Ok(entries)
}

fn one(entry: &Utf8DirEntry, to: &Utf8Path, order: Order) -> Result<()> {
    let kind = entry.file_type()?;
    if kind.is_dir() {
        copy(entry.path(), to, order)
    } else if kind.is_symlink() {
        Ok(symlink(entry.path().read_link_utf8()?, to)?)
    } else {
        Ok(fs::copy(entry.path(), to).map(drop)?)
    }
}

/// Copies one file without its long runs of zeros.
pub(super) fn copy_sparse(from: &Utf8Path, to: &Utf8Path) -> Result<()> {
    let length = fs::metadata(from).with_context(|| format!("reading {from}"))?.len();
    copy_range(from, 0, length, to)
}

/// Copies a part of a file, if it has so much, without long runs of zeros.
pub(super) fn copy_range(from: &Utf8Path, offset: u64, length: u64, to: &Utf8Path) -> Result<()> {
    let copied = || -> Result<()> {
        let mut source = File::open(from)?;
        source.seek(SeekFrom::Start(offset))?;
        let mut source = source.take(length);
        let mut target = File::create(to)?;
        let mut block = Vec::with_capacity(BLOCK);
        loop {
            block.clear();
            let count = source.by_ref().take(BLOCK as u64).read_to_end(&mut block)?;
            match count {
                0 => {
                    let end = target.stream_position()?;
                    return Ok(target.set_len(end)?);
                }
                _ if block.iter().all(|byte| *byte == 0) => {
                    target.seek(SeekFrom::Current(i64::try_from(count)?))?;
                }
                _ => target.write_all(&block)?,
            }
        }
    };
    copied().with_context(|| format!("copying {from} to {to}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_copied_and_nothing_built() {
        let scratch = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(scratch.path()).unwrap();
        for folder in ["from/a/target", "from/.git", "from/b"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for file in ["from/a/x", "from/a/target/y", "from/.git/z", "from/b/w"] {
            fs::write(root.join(file), file).unwrap();
        }
        symlink("a/x", root.join("from/link")).unwrap();
        for (order, to) in [(Order::Sorted, "one"), (Order::Reversed, "two")] {
            let to = root.join(to);
            copy(&root.join("from"), &to, order).unwrap();
            assert_eq!(fs::read_to_string(to.join("link")).unwrap(), "from/a/x");
            assert_eq!(fs::read_to_string(to.join("b/w")).unwrap(), "from/b/w");
            assert!(!to.join("a/target").exists() && !to.join(".git").exists());
        }
    }

    #[test]
    fn a_sparse_copy_is_the_same_file() {
        let scratch = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(scratch.path()).unwrap();
        let mut bytes = vec![0; 3 * BLOCK + 17];
        bytes[BLOCK + 5] = 1;
        fs::write(root.join("a"), &bytes).unwrap();
        copy_sparse(&root.join("a"), &root.join("b")).unwrap();
        assert_eq!(fs::read(root.join("b")).unwrap(), bytes);
    }
}

//! Two unpacked file trees: the first name, in order, under which they differ.

use std::collections::BTreeSet;
use std::fs::{self, FileType, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};

/// How a name differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum How {
    /// Both are files with other bytes.
    Content,
    /// Something else; in words.
    Said(String),
}

/// The first difference: path below both roots, and how.
pub(super) fn first_difference(first: &Utf8Path, second: &Utf8Path) -> Result<Option<(Utf8PathBuf, How)>> {
    below(first, second, Utf8Path::new(""))
}

fn below(first: &Utf8Path, second: &Utf8Path, at: &Utf8Path) -> Result<Option<(Utf8PathBuf, How)>> {
    let all: BTreeSet<String> = names(&first.join(at))?.into_iter().chain(names(&second.join(at))?).collect();
    for name in all {
        let path = at.join(name);
        if let Some(how) = one(&first.join(&path), &second.join(&path))? {
            return Ok(Some((path, how)));
        }
        if fs::symlink_metadata(first.join(&path))?.is_dir()
            && let Some(found) = below(first, second, &path)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn names(folder: &Utf8Path) -> Result<Vec<String>> {
    let entries = folder.read_dir_utf8().with_context(|| format!("reading {folder}"))?;
    entries.map(|entry| Ok(entry?.file_name().to_owned())).collect()
}

fn one(first: &Utf8Path, second: &Utf8Path) -> Result<Option<How>> {
    let (a, b) = match (fs::symlink_metadata(first), fs::symlink_metadata(second)) {
        (Ok(a), Ok(b)) => (a, b),
        (Ok(_), Err(_)) => return Ok(said("is in the first image only")),
        (Err(_), Ok(_)) => return Ok(said("is in the second image only")),
        (Err(error), Err(_)) => return Err(error).with_context(|| format!("reading {first}")),
    };
    if kind(a.file_type()) != kind(b.file_type()) {
        return Ok(said(&format!(
            "is {} in the first, {} in the second",
            kind(a.file_type()),
            kind(b.file_type())
        )));
    }
    if a.is_symlink() {
        let (a, b) = (first.read_link_utf8()?, second.read_link_utf8()?);
        return Ok(if a == b {
            None
        } else {
            said(&format!("points to {a} in the first, to {b} in the second"))
        });
    }
    if a.is_file() && !same_bytes(first, second, &a, &b)? {
        return Ok(Some(How::Content));
    }
    let mode = |metadata: &Metadata| metadata.mode() & 0o7777;
    Ok(if mode(&a) == mode(&b) {
        None
    } else {
        said(&format!("has mode {:04o} in the first, {:04o} in the second", mode(&a), mode(&b)))
    })
}

fn said(text: &str) -> Option<How> {
    Some(How::Said(text.to_owned()))
}

fn same_bytes(first: &Utf8Path, second: &Utf8Path, a: &Metadata, b: &Metadata) -> Result<bool> {
    let read = |path: &Utf8Path| fs::read(path).with_context(|| format!("reading {path}"));
    Ok(a.len() == b.len() && read(first)? == read(second)?)
}

fn kind(kind: FileType) -> &'static str {
    match kind {
        _ if kind.is_dir() => "a folder",
        _ if kind.is_file() => "a file",
        _ if kind.is_symlink() => "a link",
        _ if kind.is_fifo() => "a pipe",
        _ => "a device",
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    type Make = fn(&Utf8Path);

    #[track_caller]
    fn check(first: Make, second: Make, expect: Option<(&str, &str)>) {
        let scratch = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(scratch.path()).unwrap();
        for (name, make) in [("a", first), ("b", second)] {
            fs::create_dir_all(root.join(name).join("usr")).unwrap();
            fs::write(root.join(name).join("usr/same"), "x").unwrap();
            make(&root.join(name));
        }
        let found =
            first_difference(&root.join("a"), &root.join("b")).unwrap().map(|(path, how)| match how {
                How::Content => (path.into_string(), "content".to_owned()),
                How::Said(text) => (path.into_string(), text),
            });
        assert_eq!(found, expect.map(|(path, how)| (path.to_owned(), how.to_owned())));
    }

    #[test]
    fn every_kind_of_difference_is_named() {
        let nothing: Make = |_| {};
        check(nothing, nothing, None);
        check(
            |a| fs::write(a.join("usr/f"), "1").unwrap(),
            |b| fs::write(b.join("usr/f"), "2").unwrap(),
            Some(("usr/f", "content")),
        );
        check(|a| fs::write(a.join("f"), "1").unwrap(), nothing, Some(("f", "is in the first image only")));
        check(nothing, |b| fs::create_dir(b.join("d")).unwrap(), Some(("d", "is in the second image only")));
        check(
            |a| symlink("x", a.join("l")).unwrap(),
            |b| symlink("y", b.join("l")).unwrap(),
            Some(("l", "points to x in the first, to y in the second")),
        );
        check(
            |a| symlink("x", a.join("l")).unwrap(),
            |b| fs::write(b.join("l"), "").unwrap(),
            Some(("l", "is a link in the first, a file in the second")),
        );
        check(
            |a| fs::set_permissions(a.join("usr/same"), fs::Permissions::from_mode(0o600)).unwrap(),
            |b| fs::set_permissions(b.join("usr/same"), fs::Permissions::from_mode(0o644)).unwrap(),
            Some(("usr/same", "has mode 0600 in the first, 0644 in the second")),
        );
    }
}

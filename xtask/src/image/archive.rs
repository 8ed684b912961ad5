//! A tree as a tar stream, the form in which `mkfs.erofs` takes owners, modes, devices and attributes from an
//! ordinary user.
//!
//! Sorted by path, every entry with the same time: the bytes depend on the tree alone.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, Result};
use tar::{Builder, EntryType, Header};

use super::tree::{Node, NodeKind, Tree};

/// Writes `tree` as tar; `mtime` in seconds since 1970.
///
/// # Errors
/// When the output cannot be written.
pub fn write_tar(tree: &Tree, mtime: u32, output: impl Write) -> Result<()> {
    let mut tar = Builder::new(output);
    let root = Node::new(NodeKind::Dir, 0o755, "root");
    append(&mut tar, "./", &root, mtime, None)?;
    let mut names: HashMap<*const u8, &str> = HashMap::new();
    for (path, node) in tree.iter() {
        let first = match &node.kind {
            NodeKind::File(bytes) if !bytes.is_empty() => {
                let first = *names.entry(Arc::as_ptr(bytes).cast()).or_insert(path);
                (first != path).then_some(first)
            }
            _ => None,
        };
        append(&mut tar, path, node, mtime, first).with_context(|| format!("/{path}"))?;
    }
    tar.into_inner()?.flush()?;
    Ok(())
}

fn append<W: Write>(
    tar: &mut Builder<W>,
    path: &str,
    node: &Node,
    mtime: u32,
    link: Option<&str>,
) -> Result<()> {
    if !node.xattrs.is_empty() {
        let keys: Vec<(String, &[u8])> = node
            .xattrs
            .iter()
            .map(|(key, value)| (format!("SCHILY.xattr.{key}"), value.as_slice()))
            .collect();
        tar.append_pax_extensions(keys.iter().map(|(key, value)| (key.as_str(), *value)))?;
    }
    let mut header = Header::new_gnu();
    header.set_mode(node.mode);
    header.set_uid(node.uid.into());
    header.set_gid(node.gid.into());
    header.set_mtime(mtime.into());
    header.set_size(0);
    if let Some(target) = link {
        header.set_entry_type(EntryType::Link);
        return Ok(tar.append_link(&mut header, path, target)?);
    }
    match &node.kind {
        NodeKind::File(bytes) => {
            header.set_entry_type(EntryType::Regular);
            header.set_size(bytes.len() as u64);
            return Ok(tar.append_data(&mut header, path, &**bytes)?);
        }
        NodeKind::Symlink(target) => {
            header.set_entry_type(EntryType::Symlink);
            return Ok(tar.append_link(&mut header, path, target)?);
        }
        NodeKind::Dir => header.set_entry_type(EntryType::Directory),
        NodeKind::CharDevice { major, minor } => set_device(&mut header, EntryType::Char, *major, *minor)?,
        NodeKind::BlockDevice { major, minor } => set_device(&mut header, EntryType::Block, *major, *minor)?,
        NodeKind::Fifo => header.set_entry_type(EntryType::Fifo),
    }
    Ok(tar.append_data(&mut header, path, std::io::empty())?)
}

fn set_device(header: &mut Header, kind: EntryType, major: u32, minor: u32) -> Result<()> {
    header.set_entry_type(kind);
    header.set_device_major(major)?;
    Ok(header.set_device_minor(minor)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn example() -> Tree {
        let mut tree = Tree::default();
        let mut ping = Node::file(&b"ping"[..], 0o4755, "iputils");
        ping.gid = 7;
        ping.xattrs.insert("security.capability".to_owned(), vec![1, 0, 255]);
        tree.insert("/usr/bin/ping", ping).unwrap();
        tree.hard_link("/usr/bin/ping6", "/usr/bin/ping", "iputils").unwrap();
        tree.insert("/usr/bin/sh", Node::symlink("dash", "dash")).unwrap();
        tree.insert("/dev/console", Node::new(NodeKind::CharDevice { major: 5, minor: 1 }, 0o600, "x"))
            .unwrap();
        let long = format!("/usr/share/{}", "long/".repeat(40));
        tree.insert(&format!("{long}name"), Node::file(&b"deep"[..], 0o644, "x")).unwrap();
        tree.complete().unwrap();
        tree
    }

    #[test]
    fn everything_an_ordinary_user_cannot_create_survives() {
        let mut bytes = Vec::new();
        write_tar(&example(), 1_000, &mut bytes).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut seen = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let xattr = entry.pax_extensions().unwrap().map(|all| {
                all.map(|one| one.unwrap())
                    .map(|one| (one.key().unwrap().to_owned(), one.value_bytes().to_vec()))
                    .collect()
            });
            let header = entry.header().clone();
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            assert_eq!(header.mtime().unwrap(), 1_000);
            let link = entry.link_name().unwrap().map(|link| link.to_str().unwrap().to_owned());
            let xattr: Vec<(String, Vec<u8>)> = xattr.unwrap_or_default();
            seen.insert(
                path,
                (
                    header.mode().unwrap(),
                    header.gid().unwrap(),
                    link,
                    xattr,
                    header.device_minor().unwrap_or_default(),
                ),
            );
        }
        let xattrs = vec![("SCHILY.xattr.security.capability".to_owned(), vec![1, 0, 255])];
        assert_eq!(seen["usr/bin/ping"], (0o4755, 7, None, xattrs, None));
        assert_eq!(seen["usr/bin/ping6"].2.as_deref(), Some("usr/bin/ping"));
        assert_eq!(seen["usr/bin/sh"].2.as_deref(), Some("dash"));
        assert_eq!(seen["dev/console"].4, Some(1));
        assert!(seen.keys().any(|path| path.ends_with("long/name")), "{:?}", seen.keys());
    }

    #[test]
    fn the_same_tree_gives_the_same_bytes() {
        let [mut first, mut second] = [Vec::new(), Vec::new()];
        write_tar(&example(), 1, &mut first).unwrap();
        write_tar(&example(), 1, &mut second).unwrap();
        assert_eq!(first, second);
    }
}

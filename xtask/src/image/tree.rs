//! A file system that exists only in memory: what packages and declarations put where.
//!
//! Owners, modes, devices and attributes are data here, so an ordinary user can build a root's file system.
//! Two sources that disagree about a path are an error; nothing wins silently.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, bail};

/// Top-level directories that are links into `/usr` on a merged-usr system.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeKind {
    /// A directory.
    Dir,
    /// A regular file; the content is shared between hard links.
    File(Arc<[u8]>),
    /// A symbolic link.
    Symlink(String),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// One path of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: NodeKind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Extended attributes.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// Who put it here: a package's name, or the file that declares it.
    pub origin: String,
}

impl Node {
    /// A node of root with no attributes.
    #[must_use]
    pub fn new(kind: NodeKind, mode: u32, origin: &str) -> Self {
        Self { kind, mode, uid: 0, gid: 0, xattrs: BTreeMap::new(), origin: origin.to_owned() }
    }

    /// A regular file of root.
    #[must_use]
    pub fn file(bytes: impl Into<Arc<[u8]>>, mode: u32, origin: &str) -> Self {
        Self::new(NodeKind::File(bytes.into()), mode, origin)
    }

    /// A symbolic link of root.
    #[must_use]
    pub fn symlink(target: &str, origin: &str) -> Self {
        Self::new(NodeKind::Symlink(target.to_owned()), 0o777, origin)
    }

    /// Bytes of a regular file, else 0.
    #[must_use]
    pub fn len(&self) -> u64 {
        if let NodeKind::File(bytes) = &self.kind { bytes.len() as u64 } else { 0 }
    }

    /// Whether it holds no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn same_as(&self, other: &Self) -> bool {
        (&self.kind, self.mode, self.uid, self.gid, &self.xattrs)
            == (&other.kind, other.mode, other.uid, other.gid, &other.xattrs)
    }
}

/// The tree: paths without a leading slash, sorted; the root itself is not a node.
#[derive(Debug, Default)]
pub struct Tree {
    nodes: BTreeMap<String, Node>,
}

impl Tree {
    /// How many bytes each origin (a package, mostly) adds.
    #[must_use]
    pub fn sizes(&self) -> Vec<(String, u64)> {
        let mut sizes = BTreeMap::new();
        for (_, node) in self.iter() {
            *sizes.entry(node.origin.clone()).or_insert(0) += node.len();
        }
        sizes.into_iter().filter(|(_, bytes)| *bytes > 0).collect()
    }

    /// Adds a node; the same node twice is fine, and a directory may be named by many packages.
    ///
    /// # Errors
    /// When the path is already something else, or is not a plain path.
    pub fn insert(&mut self, path: &str, node: Node) -> Result<()> {
        let path = normalise(path)?;
        if path.is_empty() {
            return Ok(());
        }
        match self.nodes.get(&path) {
            Some(existing) if existing.same_as(&node) => Ok(()),
            // The first to name a directory decides its mode; packages differ in nothing that matters there.
            Some(existing) if existing.kind == NodeKind::Dir && node.kind == NodeKind::Dir => Ok(()),
            Some(existing) => {
                bail!("/{path}: {} and {} both provide it, and differ", existing.origin, node.origin)
            }
            None => {
                self.nodes.insert(path, node);
                Ok(())
            }
        }
    }

    /// Sets a directory's mode and owner whatever a package said, creating it if need be.
    ///
    /// # Errors
    /// When the path exists and is not a directory.
    pub fn declare_dir(&mut self, path: &str, node: Node) -> Result<()> {
        let path = normalise(path)?;
        if let Some(existing) = self.nodes.get(&path).filter(|existing| existing.kind != NodeKind::Dir) {
            bail!("/{path}: {} provides something that is not a directory", existing.origin);
        }
        self.nodes.insert(path, node);
        Ok(())
    }

    /// A second name for a file that is already there.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn hard_link(&mut self, path: &str, target: &str, origin: &str) -> Result<()> {
        let target = normalise(target)?;
        let mut node = self
            .nodes
            .get(&target)
            .with_context(|| format!("/{path}: hard link to missing /{target}"))?
            .clone();
        origin.clone_into(&mut node.origin);
        self.insert(path, node)
    }

    /// The node at a path.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path.trim_start_matches('/'))
    }

    /// Takes out every node whose path matches; returns them in path order.
    pub fn take(&mut self, matches: impl Fn(&str) -> bool) -> Vec<(String, Node)> {
        let paths: Vec<String> = self.nodes.keys().filter(|path| matches(path)).cloned().collect();
        paths.into_iter().filter_map(|path| self.nodes.remove_entry(&path)).collect()
    }

    /// Every node in path order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// Adds missing parent directories and checks that every parent is one.
    ///
    /// # Errors
    /// When a path leads through something that is not a directory.
    pub fn complete(&mut self) -> Result<()> {
        let paths: Vec<String> = self.nodes.keys().cloned().collect();
        for path in paths {
            for (at, _) in path.match_indices('/') {
                let parent = &path[..at];
                match self.nodes.get(parent).map(|node| &node.kind) {
                    Some(NodeKind::Dir) => {}
                    Some(_) => bail!("/{path}: /{parent} is not a directory"),
                    None => {
                        let node = Node::new(NodeKind::Dir, 0o755, "implied");
                        self.nodes.insert(parent.to_owned(), node);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Without leading `/` or `./`, without a trailing slash, and with `/bin/x` as `usr/bin/x`.
fn normalise(path: &str) -> Result<String> {
    let path = path.strip_prefix("./").unwrap_or(path).trim_start_matches('/').trim_end_matches('/');
    if path == "." || path.is_empty() {
        return Ok(String::new());
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        bail!("{path:?} is not a plain path");
    }
    match path.split_once('/') {
        Some((first, _)) if MERGED.contains(&first) => Ok(format!("usr/{path}")),
        _ => Ok(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str, origin: &str) -> Node {
        Node::file(text.as_bytes(), 0o644, origin)
    }

    fn paths(tree: &Tree) -> Vec<&str> {
        tree.iter().map(|(path, _)| path).collect()
    }

    #[test]
    fn merged_usr_and_prefixes_become_one_name() {
        let mut tree = Tree::default();
        for path in ["./bin/nft", "/usr/bin/nft", "usr/bin/nft"] {
            tree.insert(path, file("x", "nftables")).unwrap();
        }
        tree.insert("/bin", Node::symlink("usr/bin", "base-files")).unwrap();
        tree.complete().unwrap();
        assert_eq!(paths(&tree), ["bin", "usr", "usr/bin", "usr/bin/nft"]);
    }

    #[test]
    fn two_different_files_are_a_conflict_that_names_both() {
        let mut tree = Tree::default();
        tree.insert("/etc/x", file("1", "one")).unwrap();
        let error = tree.insert("/etc/x", file("2", "two")).unwrap_err().to_string();
        assert_eq!(error, "/etc/x: one and two both provide it, and differ");
    }

    #[test]
    fn a_path_through_a_link_is_refused() {
        let mut tree = Tree::default();
        tree.insert("/var/run", Node::symlink("/run", "base-files")).unwrap();
        tree.insert("/var/run/x", file("", "x")).unwrap();
        assert_eq!(tree.complete().unwrap_err().to_string(), "/var/run/x: /var/run is not a directory");
    }

    #[test]
    fn paths_never_leave_the_tree() {
        let mut tree = Tree::default();
        for path in ["../etc/passwd", "usr/../../x", "a//b"] {
            assert!(tree.insert(path, file("", "x")).is_err(), "{path}");
        }
    }

    #[test]
    fn a_declaration_sets_the_mode_of_a_packages_directory() {
        let mut tree = Tree::default();
        tree.insert("/tmp", Node::new(NodeKind::Dir, 0o755, "base-files")).unwrap();
        tree.declare_dir("/tmp", Node::new(NodeKind::Dir, 0o1777, "base.toml")).unwrap();
        assert_eq!(tree.get("/tmp").unwrap().mode, 0o1777);
    }

    #[test]
    fn hard_links_share_their_content() {
        let mut tree = Tree::default();
        tree.insert("/usr/sbin/mke2fs", file("x", "e2fsprogs")).unwrap();
        tree.hard_link("/usr/sbin/mkfs.ext4", "./usr/sbin/mke2fs", "e2fsprogs").unwrap();
        let content = |path: &str| match &tree.get(path).unwrap().kind {
            NodeKind::File(bytes) => Arc::clone(bytes),
            other => panic!("{other:?}"),
        };
        assert!(Arc::ptr_eq(&content("usr/sbin/mke2fs"), &content("usr/sbin/mkfs.ext4")));
        assert!(tree.hard_link("/a", "/missing", "x").is_err());
    }
}

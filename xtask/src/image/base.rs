//! The base's root: what packages hold and `base.toml` declares, as one tree.
//!
//! No script of a package runs; what it would have done is in the declaration, or it does not happen.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};

use super::declaration::{BaseFile, Directory, FileDeclaration, Join, MultiCall, Unpack, parse_mode};
use super::glob;
use super::tree::{Node, NodeKind, Tree};
use crate::archive::cache::{Cache, parallel};
use crate::archive::lock_file::LockedPackage;
use crate::deb::{Deb, Entry, Kind};
use crate::sbom::facts;

/// The name under which declarations appear as an origin.
const DECLARED: &str = "base.toml";

/// What a package puts into the tree, in its order.
#[derive(Debug)]
pub struct PackageFiles {
    package: String,
    files: Vec<(String, Placed)>,
}

#[derive(Debug)]
enum Placed {
    Node(Node),
    /// Another name of a file of the tree.
    Link(String),
}

impl PackageFiles {
    /// Reads a package, less what is dropped; `see` is shown everything. Packages can be read at the same time.
    ///
    /// # Errors
    /// When the package cannot be read.
    pub fn read(package: &str, deb: &Deb, unpack: &Unpack, mut see: impl FnMut(&Entry)) -> Result<Self> {
        // A hard link may come to a file that is dropped under its first name.
        let mut dropped: BTreeMap<String, Node> = BTreeMap::new();
        let mut files = Vec::new();
        deb.entries(|entry| {
            see(&entry);
            let wanted =
                !glob::any_matches(&unpack.drop, &entry.path) || glob::any_matches(&unpack.keep, &entry.path);
            let path = entry.path.clone();
            let placed = match (&entry.kind, wanted) {
                (Kind::Hardlink { target }, true) => match dropped.get(target) {
                    Some(node) => Placed::Node(node.clone()),
                    None => Placed::Link(target.clone()),
                },
                (_, true) => Placed::Node(node(entry, package)?),
                (Kind::File { .. }, false) => {
                    dropped.insert(path, node(entry, package)?);
                    return Ok(());
                }
                (_, false) => return Ok(()),
            };
            files.push((path, placed));
            Ok(())
        })?;
        Ok(Self { package: package.to_owned(), files })
    }

    /// Puts the package's files into the tree.
    ///
    /// # Errors
    /// When they conflict with what is there.
    pub fn add_to(self, tree: &mut Tree) -> Result<()> {
        for (path, placed) in self.files {
            match placed {
                Placed::Node(node) => tree.insert(&path, node)?,
                Placed::Link(target) => tree.hard_link(&path, &target, &self.package)?,
            }
        }
        Ok(())
    }
}

/// Reads packages at the same time, in order; what the SBOM wants to know of them is kept below `target`.
///
/// # Errors
/// When one cannot be had or read.
pub fn read_packages(
    packages: &[&LockedPackage],
    unpack: &Unpack,
    cache: &Cache,
    target: &Utf8Path,
) -> Result<Vec<PackageFiles>> {
    let debs: Vec<_> = packages.iter().zip(cache.debs(packages)?).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    parallel(&debs, threads, |(package, deb)| {
        let mut facts = facts::Reader::new(&package.name);
        let see = |entry: &Entry| facts.see(&entry.path, &entry.kind);
        let files = PackageFiles::read(&package.name, deb, unpack, see)
            .with_context(|| format!("package {}", package.name))?;
        facts.keep(package, deb.path(), target)?;
        Ok(files)
    })
}

/// Puts a package's files into the tree, less what is dropped.
///
/// # Errors
/// When the package cannot be read, or conflicts with what is there.
pub fn add_package(tree: &mut Tree, package: &str, deb: &Deb, unpack: &Unpack) -> Result<()> {
    PackageFiles::read(package, deb, unpack, |_| ())?.add_to(tree)
}

fn node(entry: Entry, package: &str) -> Result<Node> {
    let kind = match entry.kind {
        Kind::File { bytes } => NodeKind::File(bytes.into()),
        Kind::Dir => NodeKind::Dir,
        Kind::Symlink { target } => NodeKind::Symlink(target),
        Kind::CharDevice { major, minor } => NodeKind::CharDevice { major, minor },
        Kind::BlockDevice { major, minor } => NodeKind::BlockDevice { major, minor },
        Kind::Fifo => NodeKind::Fifo,
        Kind::Hardlink { target } => {
            anyhow::bail!("{}: hard link to {target} in an unexpected place", entry.path)
        }
    };
    let mut node = Node::new(kind, entry.mode, package);
    node.uid = u32::try_from(entry.uid)?;
    node.gid = u32::try_from(entry.gid)?;
    node.xattrs = entry.xattrs.into_iter().collect();
    Ok(node)
}

/// Adds everything `base.toml` declares; `files` is where its sources are.
///
/// # Errors
/// When a declaration conflicts with a package or names something that is not there.
pub fn declare(tree: &mut Tree, base: &BaseFile, files: &Utf8Path) -> Result<()> {
    for directory in &base.directory {
        declare_directory(tree, base, directory)?;
    }
    for link in &base.link {
        tree.insert(&link.path, Node::symlink(&link.target, DECLARED))?;
    }
    for file in &base.file {
        tree.insert(&file.path, declared_file(base, file, files)?)?;
    }
    for join in &base.join {
        join_files(tree, join)?;
    }
    for program in &base.multi_call {
        link_names(tree, program)?;
    }
    tree.insert("/etc/passwd", Node::file(passwd(base).into_bytes(), 0o644, DECLARED))?;
    tree.insert("/etc/group", Node::file(group(base).into_bytes(), 0o644, DECLARED))
}

fn declare_directory(tree: &mut Tree, base: &BaseFile, directory: &Directory) -> Result<()> {
    let mode = parse_mode(&directory.mode).with_context(|| directory.path.clone())?;
    let mut node = Node::new(NodeKind::Dir, mode, DECLARED);
    node.uid = base.user_id(&directory.owner)?;
    node.gid = node.uid;
    tree.declare_dir(&directory.path, node)
}

fn declared_file(base: &BaseFile, file: &FileDeclaration, files: &Utf8Path) -> Result<Node> {
    let bytes = match (&file.content, &file.source) {
        (Some(content), _) => content.clone().into_bytes(),
        (None, Some(source)) => {
            let path = source_path(files, source);
            std::fs::read(&path).with_context(|| format!("cannot read {path}"))?
        }
        (None, None) => anyhow::bail!("{}: a file needs either content or source", file.path),
    };
    let mut node = Node::file(bytes, parse_mode(&file.mode).with_context(|| file.path.clone())?, DECLARED);
    node.uid = base.user_id(&file.owner)?;
    node.gid = node.uid;
    Ok(node)
}

/// Where a declared file's content comes from.
#[must_use]
pub fn source_path(files: &Utf8Path, source: &str) -> Utf8PathBuf {
    files.join(source)
}

fn join_files(tree: &mut Tree, join: &Join) -> Result<()> {
    let parts = tree.take(|path| glob::matches(&join.sources, path));
    ensure!(!parts.is_empty(), "{}: nothing matches {}", join.path, join.sources);
    let mut joined = Vec::new();
    for (_, node) in &parts {
        if let NodeKind::File(bytes) = &node.kind {
            joined.extend_from_slice(bytes);
            if !bytes.ends_with(b"\n") {
                joined.push(b'\n');
            }
        }
    }
    let origin = parts.first().map_or(DECLARED, |(_, node)| &node.origin).to_owned();
    tree.insert(&join.path, Node::file(joined, 0o644, &origin))
}

fn link_names(tree: &mut Tree, program: &MultiCall) -> Result<()> {
    ensure!(tree.get(&program.program).is_some(), "{}: no such program in the base", program.program);
    for name in &program.names {
        let path = format!("{}/{name}", program.directory);
        tree.insert(&path, Node::symlink(&program.program, DECLARED))?;
    }
    Ok(())
}

fn passwd(base: &BaseFile) -> String {
    let line = |user: &super::declaration::User| {
        let (name, id) = (&user.name, user.id);
        format!("{name}:x:{id}:{id}:{name}:{}:{}\n", user.home, user.shell)
    };
    base.user.iter().map(line).collect()
}

fn group(base: &BaseFile) -> String {
    let users = base.user.iter().map(|user| (&user.name, user.id));
    let groups = base.group.iter().map(|group| (&group.name, group.id));
    users.chain(groups).map(|(name, id)| format!("{name}:x:{id}:\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Workspace;

    fn base(text: &str) -> BaseFile {
        toml::from_str(&format!("packages = {{}}\nunpack.drop = []\n[[user]]\nname='root'\nid=0\n{text}"))
            .unwrap()
    }

    fn declared(text: &str) -> Result<Tree> {
        let mut tree = Tree::default();
        tree.insert("/usr/bin/busybox", Node::file(&b"elf"[..], 0o755, "busybox")).unwrap();
        for (name, text) in [("b.crt", "B"), ("a.crt", "A\n")] {
            tree.insert(&format!("/usr/share/ca/{name}"), Node::file(text.as_bytes(), 0o644, "ca")).unwrap();
        }
        declare(&mut tree, &base(text), Utf8Path::new("/nonexistent")).map(|()| tree)
    }

    fn text(tree: &Tree, path: &str) -> String {
        match &tree.get(path).unwrap().kind {
            NodeKind::File(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn accounts_become_files() {
        let tree = declared("[[user]]\nname='kontor-netd'\nid=201\n[[group]]\nname='tty'\nid=5").unwrap();
        assert_eq!(
            text(&tree, "etc/passwd"),
            "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\n\
             kontor-netd:x:201:201:kontor-netd:/nonexistent:/usr/sbin/nologin\n"
        );
        assert_eq!(text(&tree, "etc/group"), "root:x:0:\nkontor-netd:x:201:\ntty:x:5:\n");
    }

    #[test]
    fn files_are_joined_in_path_order_and_gone() {
        let tree = declared("[[join]]\npath='/etc/bundle'\nsources='usr/share/ca/*.crt'").unwrap();
        assert_eq!(text(&tree, "etc/bundle"), "A\nB\n");
        assert!(tree.get("usr/share/ca/a.crt").is_none());
        let error = declared("[[join]]\npath='/x'\nsources='none/*'").err().unwrap();
        assert_eq!(error.to_string(), "/x: nothing matches none/*");
    }

    #[test]
    fn programs_get_their_names() {
        let tree = declared("[[multi-call]]\nprogram='/usr/bin/busybox'\ndirectory='/usr/bin'\nnames=['ls']")
            .unwrap();
        assert_eq!(tree.get("usr/bin/ls").unwrap().kind, NodeKind::Symlink("/usr/bin/busybox".to_owned()));
        assert!(declared("[[multi-call]]\nprogram='/usr/bin/toybox'\ndirectory='/x'\nnames=[]").is_err());
    }

    #[test]
    fn owners_must_be_declared() {
        let error = declared("[[directory]]\npath='/x'\nowner='nobody'").err().unwrap();
        assert_eq!(error.to_string(), "owner \"nobody\" is not a declared user");
    }

    #[test]
    fn the_repositorys_own_base_is_valid() {
        let base = BaseFile::load(&Workspace::locate().base().join("base.toml")).unwrap();
        assert_eq!(base.user_id("_chrony").unwrap(), 204);
    }
}

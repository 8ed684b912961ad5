//! A component's EROFS file, written in two layers: what comes out of packages, and over it what is declared.
//!
//! Compressing packages takes seconds, and they rarely change: the first layer is a step of its own. The second, some
//! kilobytes, is appended to a copy of it whenever the declaration changes. The file's bytes depend on the component's
//! tree and on which of its files are packages', never on what an earlier build has left.

use std::collections::HashSet;
use std::io::Write;

use anyhow::{Context, Result};
use camino::Utf8Path;
use sha2::{Digest, Sha256};

use super::{Builder, EROFS_COMPRESSION, IMAGE, Source, VERSION};
use crate::image::step::Key;
use crate::image::tree::{IMPLIED, Tree};
use crate::image::{archive, disk, process};

/// The component's tree in two.
#[derive(Debug, Default)]
struct Layers {
    packages: Tree,
    declared: Tree,
}

impl Layers {
    fn of(tree: &Tree, packages: &HashSet<&str>) -> Result<Self> {
        let mut layers = Self::default();
        for (path, node) in tree.iter().filter(|(_, node)| node.origin != IMPLIED) {
            let is_package = packages.contains(node.origin.as_str());
            let layer = if is_package { &mut layers.packages } else { &mut layers.declared };
            layer.insert(path, node.clone())?;
        }
        layers.packages.complete()?;
        layers.declared.take_parents(tree);
        Ok(layers)
    }
}

impl Builder<'_> {
    /// Writes the component's tree to `image`, by way of the step `component-NAME-packages`.
    pub(super) fn write(&self, source: &Source, tree: &Tree, image: &Utf8Path) -> Result<()> {
        let names = source.packages.iter().map(|package| package.name.as_str()).collect();
        let layers = Layers::of(tree, &names)?;
        let step = format!("component-{}-packages", source.name());
        let first = self.steps.result(&step, &self.packages_key(source, &layers.packages)?, |out| {
            self.mkfs(source, &layers.packages, "--clean=data", &out.join(IMAGE))
        })?;
        let first = first.join(IMAGE);
        std::fs::copy(&first, image).with_context(|| format!("cannot copy {first} to {image}"))?;
        self.mkfs(source, &layers.declared, "--incremental=data", image)
    }

    /// By content: whatever decides which file of which package is in the layer, and as what.
    fn packages_key(&self, source: &Source, packages: &Tree) -> Result<Key> {
        let mut content = Sum(Sha256::new());
        archive::write_tar(packages, self.epoch_s, &mut content)?;
        let key = Key::new("component packages", VERSION).with(self.tools.root().as_str());
        let key = key.with(source.name()).with(EROFS_COMPRESSION).with(self.epoch_s.to_le_bytes());
        Ok(key.with(content.0.finalize()))
    }

    fn mkfs(&self, source: &Source, tree: &Tree, mode: &str, image: &Utf8Path) -> Result<()> {
        let uuid = disk::named_guid(&format!("component {}", source.name())).to_string().to_lowercase();
        let mut command = self.tools.command("mkfs.erofs")?;
        command.args(["--quiet", "--tar=f", mode, "-z", EROFS_COMPRESSION, "-U", &uuid]);
        command.args(["-T", &self.epoch_s.to_string(), image.as_str()]);
        // Its scratch file is as large as the tree: /tmp may be small, or TMPDIR not be there.
        command.env("TMPDIR", image.parent().context("an image has a folder")?);
        process::run_fed(command, |input| archive::write_tar(tree, self.epoch_s, input)).map(drop)
    }
}

/// A hash as something that is written to.
struct Sum(Sha256);

impl Write for Sum {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tree::{Node, NodeKind};

    fn tree() -> Tree {
        let mut tree = Tree::default();
        for (path, origin) in [("/usr/bin/smbd", "samba"), ("/etc/krb5.conf", "base.toml")] {
            tree.insert(path, Node::file(path.as_bytes(), 0o644, origin)).unwrap();
        }
        for path in ["/var/lib/samba", "/usr"] {
            tree.insert(path, Node::new(NodeKind::Dir, 0o755, "samba")).unwrap();
        }
        tree.declare_dir("/var/lib/samba", Node::new(NodeKind::Dir, 0o700, "base.toml")).unwrap();
        tree.complete().unwrap();
        tree
    }

    fn paths(tree: &Tree) -> Vec<&str> {
        tree.iter().map(|(path, _)| path).collect()
    }

    #[test]
    fn what_is_declared_is_in_the_second_layer_with_its_parents() {
        let layers = Layers::of(&tree(), &HashSet::from(["samba"])).unwrap();
        assert_eq!(paths(&layers.packages), ["usr", "usr/bin", "usr/bin/smbd"]);
        assert_eq!(paths(&layers.declared), ["etc", "etc/krb5.conf", "var", "var/lib", "var/lib/samba"]);
        assert_eq!(layers.declared.get("var/lib/samba").unwrap().mode, 0o700);
    }

    #[test]
    fn an_edit_of_the_declaration_leaves_the_first_layer_alone() {
        let mut edited = tree();
        edited.insert("/usr/bin/hello", Node::file(&b"x"[..], 0o755, "base.toml")).unwrap();
        let [before, after] =
            [tree(), edited].map(|tree| Layers::of(&tree, &HashSet::from(["samba"])).unwrap());
        assert_eq!(paths(&before.packages), paths(&after.packages));
        assert!(paths(&after.declared).starts_with(&[
            "etc",
            "etc/krb5.conf",
            "usr",
            "usr/bin",
            "usr/bin/hello"
        ]));
    }
}

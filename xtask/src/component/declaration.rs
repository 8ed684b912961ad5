//! `rootfs/NAME/component.toml`: how a component's root is made, and how it runs.
//!
//! One file, two readers: the builder takes what it is made of, the box what it is told to run. The box's part goes into
//! the image as it stands here.

use anyhow::{Context, Result, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use kontor_component::Manifest;

use crate::image::declaration::BaseFile;
use crate::workspace::Workspace;

/// The file's name in a component's folder.
pub const FILE: &str = "component.toml";
/// The keys that the box reads; all others are the builder's.
const RUN_TIME: [&str; 12] = [
    "schema",
    "name",
    "memory-mib",
    "processes",
    "state-version",
    "migration",
    "state",
    "meeting",
    "service",
    "port",
    "command",
    "backup",
];

/// A validated declaration.
#[derive(Debug)]
pub struct Declaration {
    /// How its root is made.
    pub root: BaseFile,
    /// Where files that it names are.
    pub files: Utf8PathBuf,
    /// How it runs.
    pub manifest: Manifest,
    /// The same, as the image holds it.
    pub manifest_text: String,
}

impl Declaration {
    /// Reads the declaration of a component.
    ///
    /// # Errors
    /// When there is no such component, or its file is not valid.
    pub fn load(name: &str, workspace: &Workspace) -> Result<Self> {
        let folder = workspace.root().join("rootfs").join(name);
        let path = folder.join(FILE);
        ensure!(
            path.is_file(),
            "there is no component {name:?}; rootfs/ has {}",
            known(workspace)?.join(", ")
        );
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let declaration = Self::parse(&text, folder.join("files")).with_context(|| path.to_string())?;
        ensure!(declaration.manifest.name == name, "{path}: name must be that of the folder, {name:?}");
        Ok(declaration)
    }

    fn parse(text: &str, files: Utf8PathBuf) -> Result<Self> {
        let mut build: toml::Table = toml::from_str(text)?;
        let taken = RUN_TIME.iter().filter_map(|key| build.remove_entry(*key));
        let run: toml::Table = taken.collect();
        let manifest_text = toml::to_string(&run)?;
        Ok(Self {
            root: BaseFile::from_table(build)?,
            files,
            manifest: Manifest::parse(&manifest_text)?,
            manifest_text,
        })
    }
}

/// The components there are.
fn known(workspace: &Workspace) -> Result<Vec<String>> {
    let rootfs = workspace.root().join("rootfs");
    let folders = rootfs.read_dir_utf8().with_context(|| format!("cannot read {rootfs}"))?.flatten();
    let mut names: Vec<String> = folders
        .filter(|folder| folder.path().join(FILE).is_file())
        .map(|folder| folder.file_name().to_owned())
        .collect();
    if names.is_empty() {
        bail!("{rootfs} has no component");
    }
    names.sort();
    Ok(names)
}

/// Where the files of a declaration come from.
pub fn sources(declaration: &Declaration) -> impl Iterator<Item = Utf8PathBuf> {
    let named = declaration.root.file.iter().filter_map(|file| file.source.as_deref());
    named.map(|source| declaration.files.join(Utf8Path::new(source)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kontor_component::Protocol;
    use kontor_config::{Board, Site};

    use super::*;

    const BUILD: &str = "packages = {}\nunpack.drop = []\n";
    const RUN: &str = "schema = 1\nname = 'x'\nmemory-mib = 1\nprocesses = 1\n";
    const SERVICE: &str = "[[service]]\nname = 'a'\ncommand = ['/a']\n[[user]]\nname = 'root'\nid = 0\n";

    fn parsed(text: &str) -> Result<Declaration> {
        Declaration::parse(text, Utf8PathBuf::new())
    }

    #[test]
    fn each_reader_gets_its_own_keys() {
        let declaration = parsed(&format!("{RUN}{BUILD}{SERVICE}")).unwrap();
        assert_eq!(declaration.root.user.len(), 1);
        assert_eq!(Manifest::parse(&declaration.manifest_text).unwrap(), declaration.manifest);
        assert!(!declaration.manifest_text.contains("unpack"));
    }

    #[test]
    fn unknown_keys_are_named() {
        let error = format!("{:#}", parsed(&format!("{RUN}{BUILD}colour = 1\n{SERVICE}")).unwrap_err());
        assert!(error.contains("unknown field `colour`"), "{error}");
        let error =
            format!("{:#}", parsed(&format!("{RUN}{BUILD}{SERVICE}[[service]]\nnam = 'b'\n")).unwrap_err());
        assert!(error.contains("unknown field `nam`"), "{error}");
    }

    #[test]
    fn the_repositorys_own_components_are_valid() {
        let workspace = Workspace::locate();
        for name in known(&workspace).unwrap() {
            Declaration::load(&name, &workspace).unwrap();
        }
        let error = Declaration::load("samba4", &workspace).unwrap_err().to_string();
        assert!(error.starts_with("there is no component \"samba4\"; rootfs/ has "), "{error}");
    }

    fn smb_conf(workspace: &Workspace) -> String {
        let read = |path: &str| std::fs::read_to_string(workspace.root().join(path)).unwrap();
        let ports: String = (1..=3).map(|n| format!("[[port]]\nname = \"port{n}\"\n")).collect();
        let board = Board::parse("board.toml", &format!("schema = 1\nname = \"test\"\n{ports}")).unwrap();
        let path = "docs/examples/headquarters.toml";
        let site = Site::parse(path, &read(path), &board).unwrap();
        kontor_samba::smb_conf(&site, site.samba.as_ref().unwrap())
    }

    /// The firewall knows the declaration, Samba its configuration: both must mean the same ports.
    #[test]
    fn sambas_ports_are_those_of_its_configuration() {
        let workspace = Workspace::locate();
        let manifest = Declaration::load("samba", &workspace).unwrap().manifest;
        let open = |role, wanted| -> BTreeSet<u16> {
            let ports = manifest.ports(role);
            ports.filter(|(protocol, _)| *protocol == wanted).map(|(_, port)| port).collect()
        };
        let smb_conf = smb_conf(&workspace);
        let range =
            smb_conf.lines().find_map(|line| line.trim().strip_prefix("rpc server dynamic port range = "));
        let (first, last) = range.unwrap().split_once('-').unwrap();
        let rpc: BTreeSet<u16> = (first.parse().unwrap()..=last.parse().unwrap()).collect();
        for role in ["dc", "rodc"] {
            let tcp = open(role, Protocol::Tcp);
            assert_eq!(tcp.iter().copied().filter(|port| *port >= 49152).collect::<BTreeSet<_>>(), rpc);
            assert!(
                [88, 135, 389, 445, 464, 636, 3268, 3269].iter().all(|port| tcp.contains(port)),
                "{tcp:?}"
            );
            assert_eq!(open(role, Protocol::Udp), [88, 389, 464].into());
        }
        assert_eq!((open("member", Protocol::Tcp), open("member", Protocol::Udp)), ([445].into(), [].into()));
        // dnsd has port 53, and nobody else may ask Samba's DNS service; nobody serves NetBIOS.
        let closed = [53, 137, 138, 139, kontor_samba::DNS_PORT];
        for (role, protocol) in [("dc", Protocol::Tcp), ("dc", Protocol::Udp), ("rodc", Protocol::Tcp)] {
            assert!(open(role, protocol).is_disjoint(&closed.into()));
        }
    }
}

//! The crates that are linked into the firmware's program, as cargo resolves them for it.
//!
//! Crates that only run while compiling (build scripts, procedural macros) leave nothing of theirs on the box and are
//! not listed.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use camino::{Utf8Path, Utf8PathBuf};
use serde::Deserialize;

use super::component::{Component, Kind, Licence, Text, escaped};
use crate::workspace::Workspace;

/// The program's package.
const PROGRAM: &str = "kontor";
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// What cargo is asked: what is linked into the program, and where each crate is.
const TREE: [&str; 11] = [
    "tree",
    "--edges",
    "normal,no-proc-macro",
    "--target",
    TARGET,
    "--prefix",
    "depth",
    "--format",
    "{p}",
    "-p",
    PROGRAM,
];
const METADATA: [&str; 5] = ["metadata", "--format-version", "1", "--filter-platform", TARGET];
/// How the files begin that hold licence texts and notices.
const LICENCE_FILES: [&str; 5] = ["license", "licence", "copying", "notice", "copyright"];
/// Longer files are no licence texts.
const MAX_TEXT: u64 = 256 << 10;

/// A crate's name and version.
type Id = (String, String);

/// What cargo knows of a package.
#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    license_file: Option<Utf8PathBuf>,
    source: Option<String>,
    repository: Option<String>,
    manifest_path: Utf8PathBuf,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

/// The program and everything linked into it; the first one is the program.
///
/// # Errors
/// When cargo fails, or a crate names no licence.
pub(super) fn components(workspace: &Workspace) -> Result<Vec<Component>> {
    // Both only read, and each resolves the workspace anew: at the same time.
    let (tree, metadata) = std::thread::scope(|scope| {
        let tree = scope.spawn(|| cargo(workspace, &TREE));
        let metadata = cargo(workspace, &METADATA);
        (tree.join().unwrap_or_else(|_| Err(anyhow!("running cargo panicked"))), metadata)
    });
    let graph = graph(&tree?)?;
    let metadata: Metadata = serde_json::from_str(&metadata?).context("what `cargo metadata` printed")?;
    let lock_file = workspace.root().join("Cargo.lock");
    let lock = std::fs::read_to_string(&lock_file).with_context(|| format!("cannot read {lock_file}"))?;
    let lock: Lock = toml::from_str(&lock).with_context(|| format!("in {lock_file}"))?;
    let checksums: BTreeMap<Id, Option<String>> =
        lock.package.into_iter().map(|locked| ((locked.name, locked.version), locked.checksum)).collect();
    let mut components = Vec::new();
    for package in metadata.packages {
        let id = (package.name.clone(), package.version.clone());
        if let Some(needs) = graph.get(&id) {
            let checksum = checksums.get(&id).cloned().flatten();
            components.push(component(&package, checksum, needs, workspace.root())?);
        }
    }
    components.sort_by_key(|component| (component.name != PROGRAM, component.purl.clone()));
    Ok(components)
}

/// What the step that makes a document must do again when it changes.
pub(super) fn inputs(workspace: &Workspace) -> Result<Vec<Utf8PathBuf>> {
    let root = workspace.root();
    let mut paths = vec![root.join("Cargo.lock"), root.join("Cargo.toml")];
    let firmware = root.join("firmware");
    for folder in firmware.read_dir_utf8().with_context(|| format!("reading {firmware}"))? {
        let manifest = folder?.path().join("Cargo.toml");
        if manifest.is_file() {
            paths.push(manifest);
        }
    }
    paths.sort();
    Ok(paths)
}

fn cargo(workspace: &Workspace, arguments: &[&str]) -> Result<String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let (first, rest) = arguments.split_first().context("no command for cargo")?;
    let output = Command::new(cargo)
        .current_dir(workspace.root())
        .args([*first, "--locked", "--quiet"])
        .args(rest)
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("cargo {first} failed:\n{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    String::from_utf8(output.stdout).with_context(|| format!("what `cargo {first}` printed"))
}

/// Crate → crates it needs, from `cargo tree --prefix depth`: `2libc v0.2.1 (*)`.
fn graph(tree: &str) -> Result<BTreeMap<Id, BTreeSet<Id>>> {
    let mut graph: BTreeMap<Id, BTreeSet<Id>> = BTreeMap::new();
    let mut path: Vec<Id> = Vec::new();
    for line in tree.lines().filter(|line| !line.is_empty()) {
        let (depth, id) = parse_line(line).with_context(|| format!("`cargo tree` printed {line:?}"))?;
        path.truncate(depth);
        if let Some(parent) = path.last() {
            graph.entry(parent.clone()).or_default().insert(id.clone());
        }
        graph.entry(id.clone()).or_default();
        path.push(id);
    }
    Ok(graph)
}

fn parse_line(line: &str) -> Option<(usize, Id)> {
    let name_at = line.find(|c: char| !c.is_ascii_digit())?;
    let mut words = line[name_at..].split_whitespace();
    let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
    Some((line[..name_at].parse().ok()?, (name.to_owned(), version.to_owned())))
}

fn component(
    package: &Package,
    sha256: Option<String>,
    needs: &BTreeSet<Id>,
    root: &Utf8Path,
) -> Result<Component> {
    let (name, version) = (package.name.as_str(), package.version.as_str());
    let licence = match (&package.license, &package.license_file) {
        // The old way to write OR.
        (Some(licence), _) => Licence::Expression(licence.replace('/', " OR ")),
        (None, Some(file)) => Licence::Name(format!("{name}: {}", file.file_name().unwrap_or_default())),
        (None, None) => bail!("crate {name} {version} names no licence"),
    };
    let directory = package.manifest_path.parent().context("a manifest without a directory")?;
    // Ours have theirs at the root of the repository.
    let directory = if package.source.is_some() { directory } else { root };
    Ok(Component {
        purl: purl(name, version),
        kind: if name == PROGRAM { Kind::Application } else { Kind::Library },
        name: name.to_owned(),
        version: version.to_owned(),
        sha256,
        licences: vec![single(licence)],
        homepage: package.repository.clone(),
        properties: Vec::new(),
        needs: needs.iter().map(|(name, version)| purl(name, version)).collect(),
        texts: texts(directory).with_context(|| format!("licence texts of {name}"))?,
    })
}

/// An expression of one identifier is that identifier.
fn single(licence: Licence) -> Licence {
    match licence {
        Licence::Expression(text) if spdx::license_id(&text).is_some() => Licence::Id(text),
        other => other,
    }
}

fn texts(directory: &Utf8Path) -> Result<Vec<Text>> {
    let mut texts = Vec::new();
    for entry in directory.read_dir_utf8().with_context(|| format!("reading {directory}"))? {
        let entry = entry?;
        let name = entry.file_name().to_ascii_lowercase();
        let wanted = LICENCE_FILES.iter().any(|start| name.starts_with(start));
        let metadata = entry.metadata()?;
        if wanted && metadata.is_file() && metadata.len() <= MAX_TEXT {
            texts.push(Text { name: entry.file_name().to_owned(), bytes: std::fs::read(entry.path())? });
        }
    }
    texts.sort();
    Ok(texts)
}

fn purl(name: &str, version: &str) -> String {
    format!("pkg:cargo/{}@{}", escaped(name), escaped(version))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> Id {
        (name.to_owned(), "1.0.0".to_owned())
    }

    #[test]
    fn the_tree_becomes_a_graph() {
        let tree = "0a v1.0.0 (/src/a)\n1b v1.0.0\n2c v1.0.0\n1c v1.0.0 (*)\n1d v1.0.0\n";
        let graph = graph(tree).unwrap();
        assert_eq!(graph[&id("a")], BTreeSet::from([id("b"), id("c"), id("d")]));
        assert_eq!(graph[&id("b")], BTreeSet::from([id("c")]));
        assert!(graph[&id("c")].is_empty() && graph[&id("d")].is_empty());
        assert!(super::graph("0a\n").unwrap_err().to_string().contains("\"0a\""));
    }

    #[test]
    fn a_crate_without_a_licence_is_an_error() {
        let package = Package {
            name: "a".into(),
            version: "1.0.0".into(),
            license: None,
            license_file: None,
            source: Some("registry".into()),
            repository: None,
            manifest_path: "/nonexistent/Cargo.toml".into(),
        };
        let error = component(&package, None, &BTreeSet::new(), Utf8Path::new("/")).unwrap_err();
        assert_eq!(error.to_string(), "crate a 1.0.0 names no licence");
    }
}

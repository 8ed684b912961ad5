//! Python modules as bytecode.
//!
//! Packages bring sources, and a system that may write compiles each once and keeps the result. A sealed component may
//! not: every program would compile everything it imports, every time. So what is imported lies there compiled, in the
//! place of its source (PEP 3147, "Case 4: legacy pyc files and source-less imports"), by the component's own interpreter.

use std::collections::HashSet;
use std::io::Write;

use anyhow::{Context, Result, bail, ensure};

use crate::image::process;
use crate::image::tree::{Node, NodeKind, Tree};
use crate::tools::Tools;

const PROGRAM: &str = include_str!("bytecode.py");
/// The interpreter imports from `usr/lib/python3.N`, and from `usr/lib/python3` what packages add.
const IMPORTED_FROM: &str = "usr/lib/python3";
const SOURCE: &str = ".py";
/// A length before each field.
const LENGTH: usize = 4;

/// Replaces every module's source in `tree` by its bytecode; `packages` are those of the tree, unpacked.
///
/// # Errors
/// When the interpreter of `packages` cannot be run, or does not do what it is asked to.
pub(super) fn compile(tree: &mut Tree, packages: &Tools) -> Result<()> {
    let Some(interpreter) = interpreter(tree) else { return Ok(()) };
    let modules = modules(tree);
    let sources = tree.take(|path| modules.contains(path));
    let mut command = packages.command(&interpreter)?;
    // What is written depends on hashes of strings (the order in sets) and on nothing else of the environment.
    command.env("PYTHONHOME", packages.path("usr")).env("PYTHONHASHSEED", "0");
    command.args(["-B", "-s", "-S", "-c", PROGRAM]);
    let output = process::run_fed(command, |input| {
        for (path, node) in &sources {
            write_field(input, format!("/{path}").as_bytes())?;
            write_field(input, content(node))?;
        }
        write_field(input, &[])
    })?;
    let mut rest = &output[..];
    for (path, node) in sources {
        let compiled = read_field(&mut rest).with_context(|| format!("the bytecode of /{path}"))?;
        if compiled.is_empty() {
            tree.insert(&path, node)?;
        } else {
            let file = Node { kind: NodeKind::File(compiled.into()), ..node };
            tree.insert(&format!("{path}c"), file)?;
        }
    }
    ensure!(rest.is_empty(), "the compiler of Python modules says {} octets too much", rest.len());
    Ok(())
}

/// `python3.13`: the link `python3` may lead anywhere.
fn interpreter(tree: &Tree) -> Option<String> {
    let program = |path: &str| path.strip_prefix("usr/bin/").map(str::to_owned);
    let mut programs = tree.iter().filter_map(|(path, node)| program(path).filter(|_| !node.is_empty()));
    programs.find(|name| {
        let version = name.strip_prefix("python3.");
        version.is_some_and(|version| version.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

/// Files only; and what a link beside them leads to keeps its name.
fn modules(tree: &Tree) -> HashSet<String> {
    let linked: HashSet<String> = tree
        .iter()
        .filter_map(|(path, node)| match &node.kind {
            NodeKind::Symlink(target) => Some(format!("{}/{target}", path.rsplit_once('/')?.0)),
            _ => None,
        })
        .collect();
    let is_module = |path: &str, node: &Node| {
        let is_source = path.starts_with(IMPORTED_FROM) && path.ends_with(SOURCE);
        is_source && matches!(node.kind, NodeKind::File(_)) && !linked.contains(path)
    };
    tree.iter().filter(|(path, node)| is_module(path, node)).map(|(path, _)| path.to_owned()).collect()
}

fn content(node: &Node) -> &[u8] {
    if let NodeKind::File(bytes) = &node.kind { bytes } else { &[] }
}

fn write_field(output: &mut impl Write, field: &[u8]) -> Result<()> {
    output.write_all(&u32::try_from(field.len())?.to_be_bytes())?;
    Ok(output.write_all(field)?)
}

fn read_field<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8]> {
    let Some((length, after)) = rest.split_first_chunk::<LENGTH>() else { bail!("nothing is said of it") };
    let length = usize::try_from(u32::from_be_bytes(*length))?;
    let (field, after) = after.split_at_checked(length).context("it is cut off")?;
    *rest = after;
    Ok(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(paths: &[&str]) -> Tree {
        let mut tree = Tree::default();
        for path in paths {
            tree.insert(path, Node::file(b"x".to_vec(), 0o644, "test")).unwrap();
        }
        tree
    }

    #[test]
    fn the_interpreter_is_the_one_with_a_version() {
        let with = tree(&["usr/bin/python3.13", "usr/bin/python3.13-config", "usr/bin/pydoc3.13"]);
        assert_eq!(interpreter(&with).as_deref(), Some("python3.13"));
        assert_eq!(interpreter(&tree(&["usr/bin/python3", "usr/bin/smbd"])), None);
    }

    #[test]
    fn modules_are_what_is_imported_and_no_link_leads_to() {
        let imported = ["usr/lib/python3.13/os.py", "usr/lib/python3/dist-packages/samba/ntacls.py"];
        let other = [
            "usr/share/samba/setup/x.py",
            "usr/lib/python3/dist-packages/x.so",
            "usr/lib/python3.13/linked.py",
        ];
        let mut tree = tree(&[&imported[..], &other].concat());
        tree.insert("usr/lib/python3.13/link.py", Node::symlink("linked.py", "test")).unwrap();
        assert_eq!(modules(&tree), HashSet::from(imported.map(str::to_owned)));
    }

    #[test]
    fn fields_have_their_lengths() {
        let mut written = Vec::new();
        write_field(&mut written, b"ab").unwrap();
        write_field(&mut written, b"").unwrap();
        let mut rest = &written[..];
        assert_eq!(read_field(&mut rest).unwrap(), b"ab");
        assert_eq!(read_field(&mut rest).unwrap(), b"");
        assert!(read_field(&mut rest).is_err());
        assert!(read_field(&mut &[0, 0, 0, 9, 1][..]).is_err());
    }
}

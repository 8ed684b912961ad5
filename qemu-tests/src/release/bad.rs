//! Releases that do not work, made of one that does: their slot's initramfs is another one.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use xtask::image::cpio::Writer;
use xtask::image::slot;
use xtask::reproduce::cpio;
use xtask::tools::Tools;

/// The files of a slot.
const FILES: [&str; 3] = ["vmlinuz", "initrd", "manifest.toml"];
/// What takes the place of process 1.
const SABOTEUR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/saboteur/main.rs");

/// What is wrong with a release.
#[derive(Debug, Clone, Copy)]
pub enum Fault<'a> {
    /// The kernel finds no program to start.
    NoInit,
    /// Process 1 ends at once.
    InitExits,
    /// No module can be loaded from the moment the base is there: there is neither a disk nor a network.
    NoModules,
    /// Root runs this script from the moment the base is there.
    Script(&'a str),
}

/// The slot image in `folder` with this fault; the new image.
pub(super) fn slot_with(
    image: &Utf8Path,
    fault: Fault<'_>,
    folder: &Utf8Path,
    tools: &Tools,
) -> Result<Utf8PathBuf> {
    fs::create_dir_all(folder)?;
    let mut files: Vec<(&str, Vec<u8>)> = Vec::new();
    for name in FILES {
        let path = folder.join(name);
        let mut command = tools.command("debugfs")?;
        command.args(["-R", &format!("dump /{name} {path}"), image.as_str()]);
        let output = command.output().context("debugfs")?;
        ensure!(output.status.success(), "debugfs: {}", String::from_utf8_lossy(&output.stderr));
        files.push((name, fs::read(&path).with_context(|| path.to_string())?));
    }
    let initrd = &mut files[1].1;
    match fault {
        Fault::NoInit => initrd.truncate(1 << 20),
        Fault::InitExits => sabotage(initrd, "exit", folder)?,
        Fault::NoModules => sabotage(initrd, "no modules", folder)?,
        Fault::Script(script) => sabotage(initrd, script, folder)?,
    }
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    let size_mib = fs::metadata(image)?.len() >> 20;
    slot::make(folder, size_mib, &files, 0, tools)?;
    Ok(folder.join("slot.img"))
}

/// A second archive behind the first: the kernel unpacks one after the other.
fn sabotage(initrd: &mut Vec<u8>, script: &str, folder: &Utf8Path) -> Result<()> {
    let program = cpio::entries(initrd)?.into_iter().find(|entry| entry.name == "init");
    let program = program.context("the initramfs has no init")?.content.to_vec();
    let mut archive = Writer::new(0);
    archive.file("program", 0o755, &program);
    archive.file("init", 0o755, &saboteur(folder)?);
    archive.file("sabotage", 0o644, script.as_bytes());
    initrd.extend(archive.finish());
    Ok(())
}

/// Compiled statically, as nothing is there when it starts.
fn saboteur(folder: &Utf8Path) -> Result<Vec<u8>> {
    let program = folder.join("saboteur");
    let mut command = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    command.args(["--edition=2024", "-O", "-Cstrip=symbols", "-Ctarget-feature=+crt-static", "-o"]);
    let output = command.arg(&program).arg(SABOTEUR).output().context("rustc")?;
    ensure!(output.status.success(), "rustc: {}", String::from_utf8_lossy(&output.stderr));
    fs::read(&program).with_context(|| program.to_string())
}

//! The firmware's one program, built by cargo as a static executable without a trace of this machine's paths.

use std::process::Command;

use anyhow::{Context, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};

use crate::workspace::Workspace;

const TARGET: &str = "x86_64-unknown-linux-gnu";
/// The profile in the workspace's Cargo.toml, and so the directory's name.
const PROFILE: &str = "firmware";

/// Builds `kontor` and returns its path. Cargo decides what has to be done; its output is shown on failure only.
///
/// # Errors
/// When it does not compile.
pub fn build(workspace: &Workspace) -> Result<Utf8PathBuf> {
    cargo(workspace, "build", &[])?;
    Ok(path(workspace))
}

/// Where [`build`] puts it.
#[must_use]
pub fn path(workspace: &Workspace) -> Utf8PathBuf {
    target(workspace).join(TARGET).join(PROFILE).join("kontor")
}

/// Links `kontor` once more, with its symbols, into `output`; what [`build`] made stays as it is. Only the program's own
/// crate is compiled again.
///
/// # Errors
/// When it does not compile.
pub fn link_with_symbols(workspace: &Workspace, output: &Utf8Path) -> Result<()> {
    cargo(workspace, "rustc", &["--bin", "kontor", "--", "-Cstrip=none", &format!("--emit=link={output}")])
}

/// Links `kontor` with a feature that is for tests alone into `output`; what [`build`] made stays as it is.
///
/// # Errors
/// When it does not compile.
pub fn link_with_feature(workspace: &Workspace, feature: &str, output: &Utf8Path) -> Result<()> {
    let emit = format!("--emit=link={output}");
    cargo(workspace, "rustc", &["--bin", "kontor", "--features", feature, "--", &emit])
}

fn target(workspace: &Workspace) -> Utf8PathBuf {
    workspace.target().join("firmware")
}

fn cargo(workspace: &Workspace, subcommand: &str, more: &[&str]) -> Result<()> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(workspace.root()).arg(subcommand);
    command.args(["--quiet", "--locked", "--package", "kontor", "--profile", PROFILE, "--target", TARGET]);
    command.arg("--target-dir").arg(target(workspace)).args(more);
    for (name, _) in std::env::vars_os().filter(|(name, _)| changes_the_program(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    command.env("CARGO_ENCODED_RUSTFLAGS", flags(workspace)?.join("\u{1f}"));
    let output = command.output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("the firmware does not compile:\n{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(())
}

/// Settings of this machine that must not reach the program.
fn changes_the_program(variable: &str) -> bool {
    const PREFIXES: [&str; 4] = ["CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_", "CARGO_UNSTABLE_"];
    const NAMES: [&str; 6] =
        ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_INCREMENTAL", "CFLAGS", "CXXFLAGS"];
    // How many compilers run at once changes nothing but the time.
    let harmless = variable == "CARGO_BUILD_JOBS";
    !harmless && (NAMES.contains(&variable) || PREFIXES.iter().any(|prefix| variable.starts_with(prefix)))
}

fn flags(workspace: &Workspace) -> Result<Vec<String>> {
    // Every start of it works through its relocations: packed they are a hundredth of the size (ELF gABI, SHT_RELR).
    let mut flags = ["-Ctarget-feature=+crt-static", "-Clink-arg=-Wl,-z,pack-relative-relocs"]
        .map(str::to_owned)
        .to_vec();
    flags.push(format!("--remap-path-prefix={}=/kontor", workspace.root()));
    if let Some(home) = cargo_home() {
        flags.push(format!("--remap-path-prefix={home}=/cargo"));
    }
    let sysroot = asked(&["--print", "sysroot"])?;
    flags.extend(library_flag(sysroot.trim().into(), &asked(&["--version", "--verbose"])?));
    Ok(flags)
}

/// With the component rust-src (rust-analyzer brings it) generic code of the standard library is traced to where it is
/// installed; without it, to the name it was compiled under. It is always to be the latter.
fn library_flag(sysroot: &Utf8Path, version: &str) -> Option<String> {
    let sources = sysroot.join("lib/rustlib/src/rust");
    // The file by which rustc itself decides.
    sources.join("library/std/src/lib.rs").is_file().then_some(())?;
    let commit = version.lines().find_map(|line| line.strip_prefix("commit-hash: "))?;
    Some(format!("--remap-path-prefix={sources}=/rustc/{commit}"))
}

fn asked(question: &[&str]) -> Result<String> {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let mut command = Command::new(rustc);
    command.args(question);
    Ok(String::from_utf8_lossy(&super::process::run(command)?).into_owned())
}

/// Cargo's home as cargo finds it, which asks the user's account when `HOME` is not set.
#[must_use]
pub fn cargo_home() -> Option<Utf8PathBuf> {
    let given = std::env::var("CARGO_HOME").ok().filter(|home| !home.is_empty());
    let default = || Some(Utf8PathBuf::from_path_buf(std::env::home_dir()?).ok()?.join(".cargo"));
    given.map(Utf8PathBuf::from).or_else(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_librarys_sources_leave_no_trace() {
        let scratch = tempfile::tempdir().unwrap();
        let sysroot = Utf8Path::from_path(scratch.path()).unwrap();
        let version = "rustc 1.95.0\nbinary: rustc\ncommit-hash: 5980\nhost: x\n";
        assert_eq!(library_flag(sysroot, version), None);
        let std = sysroot.join("lib/rustlib/src/rust/library/std/src");
        std::fs::create_dir_all(&std).unwrap();
        std::fs::write(std.join("lib.rs"), "").unwrap();
        let expected = format!("--remap-path-prefix={sysroot}/lib/rustlib/src/rust=/rustc/5980");
        assert_eq!(library_flag(sysroot, version), Some(expected));
    }

    #[test]
    fn settings_of_this_machine_stay_out() {
        for variable in
            ["RUSTFLAGS", "CARGO_PROFILE_FIRMWARE_OPT_LEVEL", "CARGO_BUILD_RUSTFLAGS", "CARGO_TARGET_DIR"]
        {
            assert!(changes_the_program(variable), "{variable}");
        }
        for variable in ["PATH", "CARGO_HOME", "CARGO_BUILD_JOBS", "CARGO_NET_OFFLINE"] {
            assert!(!changes_the_program(variable), "{variable}");
        }
    }
}

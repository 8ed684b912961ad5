//! The firmware's one program, built by cargo as a static executable without a trace of this machine's paths.

use std::process::Command;

use anyhow::{Context, Result, bail};
use camino::Utf8PathBuf;

use crate::workspace::Workspace;

const TARGET: &str = "x86_64-unknown-linux-gnu";
/// The profile in the workspace's Cargo.toml, and so the directory's name.
const PROFILE: &str = "firmware";

/// Builds `kontor` and returns its path. Cargo decides what has to be done; its output is shown on failure only.
///
/// # Errors
/// When it does not compile.
pub fn build(workspace: &Workspace) -> Result<Utf8PathBuf> {
    let target = workspace.target().join("firmware");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(workspace.root());
    command.args([
        "build",
        "--quiet",
        "--locked",
        "--package",
        "kontor",
        "--profile",
        PROFILE,
        "--target",
        TARGET,
    ]);
    command.arg("--target-dir").arg(&target);
    // Settings of this machine must not change the program.
    for variable in ["RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR", "RUSTC_WRAPPER"] {
        command.env_remove(variable);
    }
    command.env("CARGO_ENCODED_RUSTFLAGS", flags(workspace).join("\u{1f}"));
    let output = command.output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("the firmware does not compile:\n{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(target.join(TARGET).join(PROFILE).join("kontor"))
}

fn flags(workspace: &Workspace) -> Vec<String> {
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    flags.push(format!("--remap-path-prefix={}=/kontor", workspace.root()));
    let home =
        std::env::var("CARGO_HOME").ok().or_else(|| Some(format!("{}/.cargo", std::env::var("HOME").ok()?)));
    if let Some(home) = home {
        flags.push(format!("--remap-path-prefix={home}=/cargo"));
    }
    flags
}

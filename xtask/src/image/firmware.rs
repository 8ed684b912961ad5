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
    for (name, _) in std::env::vars_os().filter(|(name, _)| changes_the_program(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    command.env("CARGO_ENCODED_RUSTFLAGS", flags(workspace).join("\u{1f}"));
    let output = command.output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("the firmware does not compile:\n{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(target.join(TARGET).join(PROFILE).join("kontor"))
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

fn flags(workspace: &Workspace) -> Vec<String> {
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    flags.push(format!("--remap-path-prefix={}=/kontor", workspace.root()));
    if let Some(home) = cargo_home() {
        flags.push(format!("--remap-path-prefix={home}=/cargo"));
    }
    flags
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

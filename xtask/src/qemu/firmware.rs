//! Boot firmware of a virtual machine, and where the tool set keeps it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{Args, escape};
use crate::tools::Tools;

/// Boot firmware of a virtual machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Firmware {
    /// BIOS.
    SeaBios,
    /// UEFI.
    Ovmf {
        /// The firmware itself, read-only.
        code: PathBuf,
        /// This machine's own copy of the variable store.
        variables: PathBuf,
    },
}

impl Firmware {
    /// UEFI with a fresh variable store in `directory`.
    ///
    /// # Errors
    /// When the tool set has no OVMF, or the copy fails.
    pub fn ovmf(tools: &Tools, directory: &Path) -> Result<Self> {
        let share = tools.root().join("usr/share/OVMF");
        let code = share.join("OVMF_CODE_4M.fd");
        let template = share.join("OVMF_VARS_4M.fd");
        let variables = directory.join("ovmf-variables.fd");
        if !code.exists() {
            bail!("the tool set has no OVMF ({} is missing)", code);
        }
        let content = fs::read(&template).with_context(|| format!("read {template}"))?;
        fs::write(&variables, content).with_context(|| format!("write {}", variables.display()))?;
        Ok(Self::Ovmf { code: code.into(), variables })
    }

    pub(super) fn push_args(&self, args: &mut Args) {
        if let Self::Ovmf { code, variables } = self {
            let (code, variables) = (escape(code), escape(variables));
            args.pair("-drive", format!("if=pflash,unit=0,format=raw,readonly=on,file={code}"));
            args.pair("-drive", format!("if=pflash,unit=1,format=raw,file={variables}"));
        }
    }
}

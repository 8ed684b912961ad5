//! KVM or emulation.
//!
//! That `/dev/kvm` can be opened proves nothing: nested, it may create a machine and then never run it. So a
//! real tiny guest decides.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::tools::Tools;

/// How guest code is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// By the processor.
    Kvm,
    /// By translation.
    Tcg,
}

/// Chooses for child processes of `cargo xtask test`, so that each need not probe again.
pub const VARIABLE: &str = "KONTOR_ACCEL";

/// A working KVM runs the probe in well under half a second; a broken one never ends.
const PROBE_LIMIT: Duration = Duration::from_secs(2);

/// What the probe's guest writes to the exit device, and the exit status QEMU makes of it.
const PROBE_VALUE: u8 = 0x10;
const PROBE_STATUS: i32 = ((PROBE_VALUE as i32) << 1) | 1;

impl Accel {
    /// KVM if a guest runs under it, else TCG. `KONTOR_ACCEL=kvm|tcg` decides without a probe.
    ///
    /// # Errors
    /// When the variable has another value, or QEMU cannot be started at all.
    pub fn detect(tools: &Tools) -> Result<Self> {
        if let Some(wish) = std::env::var_os(VARIABLE) {
            return Self::named(&wish.to_string_lossy());
        }
        let openable = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
        if openable && probe(tools)? { Ok(Self::Kvm) } else { Ok(Self::Tcg) }
    }

    fn named(name: &str) -> Result<Self> {
        let known = [Self::Kvm, Self::Tcg];
        known.into_iter().find(|accel| accel.name() == name).with_context(|| {
            let names = known.map(Self::name).join(" or ");
            format!("{VARIABLE} is {name:?}; it may be {names}, or not be set")
        })
    }

    /// The value of [`VARIABLE`].
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    pub(super) fn argument(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg,thread=multi",
        }
    }

    pub(super) fn cpu(self) -> &'static str {
        match self {
            Self::Kvm => "host",
            Self::Tcg => TCG_CPU,
        }
    }
}

/// What TCG can do (RDRAND, AES: no waiting for entropy), without what costs it much and changes nothing the box does:
/// five-level page tables, string moves byte by byte, and a switch of the memory's view around every copy to or from
/// a process. Measured to the first lease: a tenth less time than `max`; `qemu64` and older models take more.
const TCG_CPU: &str = "max,la57=off,smap=off,erms=off,fsrm=off,fzrm=off,fsrs=off";

fn probe(tools: &Tools) -> Result<bool> {
    let directory = tempfile::tempdir().context("scratch directory of the KVM probe")?;
    let image = directory.path().join("probe.img");
    fs::write(&image, boot_sector()).context("write the KVM probe")?;
    let mut child = probe_command(tools, &image)?.spawn().context("start QEMU for the KVM probe")?;
    let deadline = Instant::now() + PROBE_LIMIT;
    // The probe's output is a pipe that only QEMU holds: its end of file is QEMU's end.
    let output = child.stdout.take().context("output of the KVM probe")?;
    let ended = wait_for_hangup(&output, deadline);
    if !ended {
        child.kill().context("end the KVM probe")?;
    }
    let status = child.wait().context("wait for the KVM probe")?;
    Ok(ended && status.code() == Some(PROBE_STATUS))
}

fn probe_command(tools: &Tools, image: &Path) -> Result<Command> {
    let mut command = tools.command("qemu-system-x86_64")?;
    let drive = format!("format=raw,readonly=on,file={}", super::escape(image));
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35"]);
    command.args(["-accel", "kvm", "-cpu", "host", "-m", "32M"]);
    command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-drive", &drive]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    Ok(command)
}

/// A boot sector that writes [`PROBE_VALUE`] to the exit device.
fn boot_sector() -> [u8; 512] {
    let mut sector = [0; 512];
    let code = [
        0xba,
        0xf4,
        0x00, // mov dx, 0xf4
        0xb0,
        PROBE_VALUE, // mov al, PROBE_VALUE
        0xee,        // out dx, al
        0xf4,        // hlt
        0xeb,
        0xfd, // jmp to the hlt
    ];
    sector[..code.len()].copy_from_slice(&code);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

fn wait_for_hangup(output: &impl std::os::fd::AsFd, deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(output.as_fd(), PollFlags::empty())];
        match poll(&mut fds, timeout) {
            Err(nix::errno::Errno::EINTR) => {}
            Ok(0) | Err(_) => return false,
            Ok(_) => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_wish_is_an_error_that_names_the_right_ones() {
        assert_eq!(Accel::named("kvm").unwrap(), Accel::Kvm);
        assert_eq!(Accel::named("tcg").unwrap(), Accel::Tcg);
        for wrong in ["KVM", "", "tgc"] {
            let error = Accel::named(wrong).unwrap_err().to_string();
            assert_eq!(error, format!("KONTOR_ACCEL is {wrong:?}; it may be kvm or tcg, or not be set"));
        }
    }
}

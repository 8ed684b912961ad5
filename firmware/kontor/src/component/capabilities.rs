//! What root may in a component: as little as the manifest says, and no more than this machine gives.

use std::fs;
use std::io;

use kontor_component::Manifest;
use kontor_sys::spawn::Capability;

/// What this process may pass on: a container may have less than root of a machine has (proc_pid_status(5), `CapPrm`).
fn permitted() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(u64::MAX)
}

/// # Errors
/// When this machine has less to give than is asked for.
pub(super) fn capabilities(wanted: &[kontor_component::Capability]) -> io::Result<Vec<Capability>> {
    let capabilities: Vec<Capability> = wanted.iter().map(capability).collect();
    let permitted = permitted();
    match capabilities.iter().find(|one| permitted & (1 << (**one as u32)) == 0) {
        Some(missing) => Err(io::Error::other(format!("this machine withholds {missing:?} even from root"))),
        None => Ok(capabilities),
    }
}

/// What tools of a component may at most: what any of its services may.
pub(super) fn capabilities_of_tools(manifest: &Manifest) -> io::Result<Vec<Capability>> {
    let mut wanted: Vec<_> =
        manifest.service.iter().flat_map(|service| service.capability.iter().copied()).collect();
    wanted.sort_unstable_by_key(|one| *one as u8);
    wanted.dedup();
    capabilities(&wanted)
}

fn capability(wanted: &kontor_component::Capability) -> Capability {
    use kontor_component::Capability as Wanted;
    match wanted {
        Wanted::Chown => Capability::Chown,
        Wanted::DacOverride => Capability::DacOverride,
        Wanted::Fowner => Capability::Fowner,
        Wanted::Fsetid => Capability::Fsetid,
        Wanted::Kill => Capability::Kill,
        Wanted::NetBindService => Capability::NetBindService,
        Wanted::Setgid => Capability::Setgid,
        Wanted::Setuid => Capability::Setuid,
        Wanted::SysChroot => Capability::SysChroot,
        Wanted::SysNice => Capability::SysNice,
        Wanted::SysResource => Capability::SysResource,
    }
}

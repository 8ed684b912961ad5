//! Memory in each role: a domain controller at headquarters, and at a branch first a read-only one, then a member, which join it
//! over a line. One sample each: what processes map varies little.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};
use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};

use super::{BOX, PASSWORD, Rig, SITE, pss_of_tree};
use crate::archive::cache::FetchOptions;
use crate::command::component::{ip, office_network, peers, read_site};

const BRANCH: Ipv4Addr = Ipv4Addr::new(192, 168, 78, 1);
const ADMINISTRATOR: &str = "Administrator";

/// By role: PSS of all processes in KiB, after somebody has logged on.
///
/// # Errors
/// When one of them does not come up, or does not join.
pub(super) fn measure(rig: &Rig, fetch: &FetchOptions) -> Result<Value> {
    let at_headquarters = File::open("/proc/self/ns/net")?;
    let _names = rig.start_names(&rig.folder)?;
    let (headquarters, _) = rig.up(rig.start_ours()?, BOX)?;
    rig.wait_for_log_on(&headquarters, BOX)?;
    rig.samba_tool(&["user", "setpassword", ADMINISTRATOR, &format!("--newpassword={PASSWORD}")])?;
    let branches = ["rodc", "member"].map(|role| prepare(rig, role).map(|folder| (role, folder)));
    let branches = branches.into_iter().collect::<Result<Vec<_>>>()?;
    leave_for_branch(&branches[0].1, &at_headquarters, fetch)?;
    let mut figures = serde_json::Map::new();
    for (role, folder) in branches {
        let measured = joined_pss_kib(rig, &folder).with_context(|| format!("role {role}"))?;
        figures.insert(role.to_owned(), json!(measured));
    }
    setns(&at_headquarters, CloneFlags::CLONE_NEWNET)?;
    figures.insert("dc".to_owned(), json!(pss_of_tree(headquarters.child.id())?));
    Ok(figures.into())
}

/// What a branch in this role needs; its folder. Each is another computer of the domain.
fn prepare(rig: &Rig, role: &str) -> Result<Utf8PathBuf> {
    let folder = rig.folder.join(role);
    fs::create_dir_all(&folder)?;
    let table = SITE.replace("role = \"dc\"", &format!("role = {role:?}\nservers = [\"{BOX}\"]"));
    let site = kontor_config::Site::default_text()
        .replace("\"kontor\"", &format!("\"branch-{role}\""))
        .replace("\"office.internal\"", "\"branch.internal\"")
        .replace("192.168.77.", "192.168.78.");
    fs::write(folder.join("site.toml"), format!("{site}{table}"))?;
    fs::copy(rig.folder.join("board.toml"), folder.join("board.toml"))?;
    fs::write(folder.join("join"), format!("{ADMINISTRATOR}\n{PASSWORD}\n"))?;
    Ok(folder)
}

/// Takes this process to a network for the branch, in which the cable of headquarters' LAN ends.
fn leave_for_branch(folder: &Utf8Path, headquarters: &File, fetch: &FetchOptions) -> Result<()> {
    let tools = peers(fetch)?;
    office_network(&read_site(&folder.join("site.toml"), &folder.join("board.toml"))?, fetch)?;
    let branch = File::open("/proc/self/ns/net")?;
    setns(headquarters, CloneFlags::CLONE_NEWNET)?;
    let there = format!("/proc/{}/fd/{}", std::process::id(), branch.as_raw_fd());
    // The branch has one of that name as well.
    ip(&tools, &format!("link set cable0 netns {there} name line"))?;
    ip(&tools, "route add 192.168.78.0/24 via 192.168.77.2")?;
    setns(&branch, CloneFlags::CLONE_NEWNET)?;
    ip(&tools, "link set line up")?;
    ip(&tools, "address add 192.168.77.2/24 dev line")
}

fn joined_pss_kib(rig: &Rig, folder: &Utf8Path) -> Result<f64> {
    let _names = rig.start_names(folder)?;
    let (mut running, _) = rig.up(rig.start_component(folder)?, BRANCH)?;
    rig.wait_for_log_on(&running, BRANCH)?;
    let pss_kib = pss_of_tree(running.child.id());
    running.stop()?;
    pss_kib
}

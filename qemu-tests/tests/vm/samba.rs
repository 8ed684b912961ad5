//! The component samba on the box: sealed, beside the gateway, and never in its way.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use qemu_tests::console::site_with_root_shell;
use qemu_tests::{BoxOptions, World};

use crate::disk_faults::status_says;
use crate::office::Office;
use crate::scene::Scene;

/// A domain is made, or served again, by emulation beside another machine.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(1200);
const BOX: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
pub(crate) const SMB_3_1_1: u16 = 0x0311;
/// Far enough in the image to be a program's, and before the file system may have put it into pieces.
const FLIPPED_AT: u64 = (1 << 20) + 1234;
/// Relative identifier of a new domain's first account but for the built-in ones: the domain controller's.
const OWN_ACCOUNT: u32 = 1000;
/// Of the domain, once it is added.
pub(crate) const USER: &str = "anna";
pub(crate) const PASSWORD: &str = "Correct-Horse-7";
pub(crate) const SAMBA: &str = r#"
[samba]
role = "dc"
realm = "ad.office.internal"
domain = "OFFICE"
[[samba.share]]
name = "team"
write = ["Domain Users"]
previous-versions = true
[[samba.share]]
name = "small"
write = ["Domain Users"]
quota = "16 MiB"
"#;
/// More than the share `small` may take.
const LARGE_MIB: u32 = 24;

/// Of a box that is to be a domain controller, with a root shell.
pub(crate) fn site() -> String {
    format!("{}\n{SAMBA}", site_with_root_shell())
}

/// A box with that site.
pub(crate) fn options() -> BoxOptions {
    BoxOptions { memory_mib: 1024, site: Some(site()), ..BoxOptions::default() }
}

/// Waits in the box, so that asking costs it little.
pub(crate) fn wait_until_up(scene: &Scene, world: &mut World) -> Result<()> {
    let state = "kontor ctl status | grep '^samba ' | grep -q ' running '";
    let line = format!("until {state}; do sleep 3; done");
    if let Err(error) = scene.shell_within(world, &line, START_LIMIT) {
        let said = scene.shell(world, "kontor ctl status; kontor ctl logs samba -n 60")?;
        return Err(error.context(said));
    }
    Ok(())
}

/// Runs a line in the root shell that must succeed; what it printed.
pub(crate) fn shell(scene: &Scene, world: &mut World, line: &str) -> Result<String> {
    let said = scene.shell_within(world, &format!("{line}; echo \"rc $?\""), START_LIMIT)?;
    ensure!(said.contains("rc 0"), "{line}: {said}");
    Ok(said)
}

/// Somebody with a file to keep.
pub(crate) fn add_user(scene: &Scene, world: &mut World) -> Result<()> {
    shell(scene, world, &format!("kontor ctl samba user add {USER} {PASSWORD}")).map(drop)
}

/// A domain is made while the office is served; PCs find the file server; killed, and after a power cut, it is back.
pub(crate) fn domain_controller(world: &mut World) -> Result<()> {
    let scene = Scene::open_with_site(world, &options())?;
    scene.still_serves(world)?;
    wait_until_up(&scene, world)?;
    speaks_smb(&scene, world)?;
    add_user(&scene, world)?;
    previous_versions(&scene, world)?;
    a_share_has_its_limit(&scene, world)?;
    world.eventually(START_LIMIT, |world| world.signed_time(scene.office.pc, BOX, OWN_ACCOUNT))?;
    let used = scene.shell(world, "cat /sys/fs/cgroup/kontor/samba/memory.current")?;
    println!("samba in a machine: {} bytes of memory", used.trim());

    shell(&scene, world, "kill -9 $(grep -l '^samba: root process' /proc/[0-9]*/cmdline | cut -d / -f 3)")?;
    scene.wait_for_log(world, "samba", "ready again after", 0)?;
    speaks_smb(&scene, world)?;
    scene.still_serves(world)?;
    scene.no_zombies(world)?;

    let gateway = scene.office.gateway;
    world.vm(gateway).power_cut()?;
    world.power_on(gateway)?;
    world.wait_until_ready(gateway)?;
    scene.enter_shell(world)?;
    wait_until_up(&scene, world)?;
    speaks_smb(&scene, world)?;
    let users = shell(&scene, world, "kontor ctl samba user list")?;
    ensure!(users.lines().any(|user| user.trim() == USER), "{users}");
    is_off_without_its_table(&scene, world)
}

/// A site file without `[samba]` stops it and closes its ports; nothing else notices.
fn is_off_without_its_table(scene: &Scene, world: &mut World) -> Result<()> {
    shell(scene, world, "kontor ctl site show | sed '/^\\[samba]/,$d' >/tmp/site.toml")?;
    shell(scene, world, "kontor ctl site load /tmp/site.toml")?;
    world.eventually(START_LIMIT, |world| {
        let status = scene.shell(world, "kontor ctl status | grep '^samba '")?;
        ensure!(status.contains("off: the site file has no [samba]"), "{status}");
        Ok(())
    })?;
    let refused = world.smb_dialect(scene.office.pc, BOX);
    ensure!(refused.is_err(), "the file server still answers: {refused:?}");
    let log = scene.shell(world, "kontor ctl logs samba")?;
    ensure!(!log.contains("did not end within"), "{log}");
    scene.still_serves(world)
}

/// What a PC of the office is offered.
pub(crate) fn speaks_smb(scene: &Scene, world: &mut World) -> Result<()> {
    let dialect = world.eventually(START_LIMIT, |world| world.smb_dialect(scene.office.pc, BOX))?;
    ensure!(dialect == SMB_3_1_1, "it speaks {dialect:#06x}");
    Ok(())
}

/// A file is overwritten after a snapshot: the version before is listed and read.
fn previous_versions(scene: &Scene, world: &mut World) -> Result<()> {
    world.eventually(START_LIMIT, |world| smbclient(scene, world, "put /etc/os-release note"))?;
    shell(scene, world, "kontor ctl samba snapshot")?;
    smbclient(scene, world, "put /etc/protocols note")?;
    let listed = smbclient(scene, world, "allinfo note")?;
    let version = listed.lines().map(str::trim).find(|line| line.starts_with("@GMT-"));
    let version = version.with_context(|| format!("no previous version: {listed}"))?;
    let old = smbclient(scene, world, &format!("get {version}/note -"))?;
    ensure!(old.contains("VERSION_CODENAME"), "the version of {version} is another: {old}");
    Ok(())
}

/// A client that writes more is told, and the other share takes it.
fn a_share_has_its_limit(scene: &Scene, world: &mut World) -> Result<()> {
    let large = "/data/component/samba/backup/large";
    shell(scene, world, &format!("dd if=/dev/zero of={large} bs=1M count={LARGE_MIB}"))?;
    let put = "put /var/backup/large large";
    let refused = scene.shell(world, &client("small", put))?;
    ensure!(refused.contains("NT_STATUS_DISK_FULL"), "{refused}");
    smbclient(scene, world, &format!("{put}; rm large"))?;
    shell(scene, world, &format!("rm {large}")).map(drop)
}

/// A PC's program, in the component, that must succeed.
pub(crate) fn smbclient(scene: &Scene, world: &mut World, commands: &str) -> Result<String> {
    shell(scene, world, &client("team", commands))
}

/// The same that may fail; what it said.
pub(crate) fn smbclient_says(scene: &Scene, world: &mut World, commands: &str) -> Result<String> {
    scene.shell(world, &client("team", commands))
}

fn client(share: &str, commands: &str) -> String {
    format!("kontor ctl samba smbclient //127.0.0.1/{share} -U {USER}%{PASSWORD} -c '{commands}'")
}

/// One byte of the image is another one: it does not start, the box says so and goes on.
pub(crate) fn flipped_byte(world: &mut World) -> Result<()> {
    let office = Office::prepare(world, &options())?;
    world.vm(office.gateway).disk()?.flip_in_component(FLIPPED_AT)?;
    world.power_on(office.gateway)?;
    world.wait_until_ready(office.gateway)?;
    world.wait_for_lease(office.pc, Office::LEASE_LIMIT)?;
    world.log_in(office.gateway)?;
    status_says(world, &office, "is damaged: it is not the image of this release")?;
    office.wait_until_online(world)?;
    let log = world.run(office.gateway, "logs samba")?;
    ensure!(!log.contains("making the domain"), "it was started: {log}");
    Ok(())
}

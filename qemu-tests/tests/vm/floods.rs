//! Daemons that write, fork and fill without end.

use anyhow::{Context, Result, ensure};
use qemu_tests::{BoxOptions, World};

use crate::process_faults::first_of;
use crate::scene::{BACK_LIMIT, Scene};

/// A daemon that writes as fast as it can stalls neither itself nor process 1, and what is dropped is counted.
pub(crate) fn log(world: &mut World) -> Result<()> {
    let scene = Scene::open(world, BoxOptions::default())?;
    let pid = first_of("dhcpd");
    let flood = format!(
        "(i=0; while [ $i -lt 30000 ]; do echo 'a line of a flood'; i=$((i+1)); done) > /proc/{pid}/fd/2 &"
    );
    scene.shell(world, &flood)?;
    scene.still_serves(world)?;
    let line = scene.wait_for_log(world, "dhcpd", "lines dropped", 0)?;
    println!("log flood: {line}");
    scene.still_serves(world)?;
    println!("process 1: {}", scene.shell(world, "grep VmRSS /proc/1/status")?.trim());
    scene.no_zombies(world)
}

/// Whatever a daemon started and hid behind a double fork ends with it.
pub(crate) fn double_fork(world: &mut World) -> Result<()> {
    let scene = Scene::open(world, BoxOptions::default())?;
    let enter = "echo $$ > /sys/fs/cgroup/kontor/dnsd/cgroup.procs";
    scene
        .shell(world, &format!("sh -c '{enter}; busybox setsid sh -c \"sleep 54321 & sleep 54322 &\" &'"))?;
    let hidden = "cat /proc/[0-9]*/cmdline | tr '\\0' '_' | grep -c 'sleep_543[2]'";
    world.eventually(BACK_LIMIT, |world| {
        let count = scene.shell(world, hidden)?;
        ensure!(count.trim() == "1", "the sleepers are not there: {count}");
        Ok(())
    })?;
    scene.shell(world, &format!("kill -9 {}", first_of("dnsd")))?;
    scene.wait_for_recovery(world, "double fork", "dnsd")?;
    world.eventually(BACK_LIMIT, |world| {
        let count = scene.shell(world, hidden)?;
        ensure!(count.trim() == "0", "still there: {count}");
        Ok(())
    })?;
    scene.no_zombies(world)?;
    scene.still_serves(world)
}

/// Every file system in RAM full, in bytes or in files: the gateway goes on, and is restarted at will.
pub(crate) fn full_file_systems(world: &mut World) -> Result<()> {
    let scene = Scene::open(world, BoxOptions { memory_mib: 256, ..BoxOptions::default() })?;
    for directory in ["/run", "/tmp", "/var", "/dev/shm", "/run/kontor/dnsd", "/run/kontor/netd"] {
        // Not in the shell's own group, whose limit is less than all of them together.
        let fill = format!(
            "sh -c 'echo $$ > /sys/fs/cgroup/cgroup.procs; dd if=/dev/zero of={directory}/fill bs=64k'; df {directory}"
        );
        let said = scene.shell(world, &fill)?;
        ensure!(said.contains("No space left"), "{directory} has no end: {said}");
        println!("filled {directory}: {}", said.lines().last().unwrap_or_default());
    }
    scene.still_serves(world).context("all full")?;
    scene.shell(world, &format!("kill -9 {}", first_of("dhcpd")))?;
    scene.wait_for_recovery(world, "file systems full", "dhcpd")?;
    scene.still_serves(world).context("all full, dhcpd restarted")?;
    let many = "i=0; while echo > /tmp/f$i; do i=$((i+1)); done 2>/dev/null; echo $i files";
    scene.shell(world, "rm /tmp/fill")?;
    println!("files in /tmp: {}", scene.shell(world, many)?.trim());
    scene.still_serves(world).context("no more files in /tmp")
}

//! What a hostile cupboard does to the processes of a box: it takes their memory, kills, stops and floods them.

use anyhow::{Context, Result, ensure};
use qemu_tests::{BoxOptions, PcOptions, World};

use crate::office::Office;
use crate::scene::{BACK_LIMIT, Scene};

/// Shell text: the first process of a service's group, its main one.
pub(crate) fn first_of(service: &str) -> String {
    format!("$(head -n 1 /sys/fs/cgroup/kontor/{service}/cgroup.procs)")
}

/// What runs beside each other on two processors finds more races.
fn busy_machine() -> BoxOptions {
    BoxOptions { processors: 2, ..BoxOptions::default() }
}

pub(crate) fn every_daemon_killed(world: &mut World) -> Result<()> {
    let scene = Scene::open(world, busy_machine())?;
    for service in ["netd", "dhcpd", "dnsd", "timed", "modules", "console-tty0"] {
        scene.shell(world, &format!("kill -9 {}", first_of(service)))?;
        world.echo(scene.connection, service.as_bytes())?;
        scene.wait_for_recovery(world, "SIGKILL", service)?;
        scene.still_serves(world).with_context(|| format!("after {service} was killed"))?;
    }
    // timed's child: timed cannot do without it, and both come back.
    scene.shell(world, "kill -9 $(tail -n 1 /sys/fs/cgroup/kontor/timed/cgroup.procs)")?;
    let line = scene.wait_for_log(world, "timed", "ready again after", 1)?;
    println!("SIGKILL of chronyd: {line}");
    scene.no_zombies(world)?;
    let one = scene.shell(world, "cat /proc/1/comm")?;
    ensure!(one.trim() == "kontor", "process 1 is {one}");

    // The console this test sits on: the next one asks for a log-in again.
    let gateway = scene.office.gateway;
    world.vm(gateway).serial.send(&format!("kill -9 {}\r", first_of("console-ttyS0")))?;
    scene.enter_shell(world)?;
    scene.wait_for_recovery(world, "SIGKILL", "console-ttyS0")?;
    scene.no_zombies(world)?;
    scene.still_serves(world)
}

pub(crate) fn stopped_daemons(world: &mut World) -> Result<()> {
    let scene = Scene::open(world, busy_machine())?;
    let services = ["netd", "dhcpd", "dnsd", "timed", "modules", "console-tty0"];
    for service in services {
        scene.shell(world, &format!("kill -STOP {}", first_of(service)))?;
    }
    world.echo(scene.connection, b"while they stand still")?;
    for service in services {
        let line = scene.wait_for_log(world, service, "no sign of life", 0)?;
        println!("SIGSTOP: {line}");
        scene.wait_for_recovery(world, "SIGSTOP", service)?;
    }
    scene.still_serves(world)?;
    scene.no_zombies(world)
}

pub(crate) fn little_memory(world: &mut World) -> Result<()> {
    let scene = Scene::open(world, BoxOptions { memory_mib: 192, ..BoxOptions::default() })?;
    println!("192 MB at rest:\n{}", scene.shell(world, "head -n 5 /proc/meminfo")?);
    // Load: an office of PCs, many names, and pages through the gateway.
    for number in 0..20 {
        let mac = [2, 0, 0, 0, 1, number];
        let pc = world.add_pc(scene.office.lan, &PcOptions { mac, name: None });
        world.wait_for_lease(pc, Office::LEASE_LIMIT)?;
    }
    let web = world.isp(scene.office.isp).options.web_server;
    for _ in 0..40 {
        world.echo(scene.connection, &[0x5a; 60_000])?;
    }
    for number in 0..300 {
        let name = format!("name-{number}.example.net");
        world.isp(scene.office.isp).names.add(&name, web, 300);
        world.resolve(scene.office.pc, &name)?;
    }
    scene.still_serves(world)?;
    println!("192 MB after load:\n{}", scene.shell(world, "head -n 5 /proc/meminfo")?);
    for service in ["netd", "dhcpd", "dnsd", "timed", "modules", "console-ttyS0", "storage", "site"] {
        let file = |name: &str| format!("/sys/fs/cgroup/kontor/{service}/{name}");
        let line = format!(
            "echo $(cat {} {} {}) $(grep oom_kill {})",
            file("memory.peak"),
            file("memory.current"),
            file("memory.max"),
            file("memory.events")
        );
        let said = scene.shell(world, &line)?;
        println!("{service}: peak, now, limit: {}", said.trim());
        ensure!(said.contains("oom_kill 0"), "{service} was killed: {said}");
    }
    let killed = scene.shell(world, "dmesg | grep -ci 'out of memory'")?;
    ensure!(killed.trim() == "0", "the kernel killed for want of memory: {killed}");
    Ok(())
}

pub(crate) fn fork_bomb(world: &mut World) -> Result<()> {
    let scene = Scene::open(world, busy_machine())?;
    let bomb = |group: &str| {
        format!(
            "sh -c 'echo $$ > /sys/fs/cgroup/kontor/{group}/cgroup.procs; b() {{ b | b & }}; b' 2>/dev/null &"
        )
    };
    for service in ["dnsd", "netd"] {
        scene.shell(world, &bomb(service))?;
        let line = scene.wait_for_log(world, service, "more than", 0)?;
        println!("fork bomb: {line}");
        scene.wait_for_recovery(world, "fork bomb", service)?;
        scene.still_serves(world)?;
    }
    // An operator's own: it ends with its shell, and the console goes on.
    let gateway = scene.office.gateway;
    world.vm(gateway).serial.send(&format!("{}\r", bomb("shell")))?;
    world.expect(gateway, "kontor> ", BACK_LIMIT)?;
    scene.still_serves(world)?;
    world.open_shell(gateway)?;
    let errors = scene.shell(world, "kontor ctl status --json")?;
    ensure!(errors.contains("root shell: more than"), "{errors}");
    scene.no_zombies(world)
}

pub(crate) fn memory_hog(world: &mut World) -> Result<()> {
    let scene = Scene::open(world, busy_machine())?;
    let hog = |group: &str| {
        format!(
            "sh -c 'echo $$ > /sys/fs/cgroup/kontor/{group}/cgroup.procs; x=xxxxxxxx; while :; do x=$x$x; done' &"
        )
    };
    for service in ["dhcpd", "dnsd"] {
        scene.shell(world, &hog(service))?;
        let line = scene.wait_for_log(world, service, "killed: out of its memory limit of", 0)?;
        println!("memory hog: {line}");
        scene.wait_for_recovery(world, "memory hog", service)?;
        scene.still_serves(world)?;
    }
    let gateway = scene.office.gateway;
    world.vm(gateway).serial.send(&format!("{}\r", hog("shell")))?;
    world.expect(gateway, "kontor> ", BACK_LIMIT)?;
    scene.still_serves(world)?;
    world.open_shell(gateway)?;
    scene.no_zombies(world)
}

//! A working office with a root shell on its gateway: where faults are made, and what must go on meanwhile.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use qemu_tests::console::site_with_root_shell;
use qemu_tests::traffic::Connection;
use qemu_tests::{BoxOptions, PcOptions, World};

use crate::office::Office;

/// For a daemon to be back, on a machine that runs by emulation beside others.
pub(crate) const BACK_LIMIT: Duration = Duration::from_secs(120);
/// The longest recovery that is not a fault, in the guest's own time: a second is the aim, which is printed;
/// the rest is room for emulation on a loaded machine.
const SANE_RECOVERY_MS: u64 = 10_000;
const ECHO_PORT: u16 = 7;
const KEEPER: [u8; 6] = [2, 0, 0, 0, 0, 0xb0];

/// An office that works, with a connection through the gateway and a root shell on its console.
pub(crate) struct Scene {
    pub(crate) office: Office,
    pub(crate) connection: Connection,
}

impl Scene {
    /// A box with these options, but a site with a root shell.
    pub(crate) fn open(world: &mut World, options: BoxOptions) -> Result<Self> {
        Self::open_with_site(world, &BoxOptions { site: Some(site_with_root_shell()), ..options })
    }

    /// The same with the site of these options, which must allow a root shell.
    pub(crate) fn open_with_site(world: &mut World, options: &BoxOptions) -> Result<Self> {
        let office = Office::boot(world, options)?;
        let scene = Self::of(world, office)?;
        scene.enter_shell(world)?;
        Ok(scene)
    }

    /// Of an office whose box is ready; nobody is logged in.
    pub(crate) fn of(world: &mut World, office: Office) -> Result<Self> {
        world.wait_for_lease(office.pc, Office::LEASE_LIMIT)?;
        if let Err(error) = office.wait_until_online(world) {
            world.log_in(office.gateway)?;
            let said = world.run(office.gateway, "logs netd -n 60")?;
            return Err(error.context(format!("netd said: {said}")));
        }
        // A second PC keeps the connection: the first one gives its address up now and then.
        let keeper = world.add_pc(office.lan, &PcOptions { mac: KEEPER, name: None });
        world.wait_for_lease(keeper, Office::LEASE_LIMIT)?;
        let web = world.isp(office.isp).options.web_server;
        let connection = world.connect(keeper, web, ECHO_PORT)?;
        Ok(Self { office, connection })
    }

    /// Logs in and opens the root shell.
    pub(crate) fn enter_shell(&self, world: &mut World) -> Result<()> {
        world.log_in(self.office.gateway)?;
        world.open_shell(self.office.gateway)
    }

    /// Runs one line in the root shell; what it printed.
    pub(crate) fn shell(&self, world: &mut World, line: &str) -> Result<String> {
        world.shell(self.office.gateway, line)
    }

    /// The same of a line that may take so long.
    pub(crate) fn shell_within(&self, world: &mut World, line: &str, limit: Duration) -> Result<String> {
        world.shell_within(self.office.gateway, line, limit)
    }

    /// Leases, names, and the connection from before the fault.
    pub(crate) fn still_serves(&self, world: &mut World) -> Result<()> {
        let lease = world.pc(self.office.pc).lease().context("the PC has no lease")?.clone();
        let before = lease.address;
        world.echo(self.connection, b"through the gateway")?;
        let domain = lease.domain().context("the lease names no domain")?;
        let name = format!("{}.{domain}", Office::PC_NAME);
        let known = world.eventually(BACK_LIMIT, |world| world.resolve(self.office.pc, &name))?;
        ensure!(known == before.address(), "{name} is {known}, and the PC {before}");
        world.pc(self.office.pc).restart_dhcp();
        let again = world.wait_for_lease(self.office.pc, BACK_LIMIT)?;
        ensure!(again.address == before, "{before} became {}", again.address);
        world.echo(self.connection, b"and again")?;
        let web = world.isp(self.office.isp).options.web_server;
        world.eventually(BACK_LIMIT, |world| world.ping(self.office.pc, web))
    }

    /// Waits until the log of `service` has a line with `pattern` after the last `seen`; how many there are.
    pub(crate) fn wait_for_log(
        &self,
        world: &mut World,
        service: &str,
        pattern: &str,
        seen: usize,
    ) -> Result<String> {
        self.wait_for_log_within(world, BACK_LIMIT, service, pattern, seen)
    }

    /// The same for what takes its time.
    pub(crate) fn wait_for_log_within(
        &self,
        world: &mut World,
        limit: Duration,
        service: &str,
        pattern: &str,
        seen: usize,
    ) -> Result<String> {
        let lines = format!("kontor ctl logs {service} -n 2000 | grep");
        // The box waits by itself: asked again and again through its console, it would do little else.
        let wait =
            format!("until [ $({lines} -c '{pattern}') -gt {seen} ]; do sleep 1; done; {lines} '{pattern}'");
        world.eventually(limit, |world| {
            let log = self.shell_within(world, &wait, limit)?;
            let mut found = log.lines().filter(|line| line.contains(pattern));
            let line =
                found.nth(seen).with_context(|| format!("no {pattern:?} in the log of {service}:\n{log}"));
            line.map(str::to_owned)
        })
    }

    /// Waits until `service` has failed for `reason` and is back; prints how long it was away.
    pub(crate) fn wait_for_recovery(&self, world: &mut World, what: &str, service: &str) -> Result<()> {
        let line = self.wait_for_log(world, service, "ready again after", 0)?;
        let number = line.rsplit_once("after ").and_then(|(_, rest)| rest.split(' ').next());
        let away_ms: u64 = number.and_then(|number| number.parse().ok()).with_context(|| line.clone())?;
        println!("{what}: {service} ready again after {away_ms} ms of guest time");
        ensure!(away_ms < SANE_RECOVERY_MS, "{service} was away for {away_ms} ms");
        Ok(())
    }

    /// No process waits to be reaped for ever.
    pub(crate) fn no_zombies(&self, world: &mut World) -> Result<()> {
        world.eventually(BACK_LIMIT, |world| {
            let zombies = self.shell(world, "cat /proc/[0-9]*/stat 2>/dev/null | grep ') Z '")?;
            ensure!(zombies.trim().is_empty(), "zombies: {zombies}");
            Ok(())
        })
    }
}

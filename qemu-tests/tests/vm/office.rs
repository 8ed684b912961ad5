//! One office: a provider, a box, a PC; and what survives when the box goes away.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use qemu_tests::console::BOOT_LIMIT;
use qemu_tests::{BoxId, BoxOptions, IspId, IspOptions, PcId, PcOptions, WireId, World};

/// The office that nearly every test needs.
#[derive(Debug)]
pub(crate) struct Office {
    pub(crate) wan: WireId,
    pub(crate) lan: WireId,
    pub(crate) isp: IspId,
    pub(crate) gateway: BoxId,
    pub(crate) pc: PcId,
    /// What the console said when the gateway was up.
    pub(crate) ready: String,
}

impl Office {
    /// Far longer than any orderly end takes: nobody presses twice who sees that it works.
    const PRESS_AGAIN: Duration = Duration::from_secs(30);
    pub(crate) const LEASE_LIMIT: Duration = Duration::from_secs(60);
    pub(crate) const PC_NAME: &str = "anna";

    /// Everything in place, the box off.
    pub(crate) fn prepare(world: &mut World, options: &BoxOptions) -> Result<Self> {
        Self::prepare_with(world, options, IspOptions::default())
    }

    fn prepare_with(world: &mut World, options: &BoxOptions, isp: IspOptions) -> Result<Self> {
        let wan = world.add_wire("wan")?;
        let isp = world.add_isp(wan, isp)?;
        Self::prepare_behind(world, (wan, isp), "gateway", &[], options)
    }

    /// An office behind a provider that is there already; its box's ports after the first two are on `further`.
    pub(crate) fn prepare_behind(
        world: &mut World,
        (wan, isp): (WireId, IspId),
        name: &str,
        further: &[WireId],
        options: &BoxOptions,
    ) -> Result<Self> {
        let lan = world.add_wire(&format!("{name}-lan"))?;
        let gateway = world.prepare_box(name, &[&[wan, lan], further].concat(), options)?;
        let pc = world.add_pc(lan, &PcOptions { mac: [2, 0, 0, 0, 0, 0xa1], name: Some(Self::PC_NAME) });
        Ok(Self { wan, lan, isp, gateway, pc, ready: String::new() })
    }

    /// The box switched on and ready.
    pub(crate) fn boot(world: &mut World, options: &BoxOptions) -> Result<Self> {
        Self::boot_with(world, options, IspOptions::default())
    }

    /// The same behind another provider.
    pub(crate) fn boot_with(world: &mut World, options: &BoxOptions, isp: IspOptions) -> Result<Self> {
        let mut office = Self::prepare_with(world, options, isp)?;
        world.power_on(office.gateway)?;
        office.ready = world.wait_until_ready(office.gateway)?;
        Ok(office)
    }

    /// The box ready, the PC with a lease, the Internet reachable.
    pub(crate) fn open(world: &mut World) -> Result<Self> {
        let office = Self::boot(world, &BoxOptions::default())?;
        world.wait_for_lease(office.pc, Self::LEASE_LIMIT)?;
        office.wait_until_online(world)?;
        Ok(office)
    }

    /// The web server answers the PC.
    pub(crate) fn wait_until_online(&self, world: &mut World) -> Result<()> {
        let web = world.isp(self.isp).options.web_server;
        world.eventually(Self::LEASE_LIMIT, |world| world.fetch(self.pc, web, "/"))?;
        Ok(())
    }

    /// By the power button.
    pub(crate) fn power_off_in_order(&self, world: &mut World, limit: Duration) -> Result<()> {
        // A press before the button's driver is loaded is lost; people press again.
        let ended = world.eventually(limit, |world| {
            if let Some(ended) = world.vm(self.gateway).ended()? {
                return Ok(ended);
            }
            world.vm(self.gateway).qmp()?.system_powerdown()?;
            world.wait_for("an orderly power-off", Self::PRESS_AGAIN, |world| world.vm(self.gateway).ended())
        })?;
        ensure!(ended.success(), "QEMU ended with {ended}");
        Ok(())
    }

    /// After a restart: the PC has not asked again, and the box knows the address it gave it.
    pub(crate) fn ensure_lease_is_known(&self, world: &mut World) -> Result<()> {
        let lease = world.pc(self.pc).lease().context("the PC has no lease")?.clone();
        ensure_lease_is_known(world, self, lease.address.address())
    }

    /// Leases given from now on survive a power cut.
    pub(crate) fn wait_until_durable(&self, world: &mut World) -> Result<()> {
        world.log_in(self.gateway)?;
        self.is_durable(world)
    }

    /// The same, with the operator logged in.
    pub(crate) fn is_durable(&self, world: &mut World) -> Result<()> {
        self.wait_for_durable(world, |world| world.run(self.gateway, "leases --json"))
    }

    /// The same, in a root shell that is open already.
    pub(crate) fn wait_until_durable_in_shell(&self, world: &mut World) -> Result<()> {
        self.wait_for_durable(world, |world| world.shell(self.gateway, "kontor ctl leases --json"))
    }

    fn wait_for_durable(&self, world: &mut World, ask: impl Fn(&mut World) -> Result<String>) -> Result<()> {
        world.eventually(BOOT_LIMIT, |world| {
            let leases = ask(world)?;
            let compact: String = leases.split_whitespace().collect();
            ensure!(compact.contains("\"durable\":true"), "leases are not durable: {leases}");
            Ok(())
        })
    }
}

pub(crate) fn page_through_nat(world: &mut World) -> Result<()> {
    let office = Office::boot(world, &BoxOptions::default())?;
    let lease = world.wait_for_lease(office.pc, Office::LEASE_LIMIT)?;
    ensure!(lease.router.is_some_and(|router| router.octets() == [192, 168, 77, 1]), "{lease:?}");
    ensure!(lease.domain().as_deref() == Some("office.internal"), "{lease:?}");
    office.wait_until_online(world)?;

    let web = world.isp(office.isp).options.web_server;
    let body = vec![0x5a; 500_000];
    world.isp(office.isp).web.pages.insert("/large".into(), body.clone());
    let page = world.fetch(office.pc, web, "/large")?;
    ensure!(page.status == 200 && page.body == body, "status {}, {} bytes", page.status, page.body.len());

    let wan_mac = world.vm(office.gateway).macs[0];
    let isp = world.isp(office.isp);
    let wan_address = *isp.dhcp.bound.get(&wan_mac).context("the box has no lease of the provider")?;
    let request = isp.web.requests.last().context("no request")?;
    ensure!(request.peer.addr == wan_address.into(), "{} was not translated to {wan_address}", request.peer);
    world.ping(office.pc, web)
}

pub(crate) fn leases_survive_a_reboot(world: &mut World) -> Result<()> {
    let office = Office::boot(world, &BoxOptions::default())?;
    office.wait_until_durable(world)?;
    let before = world.wait_for_lease(office.pc, Office::LEASE_LIMIT)?;
    world.vm(office.gateway).serial.send("reboot\r")?;
    world.wait_until_ready(office.gateway)?;
    ensure_lease_is_known(world, &office, before.address.address())
}

pub(crate) fn leases_survive_a_power_cut(world: &mut World) -> Result<()> {
    let office = Office::boot(world, &BoxOptions::default())?;
    office.wait_until_durable(world)?;
    // A lease acknowledged now; the power goes the moment the acknowledgement is here.
    world.pc(office.pc).restart_dhcp();
    let before = world.wait_for_lease(office.pc, Office::LEASE_LIMIT)?;
    world.vm(office.gateway).power_cut()?;
    world.power_on(office.gateway)?;
    world.wait_until_ready(office.gateway)?;
    ensure_lease_is_known(world, &office, before.address.address())
}

/// The PC has not asked again: what the box knows now, it knew before.
fn ensure_lease_is_known(world: &mut World, office: &Office, address: std::net::Ipv4Addr) -> Result<()> {
    let name = format!("{}.office.internal", Office::PC_NAME);
    let known = world.eventually(Office::LEASE_LIMIT, |world| world.resolve(office.pc, &name))?;
    ensure!(known == address, "{name} was {address}, is {known}");
    let second = world.add_pc(office.lan, &PcOptions { mac: [2, 0, 0, 0, 0, 0xa2], name: None });
    let lease = world.wait_for_lease(second, Office::LEASE_LIMIT)?;
    ensure!(lease.address.address() != address, "{address} was given twice");
    world.pc(office.pc).restart_dhcp();
    let again = world.wait_for_lease(office.pc, Office::LEASE_LIMIT)?;
    ensure!(again.address.address() == address, "{address} became {}", again.address);
    Ok(())
}

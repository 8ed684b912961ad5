//! What real clients do.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use qemu_tests::namespace::{cover, replace};

use super::office::{BOX, Office};

type Scenario = fn(&Office) -> Result<()>;

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    ("busybox-udhcpc-gets-a-lease", udhcpc),
    ("dhcpcd-gets-a-lease", dhcpcd),
    ("dig-asks-by-udp-and-tcp", dig),
];

fn udhcpc(office: &Office) -> Result<()> {
    let hook = office.hook()?;
    let arguments =
        ["udhcpc", "-i", "eth0", "-f", "-q", "-n", "-t", "10", "-T", "2", "-x", "hostname:bert", "-s", &hook];
    let output = office.run("busybox", &arguments)?;
    ensure!(output.status.success(), "udhcpc: {}", String::from_utf8_lossy(&output.stderr));
    let told = office.told("bound")?;
    let address = told.get("ip").cloned().unwrap_or_default();
    ensure!(is_pool_address(&address), "not an address of the pool: {told:?}");
    for (key, expect) in [("router", BOX), ("dns", BOX), ("domain", "office.internal"), ("mask", "24")] {
        ensure!(told.get(key).map(String::as_str) == Some(expect), "{key} is not {expect}: {told:?}");
    }
    office.set_client_address(&address)?;
    name_resolves(office, "bert.office.internal", &address)
}

fn dhcpcd(office: &Office) -> Result<()> {
    // dhcpcd insists on its places, and on its user if there is one.
    cover(Path::new("/run"))?;
    cover(Path::new(if Path::new("/var/lib/dhcpcd").exists() { "/var/lib/dhcpcd" } else { "/var/lib" }))?;
    fs::create_dir_all("/run/dhcpcd")?;
    fs::create_dir_all("/var/lib/dhcpcd")?;
    let passwd = office.directory().join("passwd");
    fs::write(&passwd, "root:x:0:0:root:/:/bin/false\n")?;
    replace(Path::new("/etc/passwd"), &passwd)?;

    let config = office.directory().join("dhcpcd.conf");
    fs::write(&config, "option routers, domain_name_servers, domain_name, ntp_servers\nnoarp\n")?;
    let (hook, config) = (office.hook()?, config.display().to_string());
    let arguments = ["-4", "-1", "-B", "-d", "-t", "30", "-h", "carla", "-f", &config, "-c", &hook, "eth0"];
    let output = office.run("dhcpcd", &arguments)?;
    ensure!(output.status.success(), "dhcpcd: {}", String::from_utf8_lossy(&output.stderr));
    let told = office.told("BOUND")?;
    let address = told.get("new_ip_address").cloned().unwrap_or_default();
    ensure!(is_pool_address(&address), "not an address of the pool: {told:?}");
    for (key, expect) in
        [("new_routers", BOX), ("new_domain_name_servers", BOX), ("new_domain_name", "office.internal")]
    {
        ensure!(told.get(key).map(String::as_str) == Some(expect), "{key} is not {expect}: {told:?}");
    }
    name_resolves(office, "carla.office.internal", &address)
}

fn dig(office: &Office) -> Result<()> {
    office.set_client_address("192.168.77.20")?;
    name_resolves(office, "nas.office.internal", "192.168.77.5")?;
    ensure!(office.dig(&["kontor.office.internal"])? == BOX);
    let full = office.run("dig", &["+time=5", "+tries=1", &format!("@{BOX}"), "nobody.office.internal"])?;
    let text = String::from_utf8_lossy(&full.stdout).into_owned();
    ensure!(text.contains("status: NXDOMAIN"), "an unknown name: {text}");
    Ok(())
}

fn name_resolves(office: &Office, name: &str, address: &str) -> Result<()> {
    for transport in ["+notcp", "+tcp"] {
        let forward = office.dig(&[transport, name])?;
        ensure!(forward == address, "{name} by {transport} is {forward}, not {address}");
        let reverse = office.dig(&[transport, "-x", address])?;
        ensure!(reverse == format!("{name}."), "{address} by {transport} is {reverse}, not {name}");
    }
    Ok(())
}

fn is_pool_address(address: &str) -> bool {
    let last = address.strip_prefix("192.168.77.").and_then(|last| last.parse::<u8>().ok());
    last.is_some_and(|last| (100..=199).contains(&last))
}

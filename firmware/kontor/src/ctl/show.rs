//! Status as text: pure functions, the same for `ctl` and the console.

use std::time::{Duration, UNIX_EPOCH};

use kontor_status::{
    InitStatus, LeaseState, NetStatus, ResetStatus, ServiceState, SiteOrigin, SlotStatus, StorageStatus,
    WanState,
};

use super::snapshot::Snapshot;
use super::table::{Table, duration, plain, plain_lines};
use super::tunnels;
use crate::calendar::utc;
use crate::install;

/// Errors shown in the overview; all of them are in the logs.
const ERRORS_SHOWN: usize = 5;

/// Everything at a glance. `uptime` is left out where the text is compared with an earlier one.
pub(crate) fn overview(snapshot: &Snapshot, with_counters: bool) -> String {
    let mut text = format!("Kontor {}\n", plain(&headline(snapshot, with_counters)));
    text.push_str(&line("Office", &office(snapshot)));
    if let Some(net) = &snapshot.net {
        text.push_str(&networks(net));
    }
    text.push_str(&line("Internet", &internet(snapshot.net.as_ref())));
    for peer in tunnels::lines(snapshot) {
        text.push_str(&line("Tunnel", &peer));
    }
    if let Some(dhcp) = &snapshot.dhcp {
        let durable = if dhcp.durable { "" } else { " (in RAM only: no data disk)" };
        text.push_str(&line("Leases", &format!("{}{durable}", dhcp.leases.len())));
    }
    if let (Some(dns), true) = (&snapshot.dns, with_counters) {
        let hits = dns.cache_hits.saturating_mul(100).checked_div(dns.queries).unwrap_or(0);
        text.push_str(&line("Names", &format!("{} queries, {hits} % from the cache", dns.queries)));
    }
    text.push_str(&line("Services", &services(snapshot.init.as_ref())));
    let reset = snapshot.storage.as_ref().and_then(|storage| storage.reset.as_ref());
    if let (Some(reset), true) = (reset, with_counters) {
        text.push_str(&line("Reset", &reset_said(reset)));
    }
    if let Some(install) = snapshot.install.as_ref().filter(|install| install.problem.is_none()) {
        text.push_str(&line("Install", &install::line(install)));
    }
    for problem in problems(snapshot) {
        text.push_str(&line("Problem", &problem));
    }
    if let Some(error) = snapshot.site.as_ref().and_then(|site| site.error.as_ref()) {
        text.push_str("Site file refused, the one before stays in force:\n");
        text.push_str(&plain_lines(error));
    }
    text
}

/// The status files hold what others wrote: nothing of it may steer the terminal.
fn line(label: &str, value: &str) -> String {
    format!("  {:<10}{}\n", plain(label), plain(value))
}

fn headline(snapshot: &Snapshot, with_uptime: bool) -> String {
    let (version, board) = match &snapshot.init {
        Some(init) => (init.version.as_str(), init.board.as_str()),
        None => ("(version unknown)", "unknown board"),
    };
    let uptime = snapshot.init.as_ref().filter(|_| with_uptime);
    let uptime = uptime.map(|init| format!(", up {}", duration(init.uptime_s))).unwrap_or_default();
    format!("{version} on {board}, slot {}{uptime}", slot(snapshot))
}

fn reset_said(reset: &ResetStatus) -> String {
    let data = if reset.data_kept { "data kept" } else { "data wiped" };
    format!("to how the box was flashed, at {}, {data}", utc(UNIX_EPOCH + Duration::from_secs(reset.at)))
}

fn slot(snapshot: &Snapshot) -> String {
    let status = snapshot.storage.as_ref().map(|storage| &storage.slot);
    let name = slot_name(snapshot);
    match status {
        Some(SlotStatus { good: true, .. }) => format!("{name} (good)"),
        Some(SlotStatus { problem: None, tries: [a, b], .. }) => {
            format!("{name} (on trial; tries left: a {a}, b {b})")
        }
        _ => name,
    }
}

/// The slot we run from: `a`, `b` or `?`.
pub(crate) fn slot_name(snapshot: &Snapshot) -> String {
    let booted = snapshot.storage.as_ref().and_then(|storage| storage.slot.booted.clone());
    booted.or_else(|| snapshot.slot.clone()).unwrap_or_else(|| "?".to_owned())
}

fn office(snapshot: &Snapshot) -> String {
    let Some(site) = &snapshot.site else { return "waiting for the site file".to_owned() };
    let origin = match site.origin {
        SiteOrigin::Default => "built-in site file",
        SiteOrigin::File => "operator's site file",
        SiteOrigin::LastGood => "LAST GOOD site file",
    };
    format!("{} ({origin}, revision {})", site.office, site.revision)
}

fn networks(net: &NetStatus) -> String {
    let carried = net.links.iter().filter(|link| link.network.is_some());
    let text = |link: &kontor_status::LinkStatus| {
        let addresses: Vec<String> = link.addresses.iter().map(ToString::to_string).collect();
        let state = link_state(link.present, link.carrier);
        let network = link.network.as_deref().unwrap_or_default();
        line(&link.name, format!("{network:<8}{state:<12}{}", addresses.join(" ")).trim_end())
    };
    carried.map(text).collect()
}

fn link_state(present: bool, carrier: bool) -> &'static str {
    match (present, carrier) {
        (false, _) => "no hardware",
        (true, false) => "no cable",
        (true, true) => "connected",
    }
}

fn internet(net: Option<&NetStatus>) -> String {
    match net.map(|net| &net.wan) {
        None | Some(WanState::Down) => "down".to_owned(),
        Some(WanState::Acquiring { client }) => format!("asking for an address ({client})"),
        Some(WanState::Unplugged { interface }) => {
            format!("no cable in {interface}, or the device at its other end is off")
        }
        Some(WanState::Colliding { external, network }) => {
            format!("off: {external} outside collides with {network}")
        }
        Some(WanState::Up(lease)) => {
            let gateway = lease.gateway.map(|gateway| format!(" through {gateway}")).unwrap_or_default();
            let how = if lease.lease_time_s.is_some() { "by DHCP" } else { "fixed" };
            format!("up, {} on {}{gateway}, {how}", lease.address, lease.interface)
        }
    }
}

fn services(init: Option<&InitStatus>) -> String {
    let Some(init) = init else { return "unknown: PID 1 does not answer".to_owned() };
    let well = |state| matches!(state, ServiceState::Running | ServiceState::Done);
    let (good, bad): (Vec<_>, Vec<_>) = init.services.iter().partition(|service| well(service.state));
    let mut parts: Vec<String> = bad
        .iter()
        .map(|service| format!("{} {} ({})", service.name, state(service.state), service.detail))
        .collect();
    parts.push(match bad.is_empty() {
        true => format!("all {} well", good.len()),
        false => format!("{} others well", good.len()),
    });
    parts.join(", ").replace(" ()", "")
}

/// A service's state as a word.
fn state(state: ServiceState) -> &'static str {
    match state {
        ServiceState::Waiting => "waiting",
        ServiceState::Starting => "starting",
        ServiceState::Running => "running",
        ServiceState::Backoff => "backoff",
        ServiceState::Stopping => "stopping",
        ServiceState::Done => "done",
        ServiceState::Failed => "failed",
    }
}

fn problems(snapshot: &Snapshot) -> Vec<String> {
    let mut all = Vec::new();
    all.extend(snapshot.net.iter().flat_map(|net| net.problems.clone()));
    all.extend(snapshot.dhcp.iter().flat_map(|dhcp| dhcp.problems.clone()));
    all.extend(snapshot.dns.iter().flat_map(|dns| dns.problems.clone()));
    all.extend(snapshot.install.iter().filter_map(|install| install.problem.clone()));
    if let Some(StorageStatus { problems, slot, .. }) = &snapshot.storage {
        all.extend(problems.iter().chain(&slot.problem).cloned());
    }
    let errors = snapshot.init.iter().flat_map(|init| init.errors.iter());
    let newest = errors.rev().take(ERRORS_SHOWN).cloned();
    all.extend(newest);
    all.into_iter().map(|text| text.lines().next().unwrap_or_default().to_owned()).collect()
}

/// The overview and a table of services.
pub(crate) fn status(snapshot: &Snapshot) -> String {
    let mut text = overview(snapshot, true);
    if let Some(init) = &snapshot.init {
        let mut table = Table::new(&["SERVICE", "STATE", "PID", "RESTARTS", "DETAIL"]);
        for service in &init.services {
            let pid = service.pid.map(|pid| pid.to_string()).unwrap_or_default();
            let restarts = service.restarts.to_string();
            table.row(&[&service.name, state(service.state), &pid, &restarts, &service.detail]);
        }
        text.push('\n');
        text.push_str(&table.render());
    }
    text
}

/// Who has which address.
pub(crate) fn leases(snapshot: &Snapshot) -> String {
    let Some(dhcp) = &snapshot.dhcp else { return "dhcpd has not reported yet\n".to_owned() };
    if dhcp.leases.is_empty() {
        return "no leases\n".to_owned();
    }
    let mut table = Table::new(&["ADDRESS", "NAME", "MAC", "NETWORK", "KIND", "LEFT"]);
    for lease in &dhcp.leases {
        let kind = match lease.state {
            LeaseState::Dynamic => "dynamic",
            LeaseState::Reserved => "reserved",
            LeaseState::Declined => "declined",
        };
        let name = lease.name.as_deref().unwrap_or("-");
        let left = duration(lease.remaining_s);
        table.row(&[&lease.address.to_string(), name, &lease.mac, &lease.network, kind, &left]);
    }
    table.render()
}

/// Ports, carriers, addresses.
pub(crate) fn links(snapshot: &Snapshot) -> String {
    let Some(net) = &snapshot.net else { return "netd has not reported yet\n".to_owned() };
    let mut table = Table::new(&["PORT", "NETWORK", "STATE", "MAC", "PCI", "ADDRESSES"]);
    for link in &net.links {
        let addresses: Vec<String> = link.addresses.iter().map(ToString::to_string).collect();
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        table.row(&[
            &link.name,
            &or_dash(&link.network),
            link_state(link.present, link.carrier),
            &or_dash(&link.mac),
            &or_dash(&link.pci),
            &addresses.join(" "),
        ]);
    }
    format!("{}\nInternet: {}\n", table.render(), plain(&internet(Some(net))))
}

#[cfg(test)]
pub(crate) mod tests;

//! The fewest steps from what is to what should be.
//!
//! **Invariant:** what already matches is not touched, so a reload of a changed site file drops no
//! connection that the change does not concern. Addresses and routes are added before old ones are removed.
//!
//! Owned, and therefore removed when not desired: IPv4 addresses on ports and on our own links, bridges named
//! `br-…`, WireGuard interfaces named `wg-…`, and routes of the main table with protocol `static` or `dhcp` on those links or to
//! nowhere. Tunnels come last: whatever is wrong with one, the office has its addresses.

use ipnet::Ipv4Net;

use crate::desired::DesiredLink;
use crate::{Desired, Link, LinkKind, Mac, Observed, Route};

/// MTU a link returns to when nothing asks for another.
const ETHERNET_MTU: u32 = 1500;

/// One change, in the kernel's words. Interfaces have the names they have when the step's turn comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// `ip link set NAME down`
    Down(String),
    /// `ip link set dev INDEX name NAME`
    Rename(u32, String),
    /// `ip link add NAME type KIND`, with its hardware address.
    Add(String, LinkKind, Option<Mac>),
    /// `ip link set NAME nomaster`
    Detach(String),
    /// `ip link del NAME`
    Delete(String),
    /// `ip link set NAME master BRIDGE`
    Attach(String, String),
    /// `ip link set NAME mtu BYTES`
    Mtu(String, u32),
    /// `ip link set NAME up`
    Up(String),
    /// `ip address add ADDRESS dev NAME`
    AddAddress(String, Ipv4Net),
    /// `ip route replace …`: takes the place of a route with the same destination and metric.
    SetRoute(Route),
    /// `ip route del …`
    DeleteRoute(Route),
    /// `ip address del ADDRESS dev NAME`
    DeleteAddress(String, Ipv4Net),
}

impl Step {
    /// The link without which the step is in vain, if it has one.
    #[must_use]
    pub fn link(&self) -> Option<&str> {
        match self {
            Self::Rename(..) => None,
            Self::SetRoute(route) | Self::DeleteRoute(route) => route.interface.as_deref(),
            Self::Down(name)
            | Self::Add(name, ..)
            | Self::Detach(name)
            | Self::Delete(name)
            | Self::Attach(name, _)
            | Self::Mtu(name, _)
            | Self::Up(name)
            | Self::AddAddress(name, _)
            | Self::DeleteAddress(name, _) => Some(name),
        }
    }
}

/// The steps, in order. Empty when all matches; may have to be called again after they ran (the kernel drops
/// routes together with an address), and then ends.
#[must_use]
pub fn diff(desired: &Desired, observed: &Observed) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut now = observed.clone();
    rename(desired, &mut now, &mut steps);
    unbridge(desired, &now, &mut steps);
    for part in [Part::Office, Part::Tunnels] {
        links(desired, part, &now, &mut steps);
        addresses(desired, part, &now, &mut steps);
    }
    steps
}

/// Which links are meant, and addresses and routes on them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Office,
    Tunnels,
}

impl Part {
    /// Of a link by its name; routes to nowhere have none, and are there for tunnels.
    fn has(self, desired: &Desired, link: Option<&str>) -> bool {
        let is_tunnel = |name: &str| {
            desired.links.iter().any(|want| want.name == name && want.kind == LinkKind::WireGuard)
        };
        let part = if link.is_none_or(is_tunnel) { Self::Tunnels } else { Self::Office };
        part == self
    }
}

/// Renames ports; names that swap go through a temporary one. `now` is left with the new names.
fn rename(desired: &Desired, now: &mut Observed, steps: &mut Vec<Step>) {
    let wrong = |link: &Link| desired.names.get(&link.index).filter(|name| **name != link.name).cloned();
    let moves: Vec<(usize, String)> =
        now.links.iter().enumerate().filter_map(|(i, link)| Some((i, wrong(link)?))).collect();
    // Whoever holds a name that somebody else shall get (also an interface that is no port) gives it up first.
    for position in 0..now.links.len() {
        if moves.iter().any(|(i, name)| *i != position && *name == now.links[position].name) {
            let parked = format!("kontor{}", now.links[position].index);
            set_name(now, position, &parked, steps);
        }
    }
    for (position, name) in moves {
        set_name(now, position, &name, steps);
    }
}

fn set_name(now: &mut Observed, position: usize, name: &str, steps: &mut Vec<Step>) {
    let link = &mut now.links[position];
    // Kernels before 6.2 refuse to rename a link that is up.
    if link.up {
        steps.push(Step::Down(link.name.clone()));
        link.up = false;
    }
    steps.push(Step::Rename(link.index, name.to_owned()));
    for route in &mut now.routes {
        if route.interface.as_deref() == Some(&link.name) {
            route.interface = Some(name.to_owned());
        }
    }
    link.name = name.to_owned();
}

/// Takes ports out of bridges they do not belong to, and removes bridges and tunnels nobody wants.
fn unbridge(desired: &Desired, now: &Observed, steps: &mut Vec<Step>) {
    for link in &now.links {
        let Some(controller) = link.controller.and_then(|i| now.links.iter().find(|l| l.index == i)) else {
            continue;
        };
        let wanted = desired.links.iter().find(|want| want.name == link.name);
        if wanted.is_some_and(|want| want.controller.as_deref() != Some(&controller.name)) {
            steps.push(Step::Detach(link.name.clone()));
        }
    }
    for link in now.links.iter().filter(|link| is_made_by_us(link)) {
        if !desired.links.iter().any(|want| want.kind == link.kind && want.name == link.name) {
            steps.push(Step::Delete(link.name.clone()));
        }
    }
}

fn is_made_by_us(link: &Link) -> bool {
    match link.kind {
        LinkKind::Bridge => link.name.starts_with("br-"),
        LinkKind::WireGuard => link.name.starts_with("wg-"),
        LinkKind::Other => false,
    }
}

/// Makes bridges and tunnels, attaches ports, sets MTU and state.
fn links(desired: &Desired, part: Part, now: &Observed, steps: &mut Vec<Step>) {
    for want in desired.links.iter().filter(|want| part.has(desired, Some(&want.name))) {
        let have = now.link(&want.name);
        if have.is_none() {
            if want.kind == LinkKind::Other {
                continue;
            }
            steps.push(Step::Add(want.name.clone(), want.kind, want.mac));
        }
        link(want, have, now, steps);
    }
}

fn link(want: &DesiredLink, have: Option<&Link>, now: &Observed, steps: &mut Vec<Step>) {
    let name = &want.name;
    if let Some(bridge) = &want.controller {
        let attached = now.link(bridge).is_some_and(|b| have.and_then(|l| l.controller) == Some(b.index));
        if !attached {
            steps.push(Step::Attach(name.clone(), bridge.clone()));
        }
    }
    // Only an MTU we may have lowered is put back; a jumbo MTU set by hand for a LAN is not ours.
    let mtu = want.mtu.or_else(|| have.filter(|l| l.mtu < ETHERNET_MTU).map(|_| ETHERNET_MTU));
    if let Some(mtu) = mtu.filter(|mtu| have.map_or(ETHERNET_MTU, |l| l.mtu) != *mtu) {
        steps.push(Step::Mtu(name.clone(), mtu));
    }
    match (have.is_some_and(|l| l.up), want.up) {
        (false, true) => steps.push(Step::Up(name.clone())),
        (true, false) => steps.push(Step::Down(name.clone())),
        _ => {}
    }
}

/// New addresses, then routes, then the removal of old routes and old addresses.
fn addresses(desired: &Desired, part: Part, now: &Observed, steps: &mut Vec<Step>) {
    let has =
        |name: &str, address| now.link(name).is_some_and(|l| now.addresses_of(l.index).any(|a| a == address));
    for (name, address) in desired.addresses.iter().filter(|(name, _)| part.has(desired, Some(name))) {
        if !has(name, *address) {
            steps.push(Step::AddAddress(name.clone(), *address));
        }
    }
    let of_part = |route: &&Route| part.has(desired, route.interface.as_deref());
    let missing = desired.routes.iter().filter(of_part).filter(|r| !now.routes.contains(r));
    steps.extend(missing.cloned().map(Step::SetRoute));
    let replaced = |old: &Route| {
        desired.routes.iter().any(|new| new.destination == old.destination && new.metric == old.metric)
    };
    let stale =
        now.routes.iter().filter(of_part).filter(|old| !desired.routes.contains(old) && !replaced(old));
    let is_ours = |name: &str| is_ours(desired, now, name);
    let stale = stale.filter(|old| old.interface.as_deref().is_none_or(is_ours));
    steps.extend(stale.cloned().map(Step::DeleteRoute));
    let links = now.links.iter().filter(|link| part.has(desired, Some(&link.name)));
    for link in links.filter(|link| is_ours(&link.name)) {
        for address in now.addresses_of(link.index) {
            if !desired.addresses.iter().any(|(name, want)| *name == link.name && *want == address) {
                steps.push(Step::DeleteAddress(link.name.clone(), address));
            }
        }
    }
}

/// Whether addresses and routes of this link are ours. One that goes away takes its own along.
fn is_ours(desired: &Desired, now: &Observed, name: &str) -> bool {
    let removed = |l: &Link| is_made_by_us(l) && !desired.links.iter().any(|want| want.name == l.name);
    desired.links.iter().any(|want| want.name == name) && !now.link(name).is_some_and(removed)
}

#[cfg(test)]
mod tests;

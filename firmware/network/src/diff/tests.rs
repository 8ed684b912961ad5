//! Steps against a small model of the kernel.

use proptest::prelude::*;

use super::*;
use crate::desired::tests::{cards, lease, net, site, tunnel};
use crate::desired::{Inputs, desired};
use crate::{RouteOrigin, Uplink};

/// Links as the kernel makes them at boot: `eth0`, `eth1`, … down, with the MACs of [`cards`].
fn booted(count: u8) -> Observed {
    let link = |i: u8| Link {
        index: u32::from(i) + 1,
        name: format!("eth{}", i - 1),
        kind: LinkKind::Other,
        mac: Some(Mac([2, 0, 0, 0, 0, i])),
        up: false,
        carrier: false,
        controller: None,
        mtu: 1500,
    };
    Observed { links: (1..=count).map(link).collect(), ..Observed::default() }
}

/// What the kernel would make of the steps, including its refusals.
fn apply(observed: &mut Observed, steps: &[Step]) {
    for step in steps {
        match step {
            Step::Rename(index, name) => {
                assert!(observed.link(name).is_none(), "name {name} is taken");
                let link = observed.links.iter_mut().find(|l| l.index == *index).unwrap();
                assert!(!link.up, "renamed while up");
                let old = std::mem::replace(&mut link.name, name.clone());
                observed
                    .routes
                    .iter_mut()
                    .filter(|r| r.interface.as_ref() == Some(&old))
                    .for_each(|r| r.interface = Some(name.clone()));
            }
            Step::Add(name, kind, mac) => {
                let index = observed.links.iter().map(|l| l.index).max().unwrap_or(1) + 1;
                observed.links.push(Link {
                    index,
                    name: name.clone(),
                    kind: *kind,
                    mac: *mac,
                    up: false,
                    carrier: false,
                    controller: None,
                    mtu: 1500,
                });
            }
            Step::Delete(name) => {
                let index = observed.link(name).unwrap().index;
                observed.links.retain(|l| l.index != index);
                observed.addresses.retain(|(i, _)| *i != index);
                observed.routes.retain(|r| r.interface.as_ref() != Some(name));
            }
            Step::Down(name) => {
                link_mut(observed, name).up = false;
                observed.routes.retain(|r| r.interface.as_ref() != Some(name));
            }
            Step::Up(name) => link_mut(observed, name).up = true,
            Step::Mtu(name, mtu) => link_mut(observed, name).mtu = *mtu,
            Step::Detach(name) => link_mut(observed, name).controller = None,
            Step::Attach(name, bridge) => {
                let index = observed.link(bridge).unwrap().index;
                link_mut(observed, name).controller = Some(index);
            }
            Step::AddAddress(name, address) => {
                let index = observed.link(name).unwrap().index;
                observed.addresses.push((index, *address));
            }
            Step::DeleteAddress(name, address) => {
                let index = observed.link(name).unwrap().index;
                observed.addresses.retain(|have| *have != (index, *address));
                if observed.addresses_of(index).next().is_none() {
                    observed.routes.retain(|r| r.interface.as_ref() != Some(name));
                }
            }
            Step::SetRoute(route) => {
                let over = route.interface.as_ref().map(|name| observed.link(name).unwrap());
                assert!(over.is_none_or(|link| link.up), "route over a link that is down");
                let is_own = |source| observed.addresses.iter().any(|(_, own)| own.addr() == source);
                assert!(route.source.is_none_or(is_own), "source that is nobody's");
                let same = |r: &Route| r.destination == route.destination && r.metric == route.metric;
                observed.routes.retain(|r| !same(r));
                observed.routes.push(route.clone());
            }
            Step::DeleteRoute(route) => observed.routes.retain(|r| r != route),
        }
    }
}

fn link_mut<'a>(observed: &'a mut Observed, name: &str) -> &'a mut Link {
    observed.links.iter_mut().find(|l| l.name == name).unwrap_or_else(|| panic!("no link {name}"))
}

type Networks = &'static [(&'static str, &'static [&'static str], &'static str)];

const DEFAULT: Networks = &[("wan", &["port1"], "dhcp"), ("lan", &["port2"], "192.168.77.1/24")];
const MOVED: Networks = &[("wan", &["port1"], "dhcp"), ("lan", &["port2"], "192.168.77.2/24")];
const TWO_LANS: Networks = &[
    ("wan", &["port1"], "dhcp"),
    ("lan", &["port2"], "192.168.77.1/24"),
    ("guests", &["port3"], "192.168.78.1/24"),
];
const BRIDGED: Networks =
    &[("wan", &["port1"], "203.0.113.2/29"), ("lan", &["port2", "port3"], "192.168.77.1/24")];
const REBRIDGED: Networks =
    &[("wan", &["port3"], "dhcp"), ("office", &["port1", "port2"], "192.168.77.1/24")];

fn want(networks: Networks, lease: Option<&Uplink>) -> Desired {
    desired(Inputs { site: &site(networks), assignment: &cards(3), lease, external_open: true })
}

/// Applies until nothing is left to do.
#[track_caller]
fn settle(observed: &mut Observed, desired: &Desired) -> Vec<Step> {
    let mut all = Vec::new();
    for _ in 0..3 {
        let steps = diff(desired, observed);
        if steps.is_empty() {
            return all;
        }
        apply(observed, &steps);
        all.extend(steps);
    }
    panic!("does not settle: {:?}", diff(desired, observed));
}

#[test]
fn from_boot_to_the_default_site() {
    let mut observed = booted(3);
    let lease = lease("10.0.2.15/24", "10.0.2.2");
    settle(&mut observed, &want(DEFAULT, Some(&lease)));
    let names: Vec<_> = observed.links.iter().map(|l| (l.name.as_str(), l.up)).collect();
    assert_eq!(names, [("port1", true), ("port2", true), ("port3", false)]);
    assert_eq!(observed.addresses, [(3, net("192.168.77.1/24")), (2, net("10.0.2.15/24"))]);
    assert_eq!(observed.routes.len(), 1);
}

#[test]
fn a_change_elsewhere_touches_nothing_that_matches() {
    let mut observed = booted(3);
    let lease = lease("10.0.2.15/24", "10.0.2.2");
    settle(&mut observed, &want(DEFAULT, Some(&lease)));
    assert_eq!(diff(&want(DEFAULT, Some(&lease)), &observed), []);
    let steps = settle(&mut observed, &want(TWO_LANS, Some(&lease)));
    assert_eq!(steps, [Step::Up("port3".into()), Step::AddAddress("port3".into(), net("192.168.78.1/24"))]);
}

#[test]
fn a_moved_address_is_added_before_the_old_one_goes() {
    let mut observed = booted(3);
    settle(&mut observed, &want(DEFAULT, None));
    let steps = settle(&mut observed, &want(MOVED, None));
    let port2 = || "port2".to_owned();
    let expect = [
        Step::AddAddress(port2(), net("192.168.77.2/24")),
        Step::DeleteAddress(port2(), net("192.168.77.1/24")),
    ];
    assert_eq!(steps, expect);
}

#[test]
fn a_new_lease_replaces_address_and_route_and_its_loss_removes_both() {
    let mut observed = booted(3);
    settle(&mut observed, &want(DEFAULT, Some(&lease("10.0.2.15/24", "10.0.2.2"))));
    let steps = settle(&mut observed, &want(DEFAULT, Some(&lease("10.9.0.7/24", "10.9.0.1"))));
    assert!(matches!(steps[0], Step::AddAddress(..)) && matches!(steps[1], Step::SetRoute(_)));
    assert_eq!(steps[2], Step::DeleteAddress("port1".into(), net("10.0.2.15/24")));
    settle(&mut observed, &want(DEFAULT, None));
    assert_eq!(observed.routes, []);
}

#[test]
fn swapped_names_go_through_a_temporary_one() {
    let mut observed = booted(3);
    settle(&mut observed, &want(DEFAULT, None));
    let mut swapped = want(DEFAULT, None);
    swapped.names = [(2, "port2".to_owned()), (3, "port1".to_owned())].into();
    settle(&mut observed, &swapped);
    assert_eq!(observed.link("port1").map(|l| l.index), Some(3));
    assert_eq!(observed.addresses, [(2, net("192.168.77.1/24"))]);
}

#[test]
fn foreign_links_and_routes_are_left_alone() {
    let mut observed = booted(3);
    observed.links[2].name = "wg0".into();
    observed.addresses.push((4, net("10.99.0.1/24")));
    let foreign = Route {
        destination: net("10.98.0.0/16"),
        gateway: None,
        interface: Some("wg0".into()),
        source: None,
        metric: 0,
        origin: RouteOrigin::Site,
    };
    observed.routes.push(foreign.clone());
    let site = site(DEFAULT);
    let want = desired(Inputs { site: &site, assignment: &cards(2), lease: None, external_open: true });
    settle(&mut observed, &want);
    assert!(observed.routes.contains(&foreign));
    assert!(observed.addresses.contains(&(4, net("10.99.0.1/24"))));
}

proptest! {
    /// From any of these sites to any other, with or without a lease, with a link down in between.
    #[test]
    fn always_settles(path in prop::collection::vec((0usize..5, 0usize..3, 0usize..3), 1..6)) {
        let sites = [DEFAULT, MOVED, TWO_LANS, BRIDGED, REBRIDGED];
        let leases = [None, Some(lease("10.0.2.15/24", "10.0.2.2")), Some(lease("10.9.0.7/24", "10.9.0.1"))];
        let mut observed = booted(3);
        for (site, lease, down) in path {
            let want = want(sites[site], leases[lease].as_ref());
            settle(&mut observed, &want);
            prop_assert_eq!(observed.routes.len(), want.routes.len());
            prop_assert_eq!(observed.addresses.len(), want.addresses.len());
            let name = observed.links[down].name.clone();
            apply(&mut observed, &[Step::Down(name)]);
        }
    }
}

/// Tunnels come after the office, go without a trace, and leave nothing to another way while they are not there.
#[test]
fn tunnels_come_last_and_go() {
    let mut observed = booted(3);
    let with = |names: &[&str], open| {
        let mut site = site(DEFAULT);
        site.tunnels.extend(names.iter().map(|name| tunnel(name, &["10.8.0.0/16"])));
        desired(Inputs { site: &site, assignment: &cards(3), lease: None, external_open: open })
    };
    let nowhere = |observed: &Observed| observed.routes.iter().filter(|r| r.interface.is_none()).count();
    settle(&mut observed, &with(&["hq"], false));
    assert_eq!((observed.routes.len(), nowhere(&observed)), (1, 1));
    let steps = settle(&mut observed, &with(&["hq"], true));
    let up = |name: &str| steps.iter().position(|step| *step == Step::Up(name.into())).unwrap();
    assert!(up("wg-hq") > up("port1"));
    let route = observed.routes.iter().find(|r| r.interface.as_deref() == Some("wg-hq")).unwrap();
    assert_eq!(
        route.source,
        Some("192.168.77.1".parse().unwrap()),
        "what the office's own box says comes from the office"
    );
    // Another name: at no moment is there no route at all.
    let steps = settle(&mut observed, &with(&["main"], true));
    assert!(!steps.iter().any(|step| matches!(step, Step::DeleteRoute(_))), "{steps:?}");
    assert!(observed.link("wg-hq").is_none() && observed.link("wg-main").is_some());
    settle(&mut observed, &with(&[], true));
    assert_eq!(observed.routes, []);
    assert!(observed.links.iter().all(|link| link.kind == LinkKind::Other));
}

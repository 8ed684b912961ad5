//! Whether what the external network gives us collides with the office's own networks.
//!
//! Two networks with the same numbers cannot both be reached. The office, and what it reaches by tunnels, always wins: what collides is left
//! out, and said in words that name both networks and the remedy. Nothing here touches the kernel.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use kontor_config::Site;
use kontor_config::site::{Tunnel, Zone};

use crate::Uplink;

/// Where a free network for the office is looked for (RFC 1918).
const PRIVATE: [Ipv4Net; 3] = [
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
];

/// An external network with numbers of an internal one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collision {
    /// The external network.
    pub external: Ipv4Net,
    /// Name of the internal one.
    pub network: String,
    /// The box's address in it.
    pub internal: Ipv4Net,
    /// The same host in a network of that size which is free on both sides, if there is one.
    pub free: Option<Ipv4Net>,
}

impl fmt::Display for Collision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { external, network, internal, free } = self;
        let lan = internal.trunc();
        write!(
            f,
            "the external network is {external} but {network} is {lan}: both overlap, so the way out stays off and \
             {network} keeps working; change the address of {network} in the site file"
        )?;
        if let Some(free) = free {
            write!(f, " (for example to {free})")?;
        }
        f.write_str(" or the network of the provider's router")
    }
}

/// The uplink as it may be installed, and what had to be left out of it.
///
/// # Errors
/// The collision, when its address itself lies in an internal network's range or the other way round.
pub fn admit(site: &Site, uplink: &Uplink) -> Result<(Uplink, Vec<String>), Collision> {
    let external = uplink.address.trunc();
    if let Some((name, internal)) = overlapping(site, external) {
        let free = free_network(site, internal, external);
        return Err(Collision { external, network: name.to_owned(), internal, free });
    }
    let mut left_out = Vec::new();
    let mut uplink = uplink.clone();
    uplink.gateway = uplink.gateway.filter(|gateway| usable_gateway(site, &uplink, *gateway, &mut left_out));
    let routes = std::mem::take(&mut uplink.routes);
    for (destination, gateway) in routes {
        let destination = destination.trunc();
        // A default route is /0 and overlaps everything by nature; more specific ones may not touch a LAN.
        let reserved = overlapping(site, destination).map(|(name, _)| name).or(tunnelled(site, destination));
        match reserved.filter(|_| destination.prefix_len() > 0) {
            Some(name) => {
                left_out.push(format!("the lease's route to {destination} is ignored: it overlaps {name}"));
            }
            None if gateway.is_none_or(|g| usable_gateway(site, &uplink, g, &mut left_out)) => {
                uplink.routes.push((destination, gateway));
            }
            None => {}
        }
    }
    Ok((uplink, left_out))
}

/// Servers of a lease that can be reached outside. Those with an address of an internal network are some host
/// of the office, or nobody: what they would be asked must not go there. Those behind a tunnel are another office's, unless
/// they are in `external`, the uplink's own network.
pub fn usable_servers(
    site: &Site,
    external: Ipv4Net,
    kind: &str,
    servers: &[Ipv4Addr],
    left_out: &mut Vec<String>,
) -> Vec<Ipv4Addr> {
    let behind = |server: Ipv4Addr| tunnelled(site, server.into()).filter(|_| !external.contains(&server));
    let outside = |server: &&Ipv4Addr| match owner(site, **server).or(behind(**server)) {
        None => true,
        Some(name) => {
            left_out.push(format!("the lease's {kind} {server} is ignored: its address belongs to {name}"));
            false
        }
    };
    servers.iter().filter(outside).copied().collect()
}

/// The internal network an address belongs to.
fn owner(site: &Site, address: Ipv4Addr) -> Option<&str> {
    overlapping(site, Ipv4Net::from(address)).map(|(name, _)| name)
}

/// The tunnel that has all of these addresses behind it. Of wider ranges the tunnel's own route is the longer prefix.
fn tunnelled(site: &Site, net: Ipv4Net) -> Option<&str> {
    let has = |tunnel: &&Tunnel| tunnel.networks().any(|behind| behind.contains(&net));
    site.tunnels.iter().find(has).map(|tunnel| tunnel.name.as_str())
}

/// The kernel refuses a gateway that is the box itself, and one with an address of the office would be asked
/// for on the wrong side.
fn usable_gateway(site: &Site, uplink: &Uplink, gateway: Ipv4Addr, left_out: &mut Vec<String>) -> bool {
    let problem = match owner(site, gateway) {
        Some(name) => format!("the lease's gateway {gateway} is ignored: its address belongs to {name}"),
        None if gateway == uplink.address.addr() => {
            format!("the lease's gateway {gateway} is ignored: it is the address leased to us")
        }
        None => return true,
    };
    if !left_out.contains(&problem) {
        left_out.push(problem);
    }
    false
}

fn overlapping(site: &Site, net: Ipv4Net) -> Option<(&str, Ipv4Net)> {
    site.networks_in(Zone::Internal).find_map(|network| {
        let lan = network.static_address()?;
        overlap(lan.trunc(), net).then_some((network.name.as_str(), lan))
    })
}

pub(crate) fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// The next network of the same size behind the colliding one, else any private one, that nobody has.
fn free_network(site: &Site, internal: Ipv4Net, external: Ipv4Net) -> Option<Ipv4Net> {
    let (now, prefix) = (internal.trunc(), internal.prefix_len());
    let within = |block: Ipv4Net| block.subnets(prefix).ok().into_iter().flatten();
    let next = PRIVATE.into_iter().filter(|block| block.contains(&now)).flat_map(within);
    let next = next.skip_while(|candidate| *candidate <= now);
    let is_tunnelled =
        |net| site.tunnels.iter().flat_map(Tunnel::networks).any(|behind| overlap(behind, net));
    let is_free =
        |net: &Ipv4Net| !overlap(*net, external) && overlapping(site, *net).is_none() && !is_tunnelled(*net);
    let free = next.chain(PRIVATE.into_iter().flat_map(within)).find(is_free)?;
    let host = u32::from(internal.addr()) & u32::from(internal.hostmask());
    Ipv4Net::new(Ipv4Addr::from(u32::from(free.addr()) | host), prefix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::tests::{ip, lease, net, site, tunnel};

    fn office(lan: &str) -> Site {
        site(&[("wan", &["port1"], "dhcp"), ("lan", &["port2"], lan)])
    }

    #[track_caller]
    fn collides(lan: &str, external: &str, free: Option<&str>) {
        let collision = admit(&office(lan), &lease(external, "192.0.2.1")).unwrap_err();
        assert_eq!(collision.free, free.map(net), "{lan} and {external}");
        assert_eq!((collision.external, collision.network.as_str()), (net(external).trunc(), "lan"));
    }

    #[test]
    fn equal_wider_and_narrower_networks_collide_and_a_free_one_is_offered() {
        collides("192.168.178.1/24", "192.168.178.20/24", Some("192.168.179.1/24"));
        collides("192.168.178.1/24", "192.168.178.20/23", Some("192.168.180.1/24"));
        collides("192.168.178.1/24", "192.168.178.129/30", Some("192.168.179.1/24"));
        collides("192.168.178.1/24", "192.168.0.9/16", Some("10.0.0.1/24"));
        collides("10.1.2.3/16", "10.0.0.9/8", Some("192.168.2.3/16"));
        // From the last one of its block the search begins anew.
        collides("192.168.255.1/24", "192.168.255.9/24", Some("192.168.0.1/24"));
        // As large as the block, and every other one is too small or taken.
        collides("10.0.0.1/8", "10.9.8.7/24", None);
        // Addresses that are private to nobody.
        collides("203.0.113.1/24", "203.0.113.7/25", Some("192.168.0.1/24"));
    }

    #[test]
    fn the_message_names_both_networks_and_the_remedy() {
        let text = admit(&office("192.168.178.1/24"), &lease("192.168.178.20/24", "192.168.178.1"));
        let expect = "the external network is 192.168.178.0/24 but lan is 192.168.178.0/24: both overlap, so the way \
                      out stays off and lan keeps working; change the address of lan in the site file (for example to \
                      192.168.179.1/24) or the network of the provider's router";
        assert_eq!(text.unwrap_err().to_string(), expect);
    }

    #[test]
    fn a_gateway_of_the_office_or_our_own_is_left_out() {
        let site = office("192.168.77.1/24");
        for gateway in ["192.168.77.1", "192.168.77.254", "10.0.2.15"] {
            let (uplink, left_out) = admit(&site, &lease("10.0.2.15/24", gateway)).unwrap();
            assert_eq!((uplink.gateway, left_out.len()), (None, 1), "{left_out:?}");
        }
        let mut strange = lease("10.0.2.15/32", "10.9.9.9");
        strange.routes =
            vec![(net("0.0.0.0/0"), Some(ip("192.168.77.9"))), (net("10.7.0.0/16"), Some(ip("10.9.9.9")))];
        let (uplink, left_out) = admit(&site, &strange).unwrap();
        assert_eq!(uplink.gateway, Some(ip("10.9.9.9")), "outside its subnet, but outside");
        assert_eq!(uplink.routes, [(net("10.7.0.0/16"), Some(ip("10.9.9.9")))]);
        assert_eq!(left_out, ["the lease's gateway 192.168.77.9 is ignored: its address belongs to lan"]);
    }

    #[test]
    fn a_lease_leads_nothing_past_a_tunnel() {
        let mut site = office("192.168.77.1/24");
        site.tunnels.push(tunnel("hq", &["10.8.0.0/16"]));
        let mut lease = lease("10.0.2.15/24", "10.0.2.2");
        let wider = net("10.0.0.0/9");
        lease.routes =
            vec![(net("10.8.1.0/24"), Some(ip("10.0.2.2"))), (net("10.7.0.0/16"), None), (wider, None)];
        let (uplink, left_out) = admit(&site, &lease).unwrap();
        assert_eq!(
            uplink.routes,
            [(net("10.7.0.0/16"), None), (wider, None)],
            "the tunnel's is the longer prefix"
        );
        assert_eq!(left_out, ["the lease's route to 10.8.1.0/24 is ignored: it overlaps hq"]);
        // The office needs its way out more than the tunnel, which goes that way, too.
        site.tunnels.push(tunnel("other", &["10.0.0.0/16"]));
        assert_eq!(admit(&site, &lease).unwrap().0.gateway, Some(ip("10.0.2.2")));
        let servers = [ip("10.0.2.2"), ip("10.0.9.9"), ip("10.8.0.53")];
        let usable = usable_servers(&site, net("10.0.2.0/24"), "name server", &servers, &mut Vec::new());
        assert_eq!(
            usable,
            [ip("10.0.2.2")],
            "the provider's router is heard, headquarters' hosts are not its"
        );
    }

    #[test]
    fn servers_of_the_office_are_not_asked_outside() {
        let mut left_out = Vec::new();
        let servers = [ip("192.168.77.1"), ip("9.9.9.9"), ip("192.168.77.53")];
        let (office, external) = (office("192.168.77.1/24"), net("10.0.2.0/24"));
        let usable = usable_servers(&office, external, "name server", &servers, &mut left_out);
        assert_eq!((usable, left_out.len()), (vec![ip("9.9.9.9")], 2));
        assert_eq!(
            left_out[0],
            "the lease's name server 192.168.77.1 is ignored: its address belongs to lan"
        );
    }
}

//! Kernel settings that belong to the firewall: the same anti-spoofing, said to the routing code.

use crate::Site;

/// For every interface there is and will be (`all` and `default`), and again for those of the site:
/// `default` does not reach interfaces that exist already.
const PER_INTERFACE: &[(&str, &str)] = &[
    // Strict reverse path (RFC 3704): there is one way to the outside, so a source has one right interface.
    ("rp_filter", "1"),
    ("accept_redirects", "0"),
    ("secure_redirects", "0"),
    ("send_redirects", "0"),
    ("accept_source_route", "0"),
    // An ARP answer only for addresses of that interface, and with an address of that network:
    // with both ports in one switch by mistake, the office's address must not appear outside.
    ("arp_ignore", "1"),
    ("arp_announce", "2"),
];

const PER_INTERFACE_V6: &[(&str, &str)] = &[("accept_redirects", "0"), ("accept_source_route", "-1")];

const GLOBAL: &[(&str, &str)] = &[
    ("ipv4/icmp_echo_ignore_broadcasts", "1"),
    ("ipv4/icmp_ignore_bogus_error_responses", "1"),
    ("ipv4/tcp_syncookies", "1"),
    // RFC 1337: a late RST must not end a connection in TIME-WAIT.
    ("ipv4/tcp_rfc1337", "1"),
    // IPv6 service is not part of schema 1: nothing is forwarded.
    ("ipv6/conf/all/forwarding", "0"),
];

/// Files below /proc/sys (`net/ipv4/ip_forward`) with their values, in the order they must be written.
///
/// The caller loads the ruleset before: `ip_forward` opens the way through the box. It comes first here
/// because writing it resets other settings (`accept_redirects`) to the kernel's defaults for a router.
/// Files of an interface that does not exist (yet) are missing: the caller writes them when it appears.
#[must_use]
pub fn sysctls(site: &Site) -> Vec<(String, String)> {
    let interfaces = ["all".to_owned(), "default".to_owned()];
    let interfaces = interfaces
        .into_iter()
        .chain(site.networks.iter().map(|network| network.interface()))
        .chain(site.tunnels.iter().map(|tunnel| tunnel.interface()));
    let mut list = vec![setting("ipv4/ip_forward", "1")];
    list.extend(GLOBAL.iter().map(|(key, value)| setting(key, value)));
    for interface in interfaces {
        let of = |family: &str, keys: &[(&str, &str)]| -> Vec<_> {
            keys.iter()
                .map(|(key, value)| setting(&format!("{family}/conf/{interface}/{key}"), value))
                .collect()
        };
        list.extend(of("ipv4", PER_INTERFACE));
        list.extend(of("ipv6", PER_INTERFACE_V6));
    }
    list
}

fn setting(key: &str, value: &str) -> (String, String) {
    (format!("net/{key}"), value.to_owned())
}

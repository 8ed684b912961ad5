//! The box's part in an Active Directory domain, and its shares.

use std::collections::HashMap;

use super::network::is_unicast;
use super::own_addresses;
use crate::document::At;
use crate::name::{self, MAX_NETBIOS};
use crate::raw::{RawSamba, RawShare, RawSite};
use crate::report::Findings;
use crate::site::SambaRole;

pub(super) fn service(site: &RawSite, findings: &mut Findings) {
    let Some(samba) = &site.samba else { return };
    host_name(site, findings);
    realm(site, samba, findings);
    netbios_domain(site, samba, findings);
    servers(site, samba, findings);
    if let Some(At { span, .. }) = &samba.rodc_group
        && samba.role.value != SambaRole::Rodc
    {
        let help = "leave it out: only role \"rodc\" keeps the passwords of a group";
        findings.add(span, "`rodc-group` does not go with this role", help);
    }
    share_names(samba, findings);
    for share in &samba.shares {
        access(share, findings);
    }
}

/// A computer of a domain is known by its NetBIOS name as well.
fn host_name(site: &RawSite, findings: &mut Findings) {
    let At { value, span } = &site.office.host_name;
    if value.len() > MAX_NETBIOS {
        let message = format!("with [samba] the host name is too long: {} characters", value.len());
        findings.add(span, message, format!("at most {MAX_NETBIOS}, because it is a NetBIOS name as well"));
    } else if value.bytes().all(|b| b.is_ascii_digit()) {
        let help = "at least one letter, because it is a NetBIOS name as well";
        findings.add(span, "with [samba] the host name cannot be a number", help);
    }
}

/// The box's own DNS service answers for the office's domain, the domain controller for the realm.
fn realm(site: &RawSite, samba: &RawSamba, findings: &mut Findings) {
    let At { value, span } = &samba.realm;
    let office = &site.office.domain.value;
    let example = format!("a domain of its own, for example ad.{office}");
    if value == office {
        findings.add(span, format!("`{value}` is the office's own domain"), example);
    } else if office.strip_suffix(value.as_str()).is_some_and(|rest| rest.ends_with('.')) {
        findings.add(span, format!("the office's domain {office} lies in `{value}`"), example);
    } else if samba.role.value == SambaRole::Dc && value.ends_with(".local") {
        let message = "`.local` belongs to multicast DNS (RFC 6762): no new domain should be there";
        findings.add(span, message, example);
    }
    let label = value.strip_suffix(office.as_str()).and_then(|rest| rest.strip_suffix('.'));
    let reservations = site.networks.iter().filter_map(|n| n.dhcp.as_ref()).flat_map(|d| &d.reservations);
    let names = std::iter::once(&site.office.host_name)
        .chain(reservations.map(|reservation| &reservation.name))
        .chain(site.hosts.iter().map(|host| &host.name));
    for name in names.filter(|name| Some(name.value.as_str()) == label) {
        let message = format!("`{}` cannot be both a host and the realm", name.value);
        findings.add(&name.span, message, format!("`realm` is {value}: choose another name here or there"));
    }
}

fn netbios_domain(site: &RawSite, samba: &RawSamba, findings: &mut Findings) {
    let domain = samba.netbios_domain();
    let span = samba.domain.as_ref().map_or(&samba.realm.span, |domain| &domain.span);
    if name::netbios_domain(&domain).is_err() {
        let message = format!("the realm's first label makes no NetBIOS domain name: {domain}");
        findings.add(span, message, "set `domain`, for example domain = \"OFFICE\"");
    } else if domain.eq_ignore_ascii_case(&site.office.host_name.value) {
        let message = format!("{domain} is the box's own name, and cannot be that of the domain as well");
        findings.add(
            span,
            message,
            "`domain` must differ from `host-name`; without it, it is the realm's first label",
        );
    }
}

fn servers(site: &RawSite, samba: &RawSamba, findings: &mut Findings) {
    let servers = match (samba.role.value, &samba.servers) {
        (SambaRole::Dc, None) => return,
        (SambaRole::Dc, Some(servers)) => {
            let help = "leave it out: a box of role \"dc\" has a domain of its own";
            return findings.add(&servers.span, "`servers` does not go with role \"dc\"", help);
        }
        (_, servers) => servers.as_ref().filter(|servers| !servers.value.is_empty()),
    };
    let Some(servers) = servers else {
        let span = samba.servers.as_ref().map_or(&samba.role.span, |servers| &servers.span);
        let help = "servers = [\"…\"], addresses of the headquarters' domain controllers";
        return findings.add(span, "this role needs `servers`", help);
    };
    for (index, At { value, span }) in servers.value.iter().enumerate() {
        let help = "addresses of the headquarters' domain controllers";
        if own_addresses(site).any(|address| address == *value) || value.is_loopback() {
            findings.add(span, format!("{value} is the box itself"), help);
        } else if !is_unicast(*value) {
            findings.add(span, format!("{value} cannot be a domain controller"), help);
        } else if servers.value[..index].iter().any(|other| other.value == *value) {
            findings.add(span, format!("server {value} is there already"), "");
        }
    }
}

fn share_names(samba: &RawSamba, findings: &mut Findings) {
    let mut taken = HashMap::new();
    for At { value, span } in samba.shares.iter().map(|share| &share.name) {
        if let Some(start) = taken.insert(value.to_ascii_lowercase(), span.start) {
            let line = findings.line(start);
            let help = "each share has a name of its own; case makes no difference";
            findings.add(span, format!("share `{value}` is there already, in line {line}"), help);
        }
    }
}

fn access(share: &RawShare, findings: &mut Findings) {
    if share.read.is_empty() && share.write.is_empty() {
        let message = format!("nobody may use share `{}`", share.name.value);
        let help =
            "users or groups of the domain in `read` or `write`, for example write = [\"Domain Users\"]";
        findings.add(&share.name.span, message, help);
    }
    let mut taken = HashMap::new();
    for At { value, span } in share.write.iter().chain(&share.read) {
        if let Some(start) = taken.insert(value.to_lowercase(), span.start) {
            let line = findings.line(start);
            let message = format!("`{value}` may use this share already, by line {line}");
            findings.add(span, message, "each name once, in `read` or in `write`; who writes may read too");
        }
    }
}

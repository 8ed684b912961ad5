//! The sites of a domain's branches: who may declare them, and that clients of one network are in one site.

use std::collections::HashMap;

use ipnet::Ipv4Net;

use super::network::is_unicast;
use crate::document::At;
use crate::raw::{RawBranch, RawSamba, RawSite};
use crate::report::Findings;
use crate::site::{FIRST_SITE, SambaRole};

/// Larger networks than the largest private one: no company has them.
const SHORTEST_PREFIX: u8 = 8;

pub(super) fn sites(site: &RawSite, findings: &mut Findings) {
    let Some(samba) = &site.samba else { return };
    if samba.role.value != SambaRole::Dc {
        for branch in &samba.branches {
            let help = "leave it out: headquarters' site file, of role \"dc\", says where the branches are";
            findings.add(&branch.site.span, "`[[samba.branch]]` does not go with this role", help);
        }
        return;
    }
    names(samba, findings);
    networks(&samba.branches, findings);
}

fn names(samba: &RawSamba, findings: &mut Findings) {
    let own = samba.site.as_ref().map_or(FIRST_SITE, |site| &site.value);
    let mut taken = HashMap::new();
    for At { value, span } in samba.branches.iter().map(|branch| &branch.site) {
        if own.eq_ignore_ascii_case(value) {
            let help = "its networks are the internal ones of this file; leave this table out";
            findings.add(span, format!("`{value}` is the site of this box"), help);
        } else if let Some(start) = taken.insert(value.to_ascii_lowercase(), span.start) {
            let line = findings.line(start);
            let help = "all networks of a site go into one table; case makes no difference";
            findings.add(span, format!("site `{value}` is there already, in line {line}"), help);
        }
    }
}

/// One in another is right: the smaller one counts.
fn networks(branches: &[RawBranch], findings: &mut Findings) {
    let mut taken: HashMap<Ipv4Net, usize> = HashMap::new();
    for branch in branches {
        if branch.networks.value.is_empty() {
            let message = format!("site `{}` has no network", branch.site.value);
            let help = "networks = [\"…\"], those of the branch's computers";
            findings.add(&branch.networks.span, message, help);
        }
        for At { value, span } in &branch.networks.value {
            if value.prefix_len() < SHORTEST_PREFIX || !is_unicast(value.addr()) {
                let help = format!("a network of hosts, at most a /{SHORTEST_PREFIX}");
                findings.add(span, format!("{value} cannot be a branch's network"), help);
            } else if let Some(start) = taken.insert(*value, span.start) {
                let line = findings.line(start);
                findings.add(span, format!("network {value} is there already, in line {line}"), "");
            }
        }
    }
}

//! Host names of clients: one RFC 1123 label each, unique in the office.
//!
//! Fixed names (the box, reservations, hosts of the site file) always win. Among dynamic leases the first
//! holder keeps a name; later ones get `name-2`, `name-3` … A name stays with its lease.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;

use crate::wire::{Message, code};

/// Names with a meaning of their own: a client that took one would redirect others' traffic
/// (web proxy discovery, ISATAP routers) or break them.
const FORBIDDEN: [&str; 4] = ["wpad", "isatap", "localhost", "gateway"];
/// Clients of one name; more get none.
const MAX_SAME_NAME: u32 = 99;
/// Longest label (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;

#[derive(Debug, Default)]
pub(super) struct Names {
    fixed: HashSet<String>,
    held: HashMap<String, Ipv4Addr>,
}

impl Names {
    /// Replaces the fixed names.
    pub(super) fn fix(&mut self, names: impl Iterator<Item = String>) {
        self.fixed = names.map(|name| name.to_ascii_lowercase()).collect();
    }

    /// Replaces the held names: what leases carry when another configuration comes into force.
    pub(super) fn hold(&mut self, names: impl Iterator<Item = (String, Ipv4Addr)>) {
        self.held = names.filter(|(name, _)| !self.fixed.contains(name)).collect();
    }

    /// Gives `address` a name by its client's wish, or keeps the `old` one while that still fits.
    pub(super) fn claim(
        &mut self,
        address: Ipv4Addr,
        wanted: Option<&str>,
        old: Option<&str>,
    ) -> Option<String> {
        let label = wanted.and_then(|wanted| sanitise(wanted.as_bytes()));
        let keeps =
            |old: &&str| !self.fixed.contains(*old) && label.as_deref().is_none_or(|l| is_variant(old, l));
        let name = match (old.filter(keeps), label.as_deref()) {
            (Some(old), _) => Some(old.to_owned()),
            (None, Some(label)) => self.unique(label, address),
            (None, None) => None,
        };
        if let Some(old) = old.filter(|old| name.as_deref() != Some(old)) {
            self.release(old, address);
        }
        if let Some(name) = &name {
            self.held.insert(name.clone(), address);
        }
        name
    }

    /// The address no longer has the name.
    pub(super) fn release(&mut self, name: &str, address: Ipv4Addr) {
        if self.held.get(name) == Some(&address) {
            self.held.remove(name);
        }
    }

    fn unique(&self, label: &str, address: Ipv4Addr) -> Option<String> {
        if FORBIDDEN.contains(&label) {
            return None;
        }
        let free =
            |name: &String| !self.fixed.contains(name) && self.held.get(name).is_none_or(|a| *a == address);
        std::iter::once(label.to_owned()).chain((2..=MAX_SAME_NAME).map(|n| numbered(label, n))).find(free)
    }
}

fn numbered(label: &str, number: u32) -> String {
    let suffix = format!("-{number}");
    let keep = label.len().min(MAX_LABEL - suffix.len());
    format!("{}{suffix}", label.get(..keep).unwrap_or(label))
}

/// Whether `name` is `label` itself or one of its numbered forms.
fn is_variant(name: &str, label: &str) -> bool {
    name == label || (2..=MAX_SAME_NAME).any(|number| name == numbered(label, number))
}

/// The name a client wants: option 81's (RFC 4702), else option 12's.
pub(super) fn wanted(message: &Message) -> Option<String> {
    let fqdn = message.options.get(code::CLIENT_FQDN).and_then(fqdn_label);
    fqdn.or_else(|| message.options.get(code::HOST_NAME).and_then(sanitise))
}

/// First label of option 81: flags, two obsolete octets, then a name in wire form (E bit) or ASCII.
fn fqdn_label(value: &[u8]) -> Option<String> {
    let ([flags, _, _], name) = value.split_first_chunk::<3>()?;
    if flags & 4 == 0 {
        return sanitise(name);
    }
    let (&length, rest) = name.split_first()?;
    sanitise(rest.get(..usize::from(length))?)
}

/// Makes one RFC 1123 label of what a client calls itself: the part before the first dot, lower case,
/// everything but letters, digits and hyphens replaced by a hyphen; nothing if nothing is left.
#[must_use]
pub fn sanitise(raw: &[u8]) -> Option<String> {
    let first = raw.split(|byte| *byte == b'.').next().unwrap_or_default();
    let end = first.iter().position(|byte| *byte == 0).unwrap_or(first.len());
    let text = String::from_utf8_lossy(first.get(..end).unwrap_or_default()).to_lowercase();
    let mut label = String::new();
    for c in text.chars() {
        let c = if c.is_ascii_alphanumeric() { c } else { '-' };
        if !(c == '-' && (label.is_empty() || label.ends_with('-'))) && label.len() < MAX_LABEL {
            label.push(c);
        }
    }
    let label = label.trim_end_matches('-');
    (!label.is_empty()).then(|| label.to_owned())
}

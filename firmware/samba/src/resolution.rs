//! How Samba and its libraries find names: Kerberos, hosts, DNS and accounts.
//!
//! These files are Samba's alone; the rest of the box has its own.

use crate::{Samba, SambaRole, Site, internal_addresses, realm};

/// `/etc/krb5.conf`: domain controllers are found by DNS.
#[must_use]
pub fn krb5_conf(samba: &Samba) -> String {
    let (realm, domain) = (realm(samba), &samba.realm);
    // `rdns`: a service's name is the one it was asked for, not what a reverse look-up makes of its address.
    format!(
        "[libdefaults]\n\tdefault_realm = {realm}\n\tdns_lookup_realm = false\n\tdns_lookup_kdc = true\n\
         \trdns = false\n\n[domain_realm]\n\t.{domain} = {realm}\n\t{domain} = {realm}\n"
    )
}

/// `/etc/hosts`: the box's own name has its first internal address. With a loopback address there, a domain
/// controller would register it in DNS.
#[must_use]
pub fn hosts(site: &Site, samba: &Samba) -> String {
    let name = &site.office.host_name;
    let own = internal_addresses(site).next();
    let own = own.map(|address| format!("{}\t{name}.{} {name}\n", address.addr(), samba.realm));
    format!("127.0.0.1\tlocalhost\n{}", own.unwrap_or_default())
}

/// `/etc/resolv.conf`: the office's own DNS service, which knows where the realm is served.
#[must_use]
pub fn resolv_conf(samba: &Samba) -> String {
    format!("search {}\nnameserver 127.0.0.1\n", samba.realm)
}

/// `/etc/nsswitch.conf`: on a member the domain's accounts are accounts of the system as well, by winbind.
/// A domain controller maps them itself.
#[must_use]
pub fn nsswitch_conf(role: SambaRole) -> String {
    let accounts = match role {
        SambaRole::Dc | SambaRole::Rodc => "files",
        SambaRole::Member => "files winbind",
    };
    format!("passwd: {accounts}\ngroup: {accounts}\nhosts: files dns\nservices: files\nprotocols: files\n")
}

//! Which names of domain controllers DNS is to have: lists for `samba_dnsupdate`, made of the one that Samba brings along.

use crate::SAMBA_DNSUPDATE;
use crate::ldif::Entry;

/// What [`read_only_records`] needs to know of the directory, as a search filter below [`crate::sites_base`].
pub const CONTROLLERS_FILTER: &str = "(|(objectClass=nTDSDSA)(objectClass=server))";

/// The records of the read-only domain controllers of `found`. They cannot write them, and what they ask for gets lost on a
/// slow headquarters, so that one looks after them. They are found by their site alone: everywhere else they would be asked
/// to write ([MS-ADTS], section 6.3.2.3).
#[must_use]
pub fn read_only_records(realm: &str, found: &[Entry]) -> String {
    let is_read_only = |entry: &&Entry| entry.values("msDS-isRODC").any(|value| value == "TRUE");
    let settings = found.iter().filter(is_read_only).filter_map(|entry| Controller::of(entry, found));
    settings.map(|controller| controller.records(realm)).collect()
}

/// Samba's list as far as a read-only domain controller can ask headquarters for it (MS-NRPC, section 3.5.4.3.11): neither
/// addresses, which joining has entered, nor name servers.
#[must_use]
pub fn without_addresses(list: &str) -> String {
    let kind = |line: &str| {
        let unconditional = line.trim_start().strip_prefix("${").and_then(|rest| rest.split_once('}'));
        unconditional.map_or(line, |(_, rest)| rest).split_whitespace().next().map(str::to_owned)
    };
    let asked_for = |line: &&str| matches!(kind(line).as_deref(), Some("SRV" | "CNAME"));
    list.lines().filter(asked_for).map(|line| format!("{line}\n")).collect()
}

/// The command that brings DNS to what the list says. A domain controller writes through its own RPC service, because the box
/// has no `nsupdate`; a read-only one asks headquarters.
#[must_use]
pub fn update_words(list: &str, smb_conf: &str, is_read_only: bool) -> Vec<String> {
    let fixed = [SAMBA_DNSUPDATE, "--update-list", list, "-s", smb_conf].into_iter();
    fixed.chain((!is_read_only).then_some("--use-samba-tool")).map(str::to_owned).collect()
}

struct Controller<'a> {
    guid: &'a str,
    host: &'a str,
    site: &'a str,
    is_catalogue: bool,
}

impl<'a> Controller<'a> {
    /// From the settings below a server, `CN=NTDS Settings,CN=NORD,CN=Servers,CN=North,CN=Sites,…`, and the server itself.
    fn of(settings: &'a Entry, found: &'a [Entry]) -> Option<Self> {
        let (own, server_dn) = settings.values("dn").next()?.split_once(',')?;
        let site = server_dn.split(',').nth(2)?.split_once('=').map(|(_, site)| site)?;
        let server = found.iter().find(|entry| entry.values("dn").any(|dn| dn == server_dn))?;
        let host = server.values("dNSHostName").next()?;
        let guid = settings.values("objectGUID").next()?;
        let options: u32 = settings.values("options").next().and_then(|text| text.parse().ok()).unwrap_or(0);
        // Each becomes a word of a line.
        let is_name =
            |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b'$');
        let is_settings = own.eq_ignore_ascii_case("CN=NTDS Settings");
        let usable = is_settings && [guid, host, site].iter().all(is_name);
        usable.then_some(Self { guid, host, site, is_catalogue: options & 1 == 1 })
    }

    fn records(&self, realm: &str) -> String {
        let Self { guid, host, site, .. } = self;
        let mut text = format!("CNAME {guid}._msdcs.{realm} {host}\n");
        let mut add = |service: &str, below: &str, port: u16| {
            text.push_str(&format!("SRV {service}._tcp.{site}._sites.{below}{realm} {host} {port}\n"));
        };
        for below in ["", "dc._msdcs."] {
            add("_ldap", below, 389);
            add("_kerberos", below, 88);
        }
        if self.is_catalogue {
            add("_gc", "", 3268);
            add("_ldap", "gc._msdcs.", 3268);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ldif::entries;

    const FOUND: &str = "dn: CN=NORD,CN=Servers,CN=North,CN=Sites,CN=Configuration,DC=ad,DC=x\nobjectClass: server\n\
        dNSHostName: nord.ad.x\nmsDS-isRODC: TRUE\nobjectGUID: 4355468c\n\n\
        dn: CN=NTDS Settings,CN=NORD,CN=Servers,CN=North,CN=Sites,CN=Configuration,DC=ad,DC=x\nobjectClass: nTDSDSA\n\
        objectGUID: dd20edd4\noptions: 37\nmsDS-isRODC: TRUE\n\n\
        dn: CN=HQ,CN=Servers,CN=Main,CN=Sites,CN=Configuration,DC=ad,DC=x\ndNSHostName: hq.ad.x\nmsDS-isRODC: FALSE\n\n\
        dn: CN=NTDS Settings,CN=HQ,CN=Servers,CN=Main,CN=Sites,CN=Configuration,DC=ad,DC=x\nobjectGUID: 6ac81498\n\
        options: 1\nmsDS-isRODC: FALSE\n";

    #[test]
    fn a_read_only_one_is_found_by_its_site_alone() {
        let expect = "CNAME dd20edd4._msdcs.ad.x nord.ad.x\nSRV _ldap._tcp.North._sites.ad.x nord.ad.x 389\n\
            SRV _kerberos._tcp.North._sites.ad.x nord.ad.x 88\nSRV _ldap._tcp.North._sites.dc._msdcs.ad.x nord.ad.x 389\n\
            SRV _kerberos._tcp.North._sites.dc._msdcs.ad.x nord.ad.x 88\nSRV _gc._tcp.North._sites.ad.x nord.ad.x 3268\n\
            SRV _ldap._tcp.North._sites.gc._msdcs.ad.x nord.ad.x 3268\n";
        assert_eq!(read_only_records("ad.x", &entries(FOUND)), expect);
        let no_catalogue = FOUND.replace("options: 37", "options: 36");
        assert_eq!(read_only_records("ad.x", &entries(&no_catalogue)).lines().count(), 5);
        let hostile = FOUND.replace("nord.ad.x", "nord.ad.x 1 A");
        assert_eq!(read_only_records("ad.x", &entries(&hostile)), "");
    }

    #[test]
    fn a_read_only_one_asks_for_services_alone() {
        let list = "# names\nA ${HOSTNAME} $IP\n${IF_RWDNS_DOMAIN}NS ${DNSDOMAIN} ${HOSTNAME}\n\n\
            ${IF_DC}CNAME ${NTDSGUID}._msdcs.${DNSFOREST} ${HOSTNAME}\n${IF_RWDC}AAAA ${DNSDOMAIN} $IP\n\
            SRV _ldap._tcp.${DNSDOMAIN} ${HOSTNAME} 389\n${IF_RWDNS_DOMAIN}RPC ${DNSFOREST} NS ${DNSDOMAIN} ${HOSTNAME}\n";
        assert_eq!(
            without_addresses(list),
            "${IF_DC}CNAME ${NTDSGUID}._msdcs.${DNSFOREST} ${HOSTNAME}\nSRV _ldap._tcp.${DNSDOMAIN} ${HOSTNAME} 389\n"
        );
    }
}

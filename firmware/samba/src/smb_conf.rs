//! `/etc/samba/smb.conf` as a whole, and its section `[global]`.

use crate::section::Section;
use crate::share::{ENCRYPTED, home_section, share_section};
use crate::{DNS_PORT, RPC_PORTS, Samba, SambaRole, Site, interfaces, netbios_name, realm};

/// Of every role.
const COMMON: &[(&str, &str)] = &[
    ("server string", "Kontor"),
    ("bind interfaces only", "yes"),
    // SMB 1 is broken and SMB 2 cannot encrypt; Windows 8 and Server 2012 brought SMB 3.
    ("server min protocol", "SMB3_00"),
    ("client min protocol", "SMB3_00"),
    ("server signing", "mandatory"),
    // Files are, by their shares. For all connections it would shut out read-only domain controllers: their winbindd asks
    // without an account, which has no key, for people whose passwords they do not keep.
    ("server smb encrypt", "default"),
    ("ntlm auth", "ntlmv2-only"),
    ("map to guest", "never"),
    // No printers: nothing looks for a print service that is not there.
    ("load printers", "no"),
    ("printing", "bsd"),
    ("printcap name", "/dev/null"),
    ("disable spoolss", "yes"),
    // The one code page, besides CP437, whose conversion table is on the box.
    ("dos charset", "CP850"),
    // The supervisor reads standard output and bounds what it keeps.
    ("log level", "1"),
    ("max log size", "0"),
];

/// Of a domain controller, writable or not.
const DOMAIN_CONTROLLER: &[(&str, &str)] = &[
    ("server role", "active directory domain controller"),
    ("dns forwarder", "127.0.0.1"),
    // A service of the component does it: Samba would end the command after 20 s, which a slow machine does not keep to.
    ("dns update command", "/usr/bin/true"),
    ("idmap_ldb:use rfc2307", "yes"),
    // Each more costs some 10 MB of RAM; an office does not need them.
    ("prefork children", "1"),
    ("tls enabled", "yes"),
    ("tls keyfile", "/var/lib/samba/private/tls/key.pem"),
    ("tls certfile", "/var/lib/samba/private/tls/cert.pem"),
    ("tls cafile", "/var/lib/samba/private/tls/ca.pem"),
    // Where the box's time service has answers to members of the domain signed.
    ("ntp signd socket directory", "/run/ntp_signd"),
    // Also of sysvol: `security.NTACL` would need CAP_SYS_ADMIN, which is most of what root may.
    ("acl_xattr:security_acl_name", "user.NTACL"),
];

const MEMBER: &[(&str, &str)] = &[
    ("server role", "member server"),
    ("security", "ads"),
    // A keytab would have to be written below /etc, which is read-only.
    ("kerberos method", "secrets only"),
    // Without nmbd there is nobody to speak NetBIOS.
    ("disable netbios", "yes"),
    ("smb ports", "445"),
    // `DOMAIN\name`: an account of the domain is never taken for one of the box's own.
    ("winbind use default domain", "no"),
    ("winbind enum users", "no"),
    ("winbind enum groups", "no"),
    // Accounts that are in no domain; the box's own are below 1000.
    ("idmap config * : backend", "tdb"),
    ("idmap config * : range", "3000-7999"),
];

/// Numbers are made from those of the domain (idmap_rid(8)), so that they are the same on every member. With those of RFC 2307
/// attributes nobody would log on whom an administrator has added in the usual way, without a Unix number.
const MEMBER_IDMAP: &[(&str, &str)] = &[("backend", "rid"), ("range", "100000-99999999")];

/// Renders `smb.conf`.
///
/// It replaces the one that provisioning or joining leaves behind.
#[must_use]
pub fn smb_conf(site: &Site, samba: &Samba) -> String {
    let mut sections = vec![global(site, samba)];
    if samba.role.is_domain_controller() {
        sections.extend(policy_sections(samba));
    }
    sections.extend(samba.shares.iter().map(|share| share_section(samba, share)));
    sections.extend(samba.homes.then(|| home_section(samba)));
    sections.into_iter().map(|section| section.into_text()).collect::<Vec<_>>().join("\n")
}

fn global(site: &Site, samba: &Samba) -> Section {
    let mut section = Section::new("global");
    section.set("netbios name", &netbios_name(site));
    section.set("workgroup", &samba.domain);
    section.set("realm", &realm(samba));
    section.set("interfaces", &interfaces(site));
    section.set_all(COMMON);
    if samba.role.is_domain_controller() {
        section.set_all(DOMAIN_CONTROLLER);
        section.set("dns port", &DNS_PORT.to_string());
        let (first, last) = (RPC_PORTS.start(), RPC_PORTS.end());
        section.set("rpc server dynamic port range", &format!("{first}-{last}"));
    } else {
        section.set_all(MEMBER);
        for (key, value) in MEMBER_IDMAP {
            section.set(&format!("idmap config {} : {key}", samba.domain), value);
        }
    }
    section
}

/// Group policies and log-on scripts. On a read-only domain controller nobody may change them: the change
/// would stay in this office.
fn policy_sections(samba: &Samba) -> [Section; 2] {
    let read_only = if samba.role == SambaRole::Rodc { "yes" } else { "no" };
    let section = |name: &str, path: &str| {
        let mut section = Section::new(name);
        section.set_all(&[("path", path), ("read only", read_only), ENCRYPTED]);
        section
    };
    let scripts = format!("/var/lib/samba/sysvol/{}/scripts", samba.realm);
    [section("sysvol", "/var/lib/samba/sysvol"), section("netlogon", &scripts)]
}

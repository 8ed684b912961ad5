//! Keys, types and formats of `[samba]`, `[[samba.branch]]` and `[[samba.share]]`.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use ipnet::Ipv4Net;

use super::{ipv4, values};
use crate::document::{At, Shape, Table, Wrong};
use crate::name;
use crate::report::Findings;
use crate::site::{Branch, Samba, SambaRole, Share};

/// The group every domain has for this purpose; a Windows of another language gives it
/// another name.
const DEFAULT_RODC_GROUP: &str = "Allowed RODC Password Replication Group";

pub(super) const SAMBA: Shape = Shape {
    title: "[samba]",
    required: &["role", "realm"],
    optional: &["domain", "servers", "site", "rodc-group", "homes", "branch", "share"],
};
const BRANCH: Shape = Shape { title: "[[samba.branch]]", required: &["site", "networks"], optional: &[] };
const SHARE: Shape = Shape {
    title: "[[samba.share]]",
    required: &["name"],
    optional: &["comment", "read", "write", "recycle-bin", "previous-versions", "quota", "audit", "encrypt"],
};

/// Below, the file system's own needs are of the same order; above, no disk is.
const QUOTA: RangeInclusive<u64> = 16 << 20..=1 << 50;

#[derive(Debug)]
pub(crate) struct RawSamba {
    pub(crate) role: At<SambaRole>,
    pub(crate) realm: At<String>,
    pub(crate) domain: Option<At<String>>,
    pub(crate) servers: Option<At<Vec<At<Ipv4Addr>>>>,
    pub(crate) site: Option<At<String>>,
    pub(crate) rodc_group: Option<At<String>>,
    pub(crate) homes: bool,
    pub(crate) branches: Vec<RawBranch>,
    pub(crate) shares: Vec<RawShare>,
}

#[derive(Debug)]
pub(crate) struct RawBranch {
    pub(crate) site: At<String>,
    pub(crate) networks: At<Vec<At<Ipv4Net>>>,
}

#[derive(Debug)]
pub(crate) struct RawShare {
    pub(crate) name: At<String>,
    pub(crate) comment: Option<At<String>>,
    pub(crate) read: Vec<At<String>>,
    pub(crate) write: Vec<At<String>>,
    pub(crate) recycle_bin: bool,
    pub(crate) previous_versions: bool,
    pub(crate) quota: Option<At<u64>>,
    pub(crate) audit: bool,
    pub(crate) encrypt: bool,
}

pub(super) fn read(table: &Table<'_>, findings: &mut Findings) -> Option<RawSamba> {
    let role = table.parsed("role", findings, role);
    let realm = table.parsed("realm", findings, name::realm);
    let domain = table.parsed("domain", findings, name::netbios_domain);
    let servers = table.parsed_list("servers", findings, ipv4);
    let site = table.parsed("site", findings, name::directory_site);
    let rodc_group = table.parsed("rodc-group", findings, name::account);
    let homes = flag(table, "homes", findings);
    let tables = table.tables("branch", &BRANCH, findings);
    let branches = tables.iter().filter_map(|table| read_branch(table, findings)).collect();
    let tables = table.tables("share", &SHARE, findings);
    let shares = tables.iter().filter_map(|table| read_share(table, findings)).collect();
    Some(RawSamba { role: role?, realm: realm?, domain, servers, site, rodc_group, homes, branches, shares })
}

fn read_branch(table: &Table<'_>, findings: &mut Findings) -> Option<RawBranch> {
    let site = table.parsed("site", findings, name::directory_site);
    let networks = table.parsed_list("networks", findings, network);
    Some(RawBranch { site: site?, networks: networks? })
}

fn read_share(table: &Table<'_>, findings: &mut Findings) -> Option<RawShare> {
    let name = table.parsed("name", findings, name::share);
    let comment = table.parsed("comment", findings, comment);
    let read = table.parsed_list("read", findings, name::account);
    let write = table.parsed_list("write", findings, name::account);
    let accounts = |list: Option<At<Vec<At<String>>>>| list.map(|list| list.value).unwrap_or_default();
    let recycle_bin = flag(table, "recycle-bin", findings);
    let previous_versions = flag(table, "previous-versions", findings);
    let quota = table.parsed("quota", findings, quota);
    let audit = flag(table, "audit", findings);
    let encrypt = flag(table, "encrypt", findings);
    let (read, write) = (accounts(read), accounts(write));
    Some(RawShare {
        name: name?,
        comment,
        read,
        write,
        recycle_bin,
        previous_versions,
        quota,
        audit,
        encrypt,
    })
}

fn flag(table: &Table<'_>, key: &str, findings: &mut Findings) -> bool {
    table.boolean(key, findings).is_some_and(|flag| flag.value)
}

fn role(text: &str) -> Result<SambaRole, Wrong> {
    match text {
        "dc" => Ok(SambaRole::Dc),
        "rodc" => Ok(SambaRole::Rodc),
        "member" => Ok(SambaRole::Member),
        _ => Err(Wrong::new(format!("unknown role `{text}`"), "dc, rodc or member")),
    }
}

/// A network as a whole. The directory knows it by this text, so there is one way to write it.
fn network(text: &str) -> Result<Ipv4Net, Wrong> {
    let help = "a network with its prefix length, for example \"10.20.0.0/16\"";
    let Ok(network) = text.parse::<Ipv4Net>() else {
        return Err(Wrong::new(format!("`{text}` is not a network"), help));
    };
    if network != network.trunc() {
        let message = format!("`{text}` is not a whole network");
        return Err(Wrong::new(message, format!("the network with this address is {}", network.trunc())));
    }
    Ok(network)
}

/// Free text for a line of `smb.conf`: `%` would be replaced there, and `\` at the end joins lines.
fn comment(text: &str) -> Result<String, Wrong> {
    let forbidden = |c: char| c.is_control() || matches!(c, '%' | '\\');
    if text.chars().count() <= 128 && !text.chars().any(forbidden) {
        return Ok(text.trim().to_owned());
    }
    Err(Wrong::new(
        "the share's comment cannot be shown",
        "at most 128 characters on one line, without % and \\",
    ))
}

/// `"20 GiB"`: in bytes.
fn quota(text: &str) -> Result<u64, Wrong> {
    const UNITS: [(&str, u32); 3] = [("MiB", 20), ("GiB", 30), ("TiB", 40)];
    let bytes = UNITS.iter().find_map(|(unit, shift)| {
        let number: u64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
        number.checked_mul(1 << shift)
    });
    let wrong = |message| {
        Wrong::new(message, "for example \"500 MiB\", \"20 GiB\" or \"2 TiB\"; from 16 MiB to 1024 TiB")
    };
    match bytes {
        Some(bytes) if QUOTA.contains(&bytes) => Ok(bytes),
        Some(_) => Err(wrong(format!("a share of {text} is too small or too large"))),
        None => Err(wrong(format!("`{text}` is no amount of space"))),
    }
}

impl RawSamba {
    /// The NetBIOS name of the domain: what the file says, else the realm's first label.
    pub(crate) fn netbios_domain(&self) -> String {
        let named = self.domain.as_ref().map(|domain| domain.value.clone());
        named.unwrap_or_else(|| {
            let label = self.realm.value.split('.').next().unwrap_or_default();
            label.to_ascii_uppercase().chars().take(name::MAX_NETBIOS).collect()
        })
    }

    pub(super) fn into_samba(self) -> Samba {
        let domain = self.netbios_domain();
        let rodc_group =
            || self.rodc_group.map_or_else(|| DEFAULT_RODC_GROUP.to_owned(), |group| group.value);
        Samba {
            role: self.role.value,
            realm: self.realm.value,
            domain,
            servers: self.servers.map(|servers| values(servers.value)).unwrap_or_default(),
            site: self.site.map(|site| site.value),
            branches: self.branches.into_iter().map(RawBranch::into_branch).collect(),
            rodc_group: (self.role.value == SambaRole::Rodc).then(rodc_group),
            shares: self.shares.into_iter().map(RawShare::into_share).collect(),
            homes: self.homes,
        }
    }
}

impl RawBranch {
    fn into_branch(self) -> Branch {
        Branch { site: self.site.value, networks: values(self.networks.value) }
    }
}

impl RawShare {
    fn into_share(self) -> Share {
        Share {
            name: self.name.value,
            comment: self.comment.map(|comment| comment.value).filter(|comment| !comment.is_empty()),
            read: values(self.read),
            write: values(self.write),
            recycle_bin: self.recycle_bin,
            previous_versions: self.previous_versions,
            quota: self.quota.map(|quota| quota.value),
            audit: self.audit,
            encrypt: self.encrypt,
        }
    }
}

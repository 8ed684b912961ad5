//! Active Directory and file shares: the validated form of `[samba]`.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// The site every new domain has.
pub(crate) const FIRST_SITE: &str = "Default-First-Site-Name";

/// What the box is in the Active Directory domain, and what it shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Samba {
    /// The box's part in the domain.
    pub role: SambaRole,
    /// DNS name of the Active Directory domain, lower case; never the office's domain nor above it.
    pub realm: String,
    /// NetBIOS name of the domain, upper case, at most 15 characters.
    pub domain: String,
    /// Domain controllers at headquarters; empty for [`SambaRole::Dc`], else at least one.
    pub servers: Vec<Ipv4Addr>,
    /// Active Directory site the box belongs to; see [`Samba::first_site`].
    pub site: Option<String>,
    /// Sites of the domain's branches; for [`SambaRole::Dc`], and only for it.
    pub branches: Vec<Branch>,
    /// Group whose members' passwords are kept here; for [`SambaRole::Rodc`], and only for it.
    pub rodc_group: Option<String>,
    /// Shares, in file order.
    pub shares: Vec<Share>,
    /// Whether users have home directories here.
    pub homes: bool,
}

impl Samba {
    /// The site of a domain's first domain controller: what the file says, else the one every new domain has.
    #[must_use]
    pub fn first_site(&self) -> &str {
        self.site.as_deref().unwrap_or(FIRST_SITE)
    }
}

/// A branch of the domain: its clients are to find the domain controller that is near.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// Active Directory site; unique without regard to case, and not the box's own.
    pub site: String,
    /// Where its clients' questions come from, without host bits; at least one, and each only once.
    pub networks: Vec<Ipv4Net>,
}

/// A box's part in an Active Directory domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SambaRole {
    /// The first domain controller of a domain of its own.
    Dc,
    /// A read-only domain controller of the headquarters' domain.
    Rodc,
    /// A file server in the headquarters' domain.
    Member,
}

impl SambaRole {
    /// Whether the box runs `samba` (and not `smbd` and `winbindd` alone).
    #[must_use]
    pub const fn is_domain_controller(self) -> bool {
        match self {
            Self::Dc | Self::Rodc => true,
            Self::Member => false,
        }
    }
}

/// One shared directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Name of share and directory; unique without regard to case.
    pub name: String,
    /// Free text for people, on one line.
    pub comment: Option<String>,
    /// Users and groups of the domain that may read.
    pub read: Vec<String>,
    /// Users and groups of the domain that may read and write.
    pub write: Vec<String>,
    /// Whether deleted files are kept in a recycle bin.
    pub recycle_bin: bool,
    /// Whether snapshots are offered as previous versions.
    pub previous_versions: bool,
    /// How many bytes it may take, with its recycle bin and what only its previous versions still have.
    pub quota: Option<u64>,
    /// Whether changes are logged with the user's name.
    pub audit: bool,
    /// Whether connections without encryption are refused.
    pub encrypt: bool,
}

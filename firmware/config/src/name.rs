//! Names: host labels and domains (RFC 1123, section 2.1), what the kernel allows for interfaces, and what
//! Active Directory allows for domains, accounts and shares.

use crate::document::Wrong;

pub(crate) const LABEL_HELP: &str = "letters, digits and hyphens, at most 63, no hyphen at either end";
const NETWORK_HELP: &str = "1 to 12 lower-case letters, digits and hyphens, beginning with a letter";
const DOMAIN_HELP: &str =
    "labels of letters, digits and hyphens, separated by dots, without a dot at the end";

/// Longest domain: with a host label and a dot before it, the name still has 253 characters (RFC 1035,
/// section 2.3.4).
const MAX_DOMAIN: usize = 253 - 63 - 1;

/// Longest NetBIOS name: 16 octets (RFC 1001, section 14.1), of which Windows uses the last for the type.
pub(crate) const MAX_NETBIOS: usize = 15;
/// Longest DNS name of an Active Directory domain (Windows makes no longer ones).
const MAX_REALM: usize = 64;
const ACCOUNT_FORBIDDEN: &str = "\"/\\[]:;|=,+*?<>@%";
const SHARE_HELP: &str =
    "1 to 32 letters, digits, - _ and ., beginning with a letter or digit, without a dot at the end";
/// Sections of `smb.conf` and shares that Samba itself makes; `print$` and `ipc$` are no names of shares
/// anyway.
const RESERVED_SHARES: [&str; 5] = ["global", "homes", "printers", "netlogon", "sysvol"];

/// A host label; the result is lower case.
pub(crate) fn label(text: &str) -> Result<String, Wrong> {
    if is_label(text) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(Wrong::new(format!("`{text}` is not a host name"), LABEL_HELP))
}

/// A network name. `br-NAME` must fit into an interface name (15 characters).
pub(crate) fn network(text: &str) -> Result<String, Wrong> {
    let lower = text.bytes().all(|b| !b.is_ascii_uppercase());
    let letter_first = text.starts_with(|c: char| c.is_ascii_lowercase());
    if is_label(text) && lower && letter_first && text.len() <= 12 {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(format!("`{text}` is not a network name"), NETWORK_HELP))
}

/// The office's domain; the result is lower case.
pub(crate) fn domain(text: &str) -> Result<String, Wrong> {
    if !is_domain(text) {
        return Err(Wrong::new(format!("`{text}` is not a domain"), DOMAIN_HELP));
    }
    if text.len() > MAX_DOMAIN {
        let help = format!("at most {MAX_DOMAIN} characters, so that every host's name fits in front");
        return Err(Wrong::new(format!("the domain has {} characters", text.len()), help));
    }
    let domain = text.to_ascii_lowercase();
    let top = domain.rsplit('.').next().unwrap_or_default();
    match top {
        "local" => Err(Wrong::new(
            "`.local` belongs to multicast DNS (RFC 6762); PCs would not ask this box for such names",
            "use for example office.internal, or a part of a domain you own",
        )),
        "arpa" | "localhost" | "invalid" | "onion" => Err(Wrong::new(
            format!("`.{top}` is a special domain (RFC 6761) that cannot be the office's"),
            "use for example office.internal, or a part of a domain you own",
        )),
        _ => Ok(domain),
    }
}

/// DNS name of an Active Directory domain; the result is lower case.
///
/// `.local` is not refused here: many domains that a box joins are there, and PCs of a domain ask DNS for it.
pub(crate) fn realm(text: &str) -> Result<String, Wrong> {
    let example = "for example ad.office.internal";
    if !is_domain(text) || !text.bytes().any(|b| b.is_ascii_alphabetic()) {
        return Err(Wrong::new(format!("`{text}` is not a domain"), DOMAIN_HELP));
    }
    if !text.contains('.') {
        return Err(Wrong::new(format!("`{text}` has one label"), format!("at least two, {example}")));
    }
    if text.len() > MAX_REALM {
        let message = format!("the realm has {} characters", text.len());
        return Err(Wrong::new(message, format!("at most {MAX_REALM} (Active Directory)")));
    }
    let realm = text.to_ascii_lowercase();
    match realm.rsplit('.').next().unwrap_or_default() {
        top @ ("arpa" | "localhost" | "invalid" | "onion") => Err(Wrong::new(
            format!("`.{top}` is a special domain (RFC 6761) that cannot be the realm's"),
            example,
        )),
        _ => Ok(realm),
    }
}

/// NetBIOS name of a domain; the result is upper case.
pub(crate) fn netbios_domain(text: &str) -> Result<String, Wrong> {
    let digits_only = text.bytes().all(|b| b.is_ascii_digit());
    if is_label(text) && text.len() <= MAX_NETBIOS && !digits_only {
        return Ok(text.to_ascii_uppercase());
    }
    let help =
        format!("1 to {MAX_NETBIOS} letters, digits and hyphens, not digits alone, no hyphen at either end");
    Err(Wrong::new(format!("`{text}` is not a NetBIOS domain name"), help))
}

/// Name of an Active Directory site; case is kept.
pub(crate) fn directory_site(text: &str) -> Result<String, Wrong> {
    if is_label(text) {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(format!("`{text}` is not the name of an Active Directory site"), LABEL_HELP))
}

/// A user or group of the domain: what Windows allows in `sAMAccountName`, without `%` and `@`, which Samba
/// reads as something else.
pub(crate) fn account(text: &str) -> Result<String, Wrong> {
    let forbidden = |c: char| c.is_control() || ACCOUNT_FORBIDDEN.contains(c);
    let length = text.chars().count();
    if (1..=64).contains(&length) && text.trim() == text && !text.chars().any(forbidden) {
        return Ok(text.to_owned());
    }
    let help = format!("1 to 64 characters on one line, none of {ACCOUNT_FORBIDDEN}, no blank at either end");
    Err(Wrong::new(format!("`{text}` is not the name of a user or group"), help))
}

/// Name of a share and of its directory; case is kept.
pub(crate) fn share(text: &str) -> Result<String, Wrong> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    // A dot at the beginning is for what the box keeps beside the shares; one at the end, Windows drops.
    let first = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !first || text.ends_with('.') || text.len() > 32 || !text.bytes().all(allowed) {
        return Err(Wrong::new(format!("`{text}` is not the name of a share"), SHARE_HELP));
    }
    if RESERVED_SHARES.iter().any(|reserved| reserved.eq_ignore_ascii_case(text)) {
        let help = format!("not one of {}", RESERVED_SHARES.join(", "));
        return Err(Wrong::new(format!("`{text}` has a meaning of its own in Samba"), help));
    }
    Ok(text.to_owned())
}

/// Name or address of an NTP server.
pub(crate) fn server(text: &str) -> Result<String, Wrong> {
    let address = text.parse::<std::net::IpAddr>().ok();
    let usable = match address {
        Some(address) => !address.is_unspecified() && !address.is_multicast() && !address.is_loopback(),
        None => host(text).is_some(),
    };
    if usable {
        return Ok(text.to_ascii_lowercase());
    }
    Err(Wrong::new(
        format!("`{text}` is not a server's name or address"),
        "for example ntp.example.net or 192.0.2.1",
    ))
}

/// A host's DNS name; the result is lower case. Digits and dots alone are an address with a mistake.
pub(crate) fn host(text: &str) -> Option<String> {
    (is_domain(text) && text.bytes().any(|b| b.is_ascii_alphabetic())).then(|| text.to_ascii_lowercase())
}

fn is_label(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(allowed)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_domain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

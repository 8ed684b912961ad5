//! Names: host labels and domains (RFC 1123, section 2.1) and what the kernel allows for interfaces.

use crate::document::Wrong;

pub(crate) const LABEL_HELP: &str = "letters, digits and hyphens, at most 63, no hyphen at either end";
const NETWORK_HELP: &str = "1 to 12 lower-case letters, digits and hyphens, beginning with a letter";
const DOMAIN_HELP: &str =
    "labels of letters, digits and hyphens, separated by dots, without a dot at the end";

/// Longest domain: with a host label and a dot before it, the name still has 253 characters (RFC 1035,
/// section 2.3.4).
const MAX_DOMAIN: usize = 253 - 63 - 1;

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

/// Name or address of an NTP server.
pub(crate) fn server(text: &str) -> Result<String, Wrong> {
    let address = text.parse::<std::net::IpAddr>().ok();
    let usable = match address {
        Some(address) => !address.is_unspecified() && !address.is_multicast() && !address.is_loopback(),
        // Digits and dots alone are an address with a mistake, not a name.
        None => is_domain(text) && text.bytes().any(|b| b.is_ascii_alphabetic()),
    };
    if usable {
        return Ok(text.to_ascii_lowercase());
    }
    Err(Wrong::new(
        format!("`{text}` is not a server's name or address"),
        "for example ntp.example.net or 192.0.2.1",
    ))
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

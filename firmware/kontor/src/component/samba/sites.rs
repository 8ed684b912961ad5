//! Sites and subnets in the directory of a domain that has its home here, as the site file says: before Samba starts, so that
//! the first client that asks already learns where it is.
//!
//! Which changes that takes decides [`kontor_samba::changes`]. None of it is worth a file server that does not start.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use kontor_config::Site;
use kontor_config::site::Samba;
use kontor_samba::ldif::{Entry, entries};
use kontor_samba::{SITES_FILTER, Sites, changes, sites_base};

use super::{DATABASE, tool};
use crate::component::office;

/// Below /run/kontor.
const LDIF: &str = "sites.ldif";
/// Some hundred objects, on a slow machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Brings the directory to what the site file says; says what was done, or why not.
pub(super) fn arrange(site: &Site, samba: &Samba) {
    match try_arrange(&Sites::of(site, samba), &sites_base(samba)) {
        Ok(lines) => lines.iter().for_each(|line| println!("{line}")),
        Err(error) => println!("error: sites and subnets are as they were: {error:#}"),
    }
}

fn try_arrange(wanted: &Sites, base: &str) -> anyhow::Result<Vec<String>> {
    let changes = changes(wanted, &search(base, SITES_FILTER, &[])?);
    if changes.ldif.is_empty() {
        return Ok(Vec::new());
    }
    let path = Path::new(office::DIRECTORY).join(LDIF);
    fs::write(&path, changes.ldif).with_context(|| path.display().to_string())?;
    let file = path.display().to_string();
    let words = ["/usr/bin/ldbmodify", "-H", DATABASE, &file].map(str::to_owned);
    let outcome = tool::run(&words, LIMIT)?;
    ensure!(outcome.success, "{}", tool::last_line(&outcome.said));
    Ok(changes.lines)
}

/// What the box's own directory has below `base`: all attributes, or these.
///
/// # Errors
/// When it cannot be searched.
pub(super) fn search(base: &str, filter: &str, attributes: &[&str]) -> anyhow::Result<Vec<Entry>> {
    // `--cross-ncs`: the sites are in a partition of their own.
    let fixed = ["/usr/bin/ldbsearch", "--paged", "--cross-ncs", "-H", DATABASE, "-b", base, filter];
    let words: Vec<String> = fixed.iter().chain(attributes).map(ToString::to_string).collect();
    let outcome = tool::run(&words, LIMIT)?;
    ensure!(outcome.success, "{}", tool::last_line(&outcome.said));
    Ok(entries(&outcome.said))
}

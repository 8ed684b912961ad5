//! Debian packages as components: facts from the lock, the rest from inside the package.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};

use super::component::{Component, Kind, Text, escaped};
use super::copyright;
use super::facts::Facts;
use crate::archive::lock_file::LockedPackage;
use crate::archive::relation;

/// Links between documentation directories that are followed; packages use one.
const MAX_LINKS: usize = 4;

/// Names of packages outside of these whose documentation directory one of these links to.
pub(super) fn documented_elsewhere(packages: &[&LockedPackage], facts: &[Facts]) -> BTreeSet<String> {
    let inside: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let links = facts.iter().filter_map(|facts| facts.documented_in.clone());
    links.filter(|name| !inside.contains(name.as_str())).collect()
}

/// The packages as components that need each other.
///
/// # Errors
/// When a package has no copyright file, or its relations cannot be read.
pub(super) fn components(
    packages: &[&LockedPackage],
    facts: &[Facts],
    documentation: &BTreeMap<String, Facts>,
) -> Result<Vec<Component>> {
    let inside = packages.iter().zip(facts).map(|(package, facts)| (package.name.as_str(), facts));
    let outside = documentation.iter().map(|(name, facts)| (name.as_str(), facts));
    let known: BTreeMap<&str, &Facts> = outside.chain(inside).collect();
    let mut providers: BTreeMap<String, &LockedPackage> = BTreeMap::new();
    for (package, facts) in packages.iter().zip(facts) {
        for relation in parse(&facts.provides)?.into_iter().flatten() {
            providers.entry(relation.name).or_insert(package);
        }
        providers.insert(package.name.clone(), package);
    }
    packages
        .iter()
        .zip(facts)
        .map(|(package, facts)| {
            component(package, facts, &known, &providers).with_context(|| format!("package {}", package.name))
        })
        .collect()
}

fn parse(field: &str) -> Result<Vec<relation::Group>> {
    relation::parse(field).map_err(anyhow::Error::msg)
}

fn component(
    package: &LockedPackage,
    facts: &Facts,
    known: &BTreeMap<&str, &Facts>,
    providers: &BTreeMap<String, &LockedPackage>,
) -> Result<Component> {
    let copyright = copyright_of(facts, known)?;
    let mut needs = BTreeSet::new();
    for group in
        facts.depends.iter().map(|field| parse(field)).collect::<Result<Vec<_>>>()?.into_iter().flatten()
    {
        // What no package of the image satisfies was left out on purpose (base.toml, `exclude`).
        if let Some(needed) = group.iter().find_map(|relation| providers.get(&relation.name)) {
            needs.insert(purl(needed));
        }
    }
    needs.remove(&purl(package));
    let form = if copyright::is_machine_readable(&copyright) { "machine-readable" } else { "free text" };
    Ok(Component {
        purl: purl(package),
        kind: kind(&package.name),
        name: package.name.clone(),
        version: package.version.clone(),
        sha256: Some(package.sha256.clone()),
        licences: copyright::licences(&copyright),
        homepage: facts.homepage.clone(),
        properties: vec![
            ("kontor:debian:source", package.source.clone()),
            ("kontor:debian:source-version", package.source_version.clone()),
            ("kontor:debian:architecture", package.architecture.clone()),
            ("kontor:debian:suite", package.suite.clone()),
            ("kontor:debian:pool-path", package.pool_path.clone()),
            ("kontor:copyright-form", form.to_owned()),
        ],
        needs: needs.into_iter().collect(),
        texts: texts(copyright, facts),
    })
}

fn texts(copyright: Vec<u8>, facts: &Facts) -> Vec<Text> {
    let common = facts.common_licenses.iter();
    let common = common
        .map(|(name, bytes)| Text { name: format!("common-licenses/{name}"), bytes: bytes.bytes().to_vec() });
    std::iter::once(Text { name: "copyright".to_owned(), bytes: copyright }).chain(common).collect()
}

/// A package may leave its documentation to another one of the same source, which it depends on.
fn copyright_of(facts: &Facts, known: &BTreeMap<&str, &Facts>) -> Result<Vec<u8>> {
    let mut facts = facts;
    for _ in 0..MAX_LINKS {
        match (&facts.copyright, &facts.documented_in) {
            (Some(copyright), _) => return Ok(copyright.bytes().to_vec()),
            (None, Some(other)) => {
                facts = known.get(other.as_str()).copied().with_context(|| {
                    format!("its copyright file is in {other}, which is not among the packages")
                })?;
            }
            (None, None) => break,
        }
    }
    bail!("it has no copyright file")
}

fn kind(name: &str) -> Kind {
    match name {
        name if name.starts_with("linux-image-") => Kind::OperatingSystem,
        name if name.starts_with("firmware-") || name.starts_with("grub-") => Kind::Firmware,
        name if name.starts_with("lib") => Kind::Library,
        _ => Kind::Application,
    }
}

/// The package URL, with what tells a mirror's file from another.
pub(super) fn purl(package: &LockedPackage) -> String {
    let (name, version) = (escaped(&package.name), escaped(&package.version));
    let upstream = match (package.source == package.name, package.source_version == package.version) {
        (true, true) => String::new(),
        _ => format!("&upstream={}%40{}", escaped(&package.source), escaped(&package.source_version)),
    };
    format!("pkg:deb/debian/{name}@{version}?arch={}&distro=trixie{upstream}", package.architecture)
}

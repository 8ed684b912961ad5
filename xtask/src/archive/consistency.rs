//! Whether packages of different times fit together: a lock of which only a part was renewed is checked before it is used.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use anyhow::{Result, anyhow};

use super::index::{Index, Package};
use super::lock_file::LockedPackage;
use super::relation::{self, Group, Relation};

/// A relation that a mixed set breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// In words.
    pub why: String,
    /// Sources of locked packages that would have to be renewed, too.
    pub sources: BTreeSet<String>,
}

/// Every relation of packages whose fields the index still knows (those of its present version) that the set breaks.
/// `closure` are the names whose dependencies count; `excluded` ones count as there.
///
/// # Errors
/// When a field cannot be read.
pub fn misfits(
    index: &Index,
    set: &[LockedPackage],
    closure: &HashSet<String>,
    excluded: &HashSet<&str>,
) -> Result<Vec<Misfit>> {
    let members: BTreeMap<&str, &LockedPackage> =
        set.iter().map(|package| (package.name.as_str(), package)).collect();
    let mut found = Vec::new();
    for member in set.iter().filter(|member| closure.contains(&member.name)) {
        let Some(package) = current(index, member) else { continue };
        for (field, text) in [("Pre-Depends", &package.pre_depends), ("Depends", &package.depends)] {
            let groups = parse(package, field, text)?;
            let unmet = groups.iter().filter(|group| !met(index, &members, group, excluded));
            found.extend(unmet.map(|group| misfit(index, package, field, group, &members)));
        }
        for (field, text) in [("Breaks", &package.breaks), ("Conflicts", &package.conflicts)] {
            for relation in parse(package, field, text)?.iter().flatten() {
                let hit = members.get(relation.name.as_str()).filter(|other| relation.admits(&other.version));
                if hit.is_some_and(|other| other.name != package.name) {
                    found.push(misfit(index, package, field, &vec![relation.clone()], &members));
                }
            }
        }
    }
    Ok(found)
}

/// The index's fields of a locked package, if it has that version.
fn current<'a>(index: &'a Index, locked: &LockedPackage) -> Option<&'a Package> {
    let package = index.package(index.candidate(&locked.name)?);
    (package.version == locked.version).then_some(package)
}

fn parse(package: &Package, field: &str, text: &str) -> Result<Vec<Group>> {
    relation::parse(text).map_err(|error| anyhow!("{} {}: {field}: {error}", package.name, package.version))
}

fn met(
    index: &Index,
    members: &BTreeMap<&str, &LockedPackage>,
    group: &Group,
    excluded: &HashSet<&str>,
) -> bool {
    group.iter().any(|relation| {
        excluded.contains(relation.name.as_str())
            || members.get(relation.name.as_str()).is_some_and(|member| relation.admits(&member.version))
            || provided(index, members, relation)
    })
}

/// Whether a member provides it. What an old version provided is not known any more; its name's present version is
/// believed.
fn provided(index: &Index, members: &BTreeMap<&str, &LockedPackage>, relation: &Relation) -> bool {
    index.providers(&relation.name).iter().any(|(number, version)| {
        let fits = match (version, &relation.bound) {
            (_, None) => true,
            (Some(version), Some(_)) => relation.admits(version),
            (None, Some(_)) => false,
        };
        fits && members.contains_key(index.package(*number).name.as_str())
    })
}

fn misfit(
    index: &Index,
    package: &Package,
    field: &str,
    group: &Group,
    members: &BTreeMap<&str, &LockedPackage>,
) -> Misfit {
    let shown = group.iter().map(Relation::to_string).collect::<Vec<_>>().join(" | ");
    let named = group.iter().flat_map(|relation| {
        let providers =
            index.providers(&relation.name).iter().map(|(number, _)| index.package(*number).name.as_str());
        std::iter::once(relation.name.as_str()).chain(providers).collect::<Vec<_>>()
    });
    let concerned: Vec<&LockedPackage> = named.filter_map(|name| members.get(name).copied()).collect();
    let have =
        concerned.iter().map(|member| format!("{} {}", member.name, member.version)).collect::<Vec<_>>();
    let have = if have.is_empty() { "nothing of it".to_owned() } else { have.join(", ") };
    Misfit {
        why: format!("{} {} says {field}: {shown}; the lock has {have}", package.name, package.version),
        sources: concerned.iter().map(|member| member.source.clone()).collect(),
    }
}

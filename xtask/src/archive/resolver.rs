//! Which packages a request needs: apt's choices on an empty system, without recommends.
//!
//! Depth first in the order of the fields, as apt does. Of alternatives the first that can be had is taken, a real
//! package before its providers; one that is chosen already wins. Unlike apt, a choice that leads into a conflict is
//! taken back. Candidates are only ever the best version of each package.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use anyhow::{Result, anyhow, bail};

use super::index::{Index, Package};
use super::relation::{self, Group, Qualifier, Relation};
use super::sets::Declaration;

/// Choices tried before giving up: far above any real request (a desktop takes some thousands), far below for ever.
const STEP_LIMIT: usize = 200_000;

/// Who wants the packages named by the caller.
const REQUEST: &str = "the request";

/// Resolves one set's declaration to package numbers, ordered by name.
pub fn resolve_set(index: &Index, declaration: &Declaration) -> Result<Vec<usize>> {
    let names: Vec<&str> = declaration.closure.iter().map(String::as_str).collect();
    let excluded: HashSet<&str> = declaration.exclude.iter().map(String::as_str).collect();
    let mut packages: BTreeSet<usize> = resolve(index, &names, &excluded)?.into_iter().collect();
    for name in &declaration.single {
        packages.insert(index.candidate(name).ok_or_else(|| unknown(name))?);
    }
    if let Some(name) = &declaration.kernel {
        packages.insert(kernel(index, name)?);
    }
    let mut packages: Vec<usize> = packages.into_iter().collect();
    packages.sort_by_key(|number| &index.package(*number).name);
    Ok(packages)
}

/// The closure of the named packages.
pub fn resolve(index: &Index, names: &[&str], excluded: &HashSet<&str>) -> Result<Vec<usize>> {
    let mut solver = Solver {
        index,
        excluded,
        groups: HashMap::new(),
        chosen: Vec::new(),
        by_name: HashMap::new(),
        provided: HashMap::new(),
        refused: HashMap::new(),
    };
    // As for apt, what is asked for is chosen before any dependency is looked at.
    let mut pending = None;
    for name in names.iter().rev() {
        index.candidate(name).or(index.providers(name).first().map(|p| p.0)).ok_or_else(|| unknown(name))?;
        pending = Pending::push(Rc::new(vec![Relation::named(name)]), REQUEST, pending);
    }
    solver.run(pending)?;
    Ok(solver.chosen)
}

fn unknown(name: &str) -> anyhow::Error {
    anyhow!("no suite of the archive has a package {name:?}")
}

/// The versioned kernel package a meta-package depends on.
fn kernel(index: &Index, meta: &str) -> Result<usize> {
    let package = index.package(index.candidate(meta).ok_or_else(|| unknown(meta))?);
    let groups = parse(package, "Depends", &package.depends)?;
    let image = groups.iter().flatten().find(|relation| relation.name.starts_with("linux-image-"));
    let image = image.ok_or_else(|| anyhow!("{meta} depends on no linux-image-… package"))?;
    index
        .candidate(&image.name)
        .filter(|number| image.admits(&index.package(*number).version))
        .ok_or_else(|| anyhow!("{meta} needs {image}, which no suite has"))
}

fn parse(package: &Package, field: &str, text: &str) -> Result<Vec<Group>> {
    relation::parse(text).map_err(|error| anyhow!("{} {}: {field}: {error}", package.name, package.version))
}

/// A persistent list of groups still to satisfy: taking a choice back is keeping the old head.
struct Pending {
    group: Rc<Group>,
    wanted_by: String,
    next: Option<Rc<Pending>>,
}

impl Pending {
    fn push(group: Rc<Group>, by: &str, next: Option<Rc<Pending>>) -> Option<Rc<Pending>> {
        Some(Rc::new(Pending { group, wanted_by: by.to_owned(), next }))
    }

    /// Puts groups behind those waiting.
    fn append(list: Option<Rc<Pending>>, groups: Vec<(Rc<Group>, &str)>) -> Option<Rc<Pending>> {
        let mut waiting = Vec::new();
        let mut at = list;
        while let Some(node) = at {
            waiting.push((node.group.clone(), node.wanted_by.clone()));
            at = node.next.clone();
        }
        let new = groups.into_iter().map(|(group, by)| (group, by.to_owned()));
        let all: Vec<_> = waiting.into_iter().chain(new).collect();
        all.into_iter().rev().fold(None, |next, (group, by)| Pending::push(group, &by, next))
    }
}

/// A point to come back to.
struct Decision {
    options: Vec<usize>,
    tried: usize,
    chosen: usize,
    at: Rc<Pending>,
}

/// The parsed relations of one package.
struct Relations {
    needs: Vec<Rc<Group>>,
    conflicts: Vec<Relation>,
    provides: Vec<String>,
}

struct Solver<'a> {
    index: &'a Index,
    excluded: &'a HashSet<&'a str>,
    groups: HashMap<usize, Rc<Relations>>,
    chosen: Vec<usize>,
    by_name: HashMap<&'a str, usize>,
    /// Virtual name → chosen packages that provide it.
    provided: HashMap<String, Vec<usize>>,
    /// Name → chosen packages that conflict with it.
    refused: HashMap<String, Vec<(usize, Relation)>>,
}

impl<'a> Solver<'a> {
    fn run(&mut self, mut pending: Option<Rc<Pending>>) -> Result<()> {
        let mut decisions: Vec<Decision> = Vec::new();
        let mut first_dead_end: Option<String> = None;
        for _ in 0..STEP_LIMIT {
            let Some(at) = pending else { return Ok(()) };
            if self.satisfied(&at.group) {
                pending = at.next.clone();
                continue;
            }
            let options = self.options(&at.group);
            let possible = self.possible(&options)?;
            if let Some(first) = possible.first() {
                decisions.push(Decision {
                    tried: 1,
                    chosen: self.chosen.len(),
                    at: at.clone(),
                    options: possible.clone(),
                });
                pending = self.choose(*first, &at)?;
                continue;
            }
            let dead_end = self.explain(&at, &options)?;
            first_dead_end.get_or_insert(dead_end);
            pending = match self.take_back(&mut decisions)? {
                Some(pending) => pending,
                None => bail!("{}", first_dead_end.unwrap_or_default()),
            };
        }
        bail!(
            "the resolver gave up after {STEP_LIMIT} steps; first dead end: {}",
            first_dead_end.unwrap_or_default()
        )
    }

    /// Returns to the last decision with an untried option; `None` when there is none.
    fn take_back(&mut self, decisions: &mut Vec<Decision>) -> Result<Option<Option<Rc<Pending>>>> {
        while let Some(mut decision) = decisions.pop() {
            self.forget(decision.chosen);
            let Some(option) = decision.options.get(decision.tried).copied() else { continue };
            decision.tried += 1;
            let at = decision.at.clone();
            decisions.push(decision);
            return self.choose(option, &at).map(Some);
        }
        Ok(None)
    }

    fn choose(&mut self, number: usize, at: &Rc<Pending>) -> Result<Option<Rc<Pending>>> {
        let package = self.index.package(number);
        let relations = self.relations(number)?;
        self.chosen.push(number);
        self.by_name.insert(&package.name, number);
        for name in &relations.provides {
            self.provided.entry(name.clone()).or_default().push(number);
        }
        for relation in &relations.conflicts {
            self.refused.entry(relation.name.clone()).or_default().push((number, relation.clone()));
        }
        let needs = relations.needs.iter();
        if at.wanted_by == REQUEST {
            let needs = needs.map(|group| (group.clone(), package.name.as_str()));
            return Ok(Pending::append(at.next.clone(), needs.collect()));
        }
        let ahead = |pending, group: &Rc<Group>| Pending::push(group.clone(), &package.name, pending);
        Ok(needs.rev().fold(at.next.clone(), ahead))
    }

    fn forget(&mut self, keep: usize) {
        for number in self.chosen.split_off(keep) {
            self.by_name.remove(self.index.package(number).name.as_str());
            self.provided.values_mut().for_each(|numbers| numbers.retain(|n| *n != number));
            self.refused.values_mut().for_each(|refusals| refusals.retain(|(n, _)| *n != number));
        }
    }

    fn relations(&mut self, number: usize) -> Result<Rc<Relations>> {
        if let Some(relations) = self.groups.get(&number) {
            return Ok(relations.clone());
        }
        let package = self.index.package(number);
        let mut needs = parse(package, "Pre-Depends", &package.pre_depends)?;
        needs.extend(parse(package, "Depends", &package.depends)?);
        let mut conflicts = parse(package, "Conflicts", &package.conflicts)?;
        conflicts.extend(parse(package, "Breaks", &package.breaks)?);
        let provides = parse(package, "Provides", &package.provides)?;
        let relations = Rc::new(Relations {
            needs: needs.into_iter().map(Rc::new).collect(),
            conflicts: conflicts.into_iter().flatten().collect(),
            provides: provides.into_iter().flatten().map(|relation| relation.name).collect(),
        });
        self.groups.insert(number, relations.clone());
        Ok(relations)
    }

    fn satisfied(&self, group: &Group) -> bool {
        let satisfies =
            |r: &Relation| self.excluded.contains(r.name.as_str()) || self.chosen_match(r).is_some();
        group.iter().any(satisfies)
    }

    /// The chosen package that satisfies a relation.
    fn chosen_match(&self, relation: &Relation) -> Option<usize> {
        let real = self.by_name.get(relation.name.as_str()).into_iter();
        let providers = self.provided.get(&relation.name).into_iter().flatten();
        real.chain(providers).copied().find(|number| self.matches(*number, relation))
    }

    fn name(&self, number: usize) -> &str {
        &self.index.package(number).name
    }

    /// Whether a package satisfies a relation, by its own name or by what it provides.
    fn matches(&self, number: usize, relation: &Relation) -> bool {
        let package = self.index.package(number);
        match relation.qualifier {
            Qualifier::Foreign => return false,
            Qualifier::Any if package.name == relation.name && package.multi_arch != "allowed" => {
                return false;
            }
            Qualifier::Any | Qualifier::Native => {}
        }
        if package.name == relation.name && relation.admits(&package.version) {
            return true;
        }
        self.index.providers(&relation.name).iter().filter(|(provider, _)| *provider == number).any(
            |(_, version)| {
                match (version, &relation.bound) {
                    (_, None) => true,
                    (Some(version), Some(_)) => relation.admits(version),
                    // An unversioned Provides never satisfies a versioned relation (policy, section 7.5).
                    (None, Some(_)) => false,
                }
            },
        )
    }

    /// Everything that could satisfy a group, best first.
    fn options(&self, group: &Group) -> Vec<usize> {
        let mut options = Vec::new();
        for relation in group {
            let real = self.index.candidate(&relation.name).into_iter();
            let mut providers: Vec<usize> =
                self.index.providers(&relation.name).iter().map(|p| p.0).collect();
            providers.sort_by_key(|number| self.rank(*number));
            let matching = real.chain(providers).filter(|number| self.matches(*number, relation));
            options.extend(matching.collect::<Vec<_>>());
        }
        let mut seen = HashSet::new();
        options.retain(|number| seen.insert(*number));
        options
    }

    fn rank(&self, number: usize) -> (usize, &str) {
        const ORDER: [&str; 5] = ["required", "important", "standard", "optional", "extra"];
        let package = self.index.package(number);
        let priority = ORDER.iter().position(|name| *name == package.priority).unwrap_or(ORDER.len());
        (priority, &package.name)
    }

    fn possible(&mut self, options: &[usize]) -> Result<Vec<usize>> {
        let mut possible = Vec::new();
        for option in options {
            if self.obstacle(*option)?.is_none() {
                possible.push(*option);
            }
        }
        Ok(possible)
    }

    /// Why a package cannot join those chosen.
    fn obstacle(&mut self, number: usize) -> Result<Option<String>> {
        let package = self.index.package(number);
        if self.excluded.contains(package.name.as_str()) {
            return Ok(Some(format!("{} is excluded", package.name)));
        }
        let relations = self.relations(number)?;
        for relation in &relations.conflicts {
            // A package may conflict with what it provides itself, to be the only one (policy, section 7.6.2).
            if let Some(other) = self.chosen_match(relation).filter(|other| *other != number) {
                return Ok(Some(format!(
                    "{} conflicts with {relation} ({})",
                    package.name,
                    self.name(other)
                )));
            }
        }
        let names = relations.provides.iter().chain(std::iter::once(&package.name));
        for (other, relation) in names.filter_map(|name| self.refused.get(name)).flatten() {
            if *other != number && self.matches(number, relation) {
                return Ok(Some(format!(
                    "{} conflicts with {relation} ({})",
                    self.name(*other),
                    package.name
                )));
            }
        }
        Ok(None)
    }

    fn explain(&mut self, at: &Pending, options: &[usize]) -> Result<String> {
        let wanted = at.group.iter().map(Relation::to_string).collect::<Vec<_>>().join(" | ");
        let by = &at.wanted_by;
        if options.is_empty() {
            return Ok(format!("{by} needs {wanted}, which no suite has"));
        }
        let mut reasons = Vec::new();
        for option in options {
            reasons.extend(self.obstacle(*option)?);
        }
        Ok(format!("{by} needs {wanted}, but {}", reasons.join("; ")))
    }
}

#[cfg(test)]
mod tests;

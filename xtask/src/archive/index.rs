//! The packages that the archive offers: parsed `Packages` files of every suite, merged.
//!
//! An index is only built from text whose hash a signed release file vouches for.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};

use super::lock_file::is_below_the_mirror;
use super::relation::{self, Relation};
use super::version;

/// One version of one binary package, as the archive describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Package {
    /// Binary package name.
    pub name: String,
    /// Full Debian version.
    pub version: String,
    /// `amd64` or `all`.
    pub architecture: String,
    /// Source package.
    pub source: String,
    /// Version of the source package.
    pub source_version: String,
    /// Path below the mirror's root.
    pub filename: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 in lower-case hexadecimal.
    pub sha256: String,
    /// Suite that offers it.
    pub suite: String,
    /// `required`, `important`, `standard`, `optional` or `extra`.
    pub priority: String,
    /// `Multi-Arch` field.
    pub multi_arch: String,
    /// Raw relation fields.
    pub pre_depends: String,
    /// Raw `Depends`.
    pub depends: String,
    /// Raw `Conflicts`.
    pub conflicts: String,
    /// Raw `Breaks`.
    pub breaks: String,
    /// Raw `Provides`.
    pub provides: String,
}

/// Every package of every suite, with what each provides.
#[derive(Debug, Default)]
pub struct Index {
    packages: Vec<Package>,
    /// Best version first.
    by_name: HashMap<String, Vec<usize>>,
    /// Virtual name → (package, provided version).
    providers: HashMap<String, Vec<(usize, Option<String>)>>,
}

impl Index {
    /// Adds the packages of one `Packages` file.
    pub fn add(&mut self, text: &str, suite: &str) -> Result<()> {
        for paragraph in Paragraphs(text) {
            let package = parse_package(paragraph, suite).with_context(|| format!("index of {suite}"))?;
            if matches!(package.architecture.as_str(), "amd64" | "all") {
                self.packages.push(package);
            }
        }
        Ok(())
    }

    /// Orders what was added. Must run before any look-up; only the best version of each package is a candidate,
    /// as for apt with equal pins.
    pub fn finish(mut self) -> Result<Self> {
        for (number, package) in self.packages.iter().enumerate() {
            self.by_name.entry(package.name.clone()).or_default().push(number);
        }
        for numbers in self.by_name.values_mut().filter(|numbers| numbers.len() > 1) {
            let version = |n: &usize| self.packages[*n].version.as_str();
            // Stable: of equal versions, the suite added first wins.
            numbers.sort_by(|a, b| version::compare(version(b), version(a)));
        }
        for (number, package) in self.packages.iter().enumerate() {
            let best = self.by_name[&package.name][0] == number;
            if package.provides.is_empty() || !best {
                continue;
            }
            let groups = relation::parse(&package.provides)
                .map_err(|error| anyhow::anyhow!("{}: Provides: {error}", package.name))?;
            for Relation { name, bound, .. } in groups.into_iter().flatten() {
                self.providers.entry(name).or_default().push((number, bound.map(|(_, version)| version)));
            }
        }
        Ok(self)
    }

    /// How many package versions there are.
    pub fn len(&self) -> usize {
        self.packages.len()
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.packages.is_empty()
    }

    /// The package with this number.
    pub fn package(&self, number: usize) -> &Package {
        &self.packages[number]
    }

    /// Every version of every package, in no order that means anything.
    pub fn packages(&self) -> &[Package] {
        &self.packages
    }

    /// The candidate for a name: its best version.
    pub fn candidate(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).and_then(|numbers| numbers.first()).copied()
    }

    /// Candidates that provide a virtual name, with the version they provide.
    pub fn providers(&self, name: &str) -> &[(usize, Option<String>)] {
        self.providers.get(name).map_or(&[], Vec::as_slice)
    }
}

/// Splits a control file at its empty lines.
struct Paragraphs<'a>(&'a str);

impl<'a> Iterator for Paragraphs<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = self.0.trim_start_matches('\n');
        if text.is_empty() {
            return None;
        }
        let end = text.find("\n\n").unwrap_or(text.len());
        self.0 = &text[end..];
        Some(&text[..end])
    }
}

fn parse_package(paragraph: &str, suite: &str) -> Result<Package> {
    let mut package = Package { suite: suite.to_owned(), ..Package::default() };
    let mut source = None;
    for line in paragraph.split('\n') {
        // Continuation lines only occur in fields that are not read here.
        let Some((field, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        let slot = match field {
            "Package" => &mut package.name,
            "Version" => &mut package.version,
            "Architecture" => &mut package.architecture,
            "Filename" => &mut package.filename,
            "SHA256" => &mut package.sha256,
            "Priority" => &mut package.priority,
            "Multi-Arch" => &mut package.multi_arch,
            "Pre-Depends" => &mut package.pre_depends,
            "Depends" => &mut package.depends,
            "Conflicts" => &mut package.conflicts,
            "Breaks" => &mut package.breaks,
            "Provides" => &mut package.provides,
            "Source" => {
                source = Some(value);
                continue;
            }
            "Size" => {
                package.size = size(value).with_context(|| format!("Size: {value}"))?;
                continue;
            }
            _ => continue,
        };
        value.clone_into(slot);
    }
    (package.source, package.source_version) = source_of(&package, source);
    validate(&package)?;
    Ok(package)
}

/// Not more than the lock file can hold: TOML's integers have a sign.
fn size(text: &str) -> Option<u64> {
    text.parse().ok().filter(|size| i64::try_from(*size).is_ok())
}

fn source_of(package: &Package, field: Option<&str>) -> (String, String) {
    match field.map(|text| text.split_once(" (").unwrap_or((text, ""))) {
        None => (package.name.clone(), package.version.clone()),
        Some((name, "")) => (name.to_owned(), package.version.clone()),
        Some((name, version)) => (name.to_owned(), version.trim_end_matches(')').to_owned()),
    }
}

fn validate(package: &Package) -> Result<()> {
    let name = &package.name;
    if name.is_empty() || package.version.is_empty() {
        bail!("a paragraph without Package or Version");
    }
    if package.sha256.len() != 64 || !package.sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
        bail!("{name}: SHA256 is missing or malformed");
    }
    let path = &package.filename;
    if !is_below_the_mirror(path) {
        bail!("{name}: Filename {path:?} is not a path below the mirror");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZERO: &str = "0000000000000000000000000000000000000000000000000000000000000000";

    fn paragraph(name: &str, version: &str, more: &str) -> String {
        format!(
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\nFilename: pool/{name}.deb\nSize: 1\nSHA256: {ZERO}\n{more}\n"
        )
    }

    #[test]
    fn the_best_version_is_the_candidate_and_its_provides_count() {
        let mut index = Index::default();
        index.add(&paragraph("a", "1.0-1", "Provides: old\n"), "trixie").unwrap();
        index.add(&paragraph("a", "1.0-1+deb13u1", "Provides: new (= 3)\n"), "trixie-security").unwrap();
        let index = index.finish().unwrap();
        let best = index.package(index.candidate("a").unwrap());
        assert_eq!((best.version.as_str(), best.suite.as_str()), ("1.0-1+deb13u1", "trixie-security"));
        assert!(index.providers("old").is_empty());
        assert_eq!(index.providers("new")[0].1.as_deref(), Some("3"));
    }

    #[test]
    fn the_source_is_the_package_itself_unless_named() {
        let text = paragraph("a", "2", "") + "\n" + &paragraph("b", "2+b1", "Source: s (2)\n");
        let mut index = Index::default();
        index.add(&text, "trixie").unwrap();
        let sources: Vec<_> =
            index.packages.iter().map(|p| (p.source.as_str(), p.source_version.as_str())).collect();
        assert_eq!(sources, [("a", "2"), ("s", "2")]);
    }

    #[test]
    fn a_size_that_the_lock_cannot_hold_is_refused() {
        for (size, fits) in [("9223372036854775807", true), ("9223372036854775808", false), ("-1", false)] {
            let text = paragraph("a", "2", "").replace("Size: 1", &format!("Size: {size}"));
            assert_eq!(Index::default().add(&text, "trixie").is_ok(), fits, "{size}");
        }
    }

    #[test]
    fn a_path_that_leaves_the_mirror_is_refused() {
        // The lock file, which is made from it, takes no others either.
        for path in ["../../etc/passwd", "/etc/passwd", "pool//a.deb", "pool/./a.deb", "pool/"] {
            let text = paragraph("a", "2", "").replace("pool/a.deb", path);
            let error = Index::default().add(&text, "trixie").unwrap_err();
            assert!(format!("{error:#}").contains("not a path below the mirror"), "{error:#}");
        }
    }
}

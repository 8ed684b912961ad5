//! Which mirrors to ask: those given, else those of the host's own apt configuration.
//!
//! No mirror's name is ever written into the repository, so there is no built-in default.

use anyhow::{Result, bail};
use camino::{Utf8Path, Utf8PathBuf};

/// Code names and aliases by which apt configurations name Debian's suites.
const SUITES: [&str; 12] = [
    "stretch",
    "buster",
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "stable",
    "oldstable",
    "testing",
    "unstable",
];

/// In an archive of ours: what comes from the main archive.
const MAIN_FOLDER: &str = "debian";
/// And what from the security archive.
const SECURITY_FOLDER: &str = "debian-security";

/// How a mirror's address may begin. A folder needs its whole path.
const UNDERSTOOD: [&str; 3] = ["http://", "https://", "file:///"];

/// Base addresses, without a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirrors {
    /// The main archive.
    pub main: String,
    /// The security archive.
    pub security: String,
}

impl Mirrors {
    /// The given mirrors; what is missing comes from apt's configuration below `etc_apt`.
    pub fn choose(main: Option<&str>, security: Option<&str>, etc_apt: &Utf8Path) -> Result<Self> {
        // A variable set to nothing is one not set.
        let [main, security] = [main, security].map(|given| given.filter(|uri| !uri.is_empty()));
        let found = if main.is_some() && security.is_some() { Vec::new() } else { read_sources(etc_apt) };
        let pick = |given: Option<&str>, want_security: bool, flag: &str, variable: &str| {
            let from_apt = || {
                let mut hits = found.iter().filter(|source| source.security() == Some(want_security));
                hits.next().map(|source| source.uri.clone())
            };
            match given.map(str::to_owned).or_else(from_apt) {
                Some(uri) if UNDERSTOOD.iter().any(|scheme| uri.starts_with(scheme)) => {
                    Ok(uri.trim_end_matches('/').to_owned())
                }
                Some(uri) => {
                    bail!("mirror {uri:?}: only http://, https:// and file:///… are understood; use {flag}")
                }
                None => bail!(
                    "no Debian mirror: the apt configuration in {etc_apt} names none; give one with {flag} URL or {variable}=URL"
                ),
            }
        };
        Ok(Mirrors {
            main: pick(main, false, "--mirror", "KONTOR_MIRROR")?,
            security: pick(security, true, "--mirror-security", "KONTOR_MIRROR_SECURITY")?,
        })
    }

    /// Those in an archive of `cargo xtask lock --archive`, which lies at an absolute path.
    #[must_use]
    pub fn in_archive(archive: &Utf8Path) -> Self {
        let folder = |name: &str| format!("file://{}", super::cache::escape(archive.join(name).as_str()));
        Mirrors { main: folder(MAIN_FOLDER), security: folder(SECURITY_FOLDER) }
    }

    /// The mirror that serves a suite.
    pub fn for_suite(&self, suite: &str) -> &str {
        if is_security(suite) { &self.security } else { &self.main }
    }
}

/// The folder of an archive of ours that is laid out as a mirror of the suite's archive.
#[must_use]
pub fn archive_folder(suite: &str) -> &'static str {
    if is_security(suite) { SECURITY_FOLDER } else { MAIN_FOLDER }
}

fn is_security(suite: &str) -> bool {
    suite.ends_with("-security")
}

/// One suite of a mirror, as apt is told.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// The mirror's address.
    pub uri: String,
    /// The suite.
    pub suite: String,
}

impl Source {
    /// `None` when the suite is not one of Debian's.
    fn security(&self) -> Option<bool> {
        let suite = self.suite.as_str();
        if let Some(name) = suite.strip_suffix("-security") {
            return SUITES.contains(&name).then_some(true);
        }
        // Until buster the security suite was called `buster/updates`.
        if let Some(name) = suite.strip_suffix("/updates") {
            return SUITES.contains(&name).then_some(true);
        }
        let name = suite.strip_suffix("-updates").unwrap_or(suite);
        SUITES.contains(&name).then_some(false)
    }
}

/// Whether the host's administrator told apt to accept release files past their date, as one does for a frozen mirror.
pub fn stale_is_fine(etc_apt: &Utf8Path) -> bool {
    let mut files = vec![etc_apt.join("apt.conf")];
    if let Ok(entries) = etc_apt.join("apt.conf.d").read_dir_utf8() {
        files.extend(entries.flatten().map(|entry| entry.into_path()));
    }
    // Later files win (apt.conf(5)).
    files.sort();
    let says = |text: String| {
        let value =
            text.lines().rev().find_map(|line| line.trim().strip_prefix("Acquire::Check-Valid-Until"))?;
        Some(value.trim_matches([' ', '\t', '"', ';']).to_ascii_lowercase())
    };
    let last = files.iter().rev().filter_map(|path| std::fs::read_to_string(path).ok()).find_map(says);
    last.is_some_and(|value| matches!(value.as_str(), "false" | "no" | "off" | "0" | "without" | "disable"))
}

fn read_sources(etc_apt: &Utf8Path) -> Vec<Source> {
    let mut files: Vec<Utf8PathBuf> = vec![etc_apt.join("sources.list")];
    if let Ok(entries) = etc_apt.join("sources.list.d").read_dir_utf8() {
        files.extend(entries.flatten().map(|entry| entry.into_path()));
    }
    files.sort();
    let mut sources = Vec::new();
    for path in files {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        sources.extend(parse(&text, path.extension().unwrap_or_default()));
    }
    sources
}

/// The sources in a file of apt's, which is in one of two formats by its extension.
#[must_use]
pub fn parse(text: &str, extension: &str) -> Vec<Source> {
    match extension {
        "list" => text.lines().flat_map(parse_line).collect(),
        "sources" => text.split("\n\n").flat_map(parse_stanza).collect(),
        _ => Vec::new(),
    }
}

/// `deb [options] URI SUITE COMPONENT…`
fn parse_line(line: &str) -> Option<Source> {
    let rest = line.trim().strip_prefix("deb ")?.trim_start();
    let rest = match rest.strip_prefix('[') {
        Some(options) => options.split_once(']')?.1,
        None => rest,
    };
    let mut words = rest.split_whitespace();
    Some(Source { uri: words.next()?.to_owned(), suite: words.next()?.to_owned() })
}

/// One deb822 stanza (sources.list(5)).
fn parse_stanza(stanza: &str) -> Vec<Source> {
    let lines: Vec<&str> = stanza.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let field = |name: &str| {
        let start = lines.iter().position(|line| {
            line.split_once(':').is_some_and(|(field, _)| field.eq_ignore_ascii_case(name))
        })?;
        let first = lines[start].split_once(':').map_or("", |(_, value)| value);
        let more = lines[start + 1..].iter().take_while(|line| line.starts_with([' ', '\t'])).copied();
        Some(std::iter::once(first).chain(more).flat_map(str::split_whitespace).collect::<Vec<_>>())
    };
    let words = |name| field(name).unwrap_or_default();
    if !words("Types").contains(&"deb") || words("Enabled").first() == Some(&"no") {
        return Vec::new();
    }
    let suites = words("Suites");
    let pairs = words("URIs").into_iter().flat_map(|uri| suites.iter().map(move |suite| (uri, *suite)));
    pairs.map(|(uri, suite)| Source { uri: uri.to_owned(), suite: suite.to_owned() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(files: &[(&str, &str)], expect: Result<(&str, &str), &str>) {
        let dir = tempfile::tempdir().unwrap();
        let apt = Utf8Path::from_path(dir.path()).unwrap();
        std::fs::create_dir(apt.join("sources.list.d")).unwrap();
        for (name, text) in files {
            std::fs::write(apt.join(name), text).unwrap();
        }
        match (Mirrors::choose(None, None, apt), expect) {
            (Ok(found), Ok((main, security))) => {
                assert_eq!((&*found.main, &*found.security), (main, security))
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (found, expect) => panic!("{found:?} but expected {expect:?}"),
        }
    }

    #[test]
    fn one_line_format() {
        let text = "# deb http://old/ bookworm main\ndeb-src http://src/ bookworm main\n\
            deb [signed-by=/x arch=amd64] https://tool.example/apt stable-tool main\n\
            deb [arch=amd64] http://m.example/debian/ bookworm main\n\
            deb http://s.example/sec bookworm-security main\n";
        check(&[("sources.list", text)], Ok(("http://m.example/debian", "http://s.example/sec")));
    }

    #[test]
    fn deb822_format() {
        let text = "Types: deb\n# a comment\nURIs: http://m.example/debian\nSuites: bookworm\n bookworm-updates\nComponents: main\n\n\
            Types: deb deb-src\nURIs: http://s.example/sec\nSuites: stable-security\n\n\
            Enabled: no\nTypes: deb\nURIs: http://off.example\nSuites: trixie\n";
        check(
            &[("sources.list.d/debian.sources", text)],
            Ok(("http://m.example/debian", "http://s.example/sec")),
        );
    }

    #[test]
    fn nothing_found_says_what_to_give() {
        check(
            &[("sources.list", "deb http://u.example noble main\n")],
            Err("--mirror URL or KONTOR_MIRROR=URL"),
        );
        check(&[("sources.list", "deb http://m.example trixie main\n")], Err("--mirror-security URL"));
        check(&[("sources.list", "deb ftp://m.example trixie main\n")], Err("only http://"));
    }

    #[test]
    fn apts_word_on_stale_mirrors() {
        let dir = tempfile::tempdir().unwrap();
        let apt = Utf8Path::from_path(dir.path()).unwrap();
        assert!(!stale_is_fine(apt));
        std::fs::create_dir(apt.join("apt.conf.d")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(apt.join("apt.conf.d").join(name), text).unwrap();
        write("10", "# x\nAcquire::Check-Valid-Until \"false\";\n");
        assert!(stale_is_fine(apt));
        write("20", "Acquire::Check-Valid-Until \"true\";\n");
        assert!(!stale_is_fine(apt));
    }
}

//! The house rules of STYLE as tests: sizes, headers, dependency direction, named paths.
//!
//! Reads the tree as git sees it (tracked and new files, nothing ignored), so build outputs never count.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const TOP_LEVEL_FOLDERS: [&str; 9] =
    [".cargo", ".ci", "board", "docs", "firmware", "images", "qemu-tests", "rootfs", "xtask"];
const FORBIDDEN_STEMS: [&str; 5] = ["utils", "util", "common", "misc", "helpers"];
/// Libraries that hold decisions: no executor, no system calls.
const SANS_IO: [&str; 13] = [
    "boot",
    "component",
    "config",
    "delta",
    "dhcp4",
    "dns",
    "firewall",
    "migrate",
    "network",
    "samba",
    "status",
    "supervise",
    "update",
];
/// Of these, the protocol libraries know nothing of each other nor of the office model.
const PROTOCOLS: [&str; 3] = ["dhcp4", "dns", "supervise"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_path_buf()
}

/// Every file below `folder` that is not a build output, relative to the root.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![folder.to_path_buf()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).expect("readable folder") {
            let path = entry.expect("readable entry").path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
            let output = ["target", ".git", "corpus", "artifacts"].contains(&name.as_str());
            if path.is_dir() && !output {
                pending.push(path);
            } else if path.is_file() {
                found.push(path.strip_prefix(root()).expect("below the root").to_path_buf());
            }
        }
    }
    found.sort();
    found
}

fn rust_files() -> Vec<(PathBuf, String)> {
    files_below(&root())
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .map(|path| (path.clone(), fs::read_to_string(root().join(&path)).expect("UTF-8 source")))
        .collect()
}

fn is_test_file(path: &Path) -> bool {
    path.components().any(|c| c.as_os_str() == "tests" || c.as_os_str() == "fuzz")
        || path.file_name().is_some_and(|n| n == "tests.rs")
}

/// Lines before the file's own test module.
fn code_lines(text: &str) -> usize {
    text.lines().position(|line| line.starts_with("#[cfg(test)]")).unwrap_or_else(|| text.lines().count())
}

fn assert_none(rule: &str, offenders: &[String]) {
    assert!(offenders.is_empty(), "{rule}:\n  {}", offenders.join("\n  "));
}

/// A product's program is built without naming features (`xtask/src/image/firmware.rs`): none for tests may be on by itself.
#[test]
fn no_feature_for_tests_is_on_by_default() {
    for manifest in ["firmware/kontor/Cargo.toml", "firmware/migrate/Cargo.toml"] {
        let text = fs::read_to_string(root().join(manifest)).expect("a manifest");
        let manifest_table: toml::Table = toml::from_str(&text).expect("TOML");
        let features = manifest_table["features"].as_table().expect("features");
        assert!(features.contains_key("test-migration") && !features.contains_key("default"), "{manifest}");
        assert!(!text.contains("features = [\"test-migration\""), "{manifest} turns it on");
    }
    assert_eq!(
        kontor_migrate::TABLE.span().newest,
        kontor_migrate::TABLE.native,
        "the program knows the newest"
    );
}

#[test]
fn only_known_top_level_folders() {
    let found: BTreeSet<String> = files_below(&root())
        .iter()
        .filter(|path| path.components().count() > 1)
        .filter_map(|path| Some(path.components().next()?.as_os_str().to_str()?.to_owned()))
        .collect();
    let unknown: Vec<String> =
        found.into_iter().filter(|f| !TOP_LEVEL_FOLDERS.contains(&f.as_str())).collect();
    assert_none("top-level folders that DESIGN does not name", &unknown);
}

#[test]
fn every_file_says_what_it_owns() {
    let offenders: Vec<String> = rust_files()
        .iter()
        .filter(|(_, text)| !text.trim_start_matches("#![no_main]\n").starts_with("//!"))
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert_none("files without a `//!` header", &offenders);
}

#[test]
fn no_drawer_of_everything() {
    let offenders: Vec<String> = files_below(&root())
        .iter()
        .filter(|path| {
            path.components().any(|component| {
                let name = Path::new(component.as_os_str()).file_stem().and_then(|s| s.to_str());
                name.is_some_and(|stem| FORBIDDEN_STEMS.contains(&stem))
            })
        })
        .map(|path| path.display().to_string())
        .collect();
    assert_none("names that say nothing", &offenders);
}

#[test]
fn files_stay_readable() {
    let mut sizes: Vec<(usize, String)> = rust_files()
        .iter()
        .filter(|(path, _)| !is_test_file(path))
        .map(|(path, text)| (code_lines(text), path.display().to_string()))
        .collect();
    sizes.sort();
    let too_long: Vec<String> =
        sizes.iter().filter(|(n, _)| *n > 800).map(|(n, path)| format!("{path}: {n} lines")).collect();
    assert_none("files over 800 lines", &too_long);
    let (median, _) = &sizes[sizes.len() / 2];
    let (p90, _) = &sizes[sizes.len() * 9 / 10];
    assert!(*median <= 200, "median file has {median} lines; 200 allowed");
    assert!(*p90 <= 500, "every tenth file has over {p90} lines; 500 allowed");
}

/// `(name, first line, length)` of every function, by rustfmt's indentation.
fn functions(text: &str) -> Vec<(String, usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let body = line.trim_start();
        let indent = line.len() - body.len();
        let is_function =
            ["fn ", "pub fn ", "pub(crate) fn ", "pub(super) fn ", "async fn ", "pub(crate) async fn "]
                .iter()
                .any(|prefix| body.starts_with(prefix));
        if !is_function {
            continue;
        }
        let closing = format!("{}}}", " ".repeat(indent));
        if let Some(length) = lines[start..].iter().position(|l| *l == closing) {
            let name = body.split("fn ").nth(1).unwrap_or(body);
            found.push((name.split(['(', '<']).next().unwrap_or(name).to_owned(), start + 1, length + 1));
        }
    }
    found
}

#[test]
fn functions_fit_a_screen() {
    let mut offenders = Vec::new();
    for (path, text) in rust_files().iter().filter(|(path, _)| !is_test_file(path)) {
        for (name, line, length) in functions(text) {
            if length > 70 {
                offenders.push(format!("{}:{line}: {name} has {length} lines", path.display()));
            }
        }
    }
    assert_none("functions over 70 lines", &offenders);
}

fn manifest(path: &str) -> toml::Table {
    let text = fs::read_to_string(root().join(path)).expect("readable manifest");
    text.parse().expect("valid manifest")
}

fn dependencies(path: &str) -> BTreeSet<String> {
    let manifest = manifest(path);
    let table = manifest.get("dependencies").and_then(toml::Value::as_table);
    table.map(|t| t.keys().cloned().collect()).unwrap_or_default()
}

#[test]
fn decisions_know_no_executor_and_no_system_calls() {
    let mut offenders = Vec::new();
    for library in SANS_IO {
        let found = dependencies(&format!("firmware/{library}/Cargo.toml"));
        for forbidden in ["tokio", "nix", "rtnetlink", "kontor-sys"] {
            if found.contains(forbidden) {
                offenders.push(format!("{library} depends on {forbidden}"));
            }
        }
    }
    assert_none("decisions that do input or output", &offenders);
}

#[test]
fn protocols_know_nothing_of_each_other() {
    let mut offenders = Vec::new();
    for library in PROTOCOLS {
        for found in dependencies(&format!("firmware/{library}/Cargo.toml")) {
            if found.starts_with("kontor-") {
                offenders.push(format!("{library} depends on {found}"));
            }
        }
    }
    assert_none("protocol libraries that depend on the office model", &offenders);
}

#[test]
fn unsafe_code_lives_in_sys_alone() {
    let mut offenders = Vec::new();
    for path in files_below(&root()).iter().filter(|p| p.file_name().is_some_and(|n| n == "Cargo.toml")) {
        let manifest = manifest(path.to_str().expect("UTF-8 path"));
        let inherits = manifest.get("lints").and_then(|l| l.get("workspace")).is_some();
        let exempt = path.starts_with("firmware/sys")
            || path.components().any(|c| c.as_os_str() == "fuzz")
            || path.components().count() == 1;
        if !inherits && !exempt {
            offenders.push(path.display().to_string());
        }
    }
    assert_none("crates that do not inherit the workspace's lints", &offenders);
}

#[test]
fn no_unfinished_business() {
    let markers = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["#[ign", "ore"].concat()];
    let mut offenders = Vec::new();
    for (path, text) in rust_files() {
        for (number, line) in text.lines().enumerate() {
            if markers.iter().any(|marker| line.contains(marker.as_str())) {
                offenders.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert_none("markers of unfinished work", &offenders);
}

#[test]
fn tests_wait_for_events() {
    let sleeping = ["thread::sl", "eep"].concat();
    let mut offenders = Vec::new();
    for (path, text) in rust_files() {
        let tests_from =
            if is_test_file(&path) || path.starts_with("qemu-tests") { 0 } else { code_lines(&text) };
        for (number, line) in text.lines().enumerate().skip(tests_from) {
            if line.contains(&sleeping) {
                offenders.push(format!("{}:{}", path.display(), number + 1));
            }
        }
    }
    assert_none("tests that sleep", &offenders);
}

#[test]
fn no_mirror_is_named() {
    let mut offenders = Vec::new();
    for path in files_below(&root().join("rootfs")) {
        let text = fs::read_to_string(root().join(&path)).unwrap_or_default();
        if text.contains("://") {
            offenders.push(path.display().to_string());
        }
    }
    assert_none("files under rootfs/ that name a host", &offenders);
}

#[test]
fn the_architecture_names_what_exists() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let mut offenders = Vec::new();
    for quoted in text.split('`').skip(1).step_by(2) {
        let in_tree = TOP_LEVEL_FOLDERS.iter().any(|folder| quoted.starts_with(&format!("{folder}/")));
        let pattern = quoted.contains(['*', '<', ' ', '{']);
        if in_tree && !pattern && !root().join(quoted).exists() {
            offenders.push(quoted.to_owned());
        }
    }
    assert_none("paths in ARCHITECTURE.md that do not exist", &offenders);
}

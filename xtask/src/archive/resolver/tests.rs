//! Small archives, and what a request takes from them.

use super::*;

/// One package per line: `name version; Field: value; …`.
fn index(lines: &[&str]) -> Index {
    let zero = "0".repeat(64);
    let mut text = String::new();
    for line in lines {
        let (head, fields) = line.split_once(';').unwrap_or((line, ""));
        let (name, version) = head.split_once(' ').unwrap_or((head, "1"));
        text += &format!(
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\nFilename: p\nSize: 1\nSHA256: {zero}\n"
        );
        fields.split(';').for_each(|field| text += &format!("{}\n", field.trim()));
        text = text.trim_end().to_owned() + "\n\n";
    }
    let mut index = Index::default();
    index.add(&text, "trixie").unwrap();
    index.finish().unwrap()
}

fn solve(lines: &[&str], declaration: &Declaration) -> Result<String, String> {
    let index = index(lines);
    let numbers = resolve_set(&index, declaration).map_err(|error| format!("{error:#}"))?;
    let shown = numbers.iter().map(|n| index.package(*n).name.as_str()).collect::<Vec<_>>();
    Ok(shown.join(" "))
}

fn closure(names: &str) -> Declaration {
    Declaration { closure: names.split(' ').map(str::to_owned).collect(), ..Declaration::default() }
}

#[track_caller]
fn check(names: &str, lines: &[&str], expect: &str) {
    assert_eq!(solve(lines, &closure(names)).unwrap(), expect);
}

#[track_caller]
fn check_error(names: &str, lines: &[&str], expect: &str) {
    let error = solve(lines, &closure(names)).unwrap_err();
    assert!(error.contains(expect), "{expect:?} is not in {error:?}");
}

#[test]
fn dependencies_and_pre_dependencies_are_followed() {
    check("a", &["a; Depends: b; Pre-Depends: c", "b; Depends: a", "c", "d"], "a b c");
}

#[test]
fn the_first_alternative_that_can_be_had_is_taken() {
    check("a", &["a; Depends: b | c", "b", "c"], "a b");
    check("a", &["a; Depends: x | c", "c"], "a c");
    check("a", &["a; Depends: b (>= 2) | c", "b 1", "c"], "a c");
}

#[test]
fn what_is_chosen_already_wins() {
    check("a c", &["a; Depends: b | c", "b", "c"], "a c");
    check("a", &["a; Depends: c, b | c", "b", "c"], "a c");
}

#[test]
fn a_real_package_goes_before_its_providers() {
    check("a", &["a; Depends: m", "m", "p; Provides: m"], "a m");
    check(
        "a",
        &["a; Depends: m", "z; Provides: m; Priority: standard", "p; Provides: m; Priority: optional"],
        "a z",
    );
    check("a p", &["a; Depends: m", "m", "p; Provides: m"], "a p");
}

#[test]
fn provides_satisfy_a_bound_only_with_a_version() {
    check("a", &["a; Depends: m (>= 2)", "p; Provides: m", "q; Provides: m (= 3)"], "a q");
    check_error(
        "a",
        &["a; Depends: m (>= 2)", "p; Provides: m (= 1)"],
        "a needs m (>= 2), which no suite has",
    );
}

#[test]
fn qualifiers() {
    check("a", &["a; Depends: b:any", "b; Multi-Arch: allowed"], "a b");
    check("a", &["a; Depends: b:amd64", "b"], "a b");
    check_error("a", &["a; Depends: b:any", "b; Multi-Arch: foreign"], "a needs b:any");
    check_error("a", &["a; Depends: b:i386", "b"], "a needs b:foreign");
}

#[test]
fn conflicts_and_breaks_are_avoided() {
    check("a", &["a; Depends: b | c, d", "b; Conflicts: d", "c", "d"], "a c d");
    check("a", &["a; Depends: d, b | c", "b", "c", "d; Breaks: b (<< 2)"], "a c d");
    check("a", &["a; Depends: d, b | c", "b 2", "c", "d; Breaks: b (<< 2)"], "a b d");
    check_error("a b", &["a; Conflicts: b", "b"], "a conflicts with b");
}

#[test]
fn the_only_provider_of_its_kind_does_not_conflict_with_itself() {
    check("p", &["p; Provides: mta; Conflicts: mta", "q; Provides: mta"], "p");
    check_error("p q", &["p; Provides: mta; Conflicts: mta", "q; Provides: mta"], "conflicts with mta");
}

#[test]
fn a_choice_far_back_is_taken_back() {
    let lines = [
        "a; Depends: b | c, d, e",
        "b; Depends: x",
        "x; Conflicts: z",
        "c",
        "d",
        "e; Depends: f",
        "f; Depends: z",
        "z",
    ];
    check("a", &lines, "a c d e f z");
}

#[test]
fn a_hopeless_search_ends_with_the_first_dead_end() {
    check_error(
        "a",
        &["a; Depends: b", "b; Depends: c", "c; Depends: nothing (= 4)"],
        "c needs nothing (= 4)",
    );
    check_error("z", &["a"], "no suite of the archive has a package \"z\"");
}

#[test]
fn excluded_packages_count_as_there_and_singles_come_alone() {
    let lines = ["a; Depends: b, perl", "b", "perl; Depends: huge", "huge", "s; Depends: huge"];
    let mut declaration = closure("a");
    declaration.exclude.push("perl".to_owned());
    declaration.single.push("s".to_owned());
    assert_eq!(solve(&lines, &declaration).unwrap(), "a b s");
}

#[test]
fn the_kernel_is_the_versioned_package_alone() {
    let lines = [
        "linux-image-amd64 6.2; Depends: linux-image-6.2-amd64 (= 6.2)",
        "linux-image-6.2-amd64 6.2; Depends: initramfs",
    ];
    let declaration = Declaration { kernel: Some("linux-image-amd64".to_owned()), ..Declaration::default() };
    assert_eq!(solve(&lines, &declaration).unwrap(), "linux-image-6.2-amd64");
    let other =
        ["linux-image-amd64 6.2; Depends: linux-image-6.2-amd64 (= 6.2)", "linux-image-6.2-amd64 6.1"];
    assert!(solve(&other, &declaration).unwrap_err().contains("which no suite has"));
}

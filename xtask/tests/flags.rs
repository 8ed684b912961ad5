//! Command lines that make no sense: every one says so, before anything is built, downloaded or written.

use std::process::Command;

use clap::CommandFactory;
use xtask::cli::Cli;

/// A command line, and what the message must say. `@` is a scratch folder; in it are `file` (empty) and `site.toml`.
const SENSELESS: &[(&str, &str)] = &[
    ("", "Usage: cargo xtask"),
    ("imgae", "unrecognized subcommand 'imgae'"),
    // Names of what there is not, with what there is.
    ("image brnach", "there is no product \"brnach\"; "),
    ("run brnach", "images has branch"),
    ("sizes brnach", "images has branch"),
    ("sbom brnach", "images has branch"),
    ("site check @/site.toml --product brnach", "images has branch"),
    ("site check @/site.toml --board raspberry", "board has generic-x86-64, pcengines-apu2"),
    ("image --site @/site.toml --board raspberry", "only for generic-x86-64, pcengines-apu2"),
    ("run --board raspberry", "only for generic-x86-64, pcengines-apu2"),
    ("sbom --format spdx", "[possible values: cyclonedx]"),
    // Files that are not there, or cannot be written.
    ("image --site @/none.toml", "none.toml: No such file"),
    ("image --program @/none", "none: there is no such file"),
    ("image --output @", "is no ordinary file"),
    ("image --output /dev/null", "is no ordinary file"),
    ("run --site @/none.toml", "none.toml: No such file"),
    ("site check @/none.toml", "none.toml: No such file"),
    ("flash @/none.img @/disk.img --size 64", "cannot open @/none.img"),
    ("reproduce --against @/none.img", "none.img: there is no such file"),
    ("sbom --output @/none/x.json", "cannot write @/none/x.json"),
    ("sbom --texts @", "cannot write @: Is a directory"),
    ("sbom --output @/x --texts @/x", "--output and --texts name the same file"),
    ("bench boot --json @/none/x.json", "cannot write @/none/x.json"),
    ("bench memory --json @", "cannot write @: Is a directory"),
    ("bench build --json @/file/x.json", "cannot write @/file/x.json"),
    ("component build samba4", "there is no component \"samba4\"; rootfs/ has samba"),
    ("component run samba --site @/none.toml", "there is no site file @/none.toml"),
    ("keys show", "--keys <DIR>"),
    ("keys --keys @/none show", "cannot read @/none"),
    ("keys --keys @/none rotate mirrors", "a role is root, targets, snapshot or timestamp"),
    ("keys --keys @/none rotate root --count 3", "--threshold <N>"),
    ("release 1.2", "major.minor.build"),
    ("release 0.2.0 --changelog @/none", "cannot read @/none"),
    ("publish", "<VERSION|--withdraw <PRODUCT> <VERSION>|--refresh>"),
    ("publish 0.2.0 --refresh", "cannot be used with"),
    ("publish 0.2.0 --keys @/none", "cannot read @/none"),
    ("publish --withdraw branch 0.2.0", "--reason <TEXT>"),
    ("publish 0.2.0 --channel ../x", "lower-case letters, digits and dashes"),
    ("serve --dir @/none", "cannot open @/none"),
    // Numbers out of range.
    ("bench boot --rounds 0", "0 is not in 5..=1000"),
    ("bench memory --rounds 4", "4 is not in 5..=1000"),
    ("bench build --rounds 1001", "1001 is not in 5..=1000"),
    ("bench", "Usage: cargo xtask bench <COMMAND>"),
    ("run --memory 127", "127 is not in 128..=65536"),
    ("lock --prune --days 0", "0 is not in 1..=36500"),
    ("flash @/file @/disk.img --size 0", "0 is not in 1..="),
    ("component", "Usage: cargo xtask component <COMMAND>"),
    ("component run samba", "--site <FILE>"),
    ("component exec samba", "<COMMAND>"),
    // Flags that need another.
    ("image --board qemu", "--site <FILE>"),
    ("flash @/file @/disk.img --board qemu", "--site <FILE>"),
    ("flash @/file @/disk.img --product branch", "--site <FILE>"),
    ("lock --days 3", "--prune"),
    ("lock --package no-such-package", "the lock has no package \"no-such-package\""),
    // Flags that exclude each other.
    (
        "component run samba --site @/file --fresh --state @/s",
        "'--fresh' cannot be used with '--state <DIR>'",
    ),
    ("lock --check --dry-run", "'--check' cannot be used with '--dry-run'"),
    ("lock --check --package nftables", "'--check' cannot be used with '--package <NAME>'"),
    ("lock --prune --check", "cannot be used with"),
    ("lock --prune --package nftables", "'--prune' cannot be used with '--package <NAME>'"),
    ("lock --archive @/a --dry-run", "'--archive <DIR>' cannot be used with '--dry-run'"),
    ("lock --archive @/a --package nftables", "'--archive <DIR>' cannot be used with '--package <NAME>'"),
    ("lock --archive @/a --check", "'--archive <DIR>' cannot be used with '--check'"),
    ("lock --archive @/a --prune", "'--archive <DIR>' cannot be used with '--prune'"),
    // Flags that another would make useless.
    ("lock --check --mirror http://m", "--mirror makes no sense with --check: the lock is only compared"),
    ("lock --prune --mirror-security http://m", "--mirror-security makes no sense with --prune"),
    ("lock --prune --ignore-valid-until", "--ignore-valid-until makes no sense with --prune"),
    ("image --offline --mirror http://m", "--mirror makes no sense with --offline: no network is used"),
    ("run --offline --mirror-security http://m", "--mirror-security makes no sense with --offline"),
    ("sizes --offline --ignore-valid-until", "--ignore-valid-until makes no sense with --offline"),
    ("sbom --offline --mirror http://m", "--mirror makes no sense with --offline"),
    ("test --offline --mirror http://m", "--mirror makes no sense with --offline"),
    ("reproduce --offline --mirror http://m", "--mirror makes no sense with --offline"),
    ("bench build --offline --mirror http://m", "--mirror makes no sense with --offline"),
    ("test --no-qemu --mirror http://m", "--mirror makes no sense with --no-qemu: no image is built"),
    ("test --no-qemu --archive @", "--archive makes no sense with --no-qemu"),
    ("test --no-qemu --locked", "--locked makes no sense with --no-qemu"),
    ("test --no-qemu --offline", "--offline makes no sense with --no-qemu"),
    (
        "flash @/file @/disk.img --size 64 --yes-erase-all-data-on-target",
        "--yes-erase-all-data-on-target makes no sense with --size: a new file has nothing on it",
    ),
    // Folders that are no archive.
    ("image --archive @", "is no archive of packages"),
    ("image --mirror nonsense --archive @/none", "is no archive of packages"),
];

#[test]
fn senseless_command_lines_say_so() {
    let scratch = tempfile::tempdir().expect("a folder");
    let folder = scratch.path().to_str().expect("a path of characters");
    std::fs::write(scratch.path().join("file"), "").expect("a file");
    std::fs::write(scratch.path().join("site.toml"), kontor_config::Site::default_text())
        .expect("a site file");
    let mut wrong = String::new();
    for (line, expected) in SENSELESS {
        let words = line.split_whitespace().map(|word| word.replace('@', folder));
        let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args(words)
            .env("KONTOR_CACHE", scratch.path().join("cache"))
            .env_remove("KONTOR_ARCHIVE")
            .output()
            .expect("the builder runs");
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() || !said.contains(&expected.replace('@', folder)) {
            wrong += &format!("\n{line:?}: {}, not {expected:?} but\n{said}", output.status);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    let mut left: Vec<_> = std::fs::read_dir(folder).expect("the folder").flatten().collect();
    left.retain(|entry| !["file", "site.toml", "cache"].iter().any(|known| entry.file_name() == *known));
    assert!(left.is_empty(), "something was written: {left:?}");
}

#[test]
fn a_variable_is_no_flag() {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["image", "--dry-run", "--offline"])
        .env("KONTOR_MIRROR", "http://mirror.example")
        .output()
        .expect("the builder runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Every command below this one that is shown, itself first.
fn shown(command: &clap::Command) -> Vec<&clap::Command> {
    let below = command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help");
    std::iter::once(command).chain(below.flat_map(shown)).collect()
}

#[test]
fn every_command_and_flag_explains_itself_in_a_line() {
    let mut cli = Cli::command();
    cli.build();
    for command in shown(&cli) {
        let name = command.get_name();
        let about = command.get_about().expect(name).to_string();
        assert!(about.len() <= 100 && !about.contains('\n'), "{name}: {about}");
        let arguments = command.get_arguments().filter(|argument| !argument.is_hide_set());
        for argument in arguments {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(!help.is_empty() && !help.contains('\n'), "{name} {}: {help}", argument.get_id());
        }
    }
}

/// The part of a line of examples that one would type.
fn typed(line: &str) -> Option<Vec<&str>> {
    let line = line.strip_prefix("  ").filter(|line| line.starts_with("cargo xtask"))?;
    let line = line.split("  ").next()?.split(" > ").next()?;
    Some(line.split_whitespace().skip(1).collect())
}

#[test]
fn every_command_has_examples_and_they_are_right() {
    let cli = Cli::command();
    for command in std::iter::once(&cli).chain(cli.get_subcommands()) {
        let name = command.get_name();
        let examples =
            command.get_after_help().unwrap_or_else(|| panic!("{name} has no examples")).to_string();
        let lines: Vec<Vec<&str>> = examples.lines().filter_map(typed).collect();
        assert!(lines.len() >= 2 && examples.starts_with("Examples:\n"), "{name}: {examples}");
        for line in lines {
            assert!(name == "xtask" || line[1] == name, "{name} is not shown by {line:?}");
            Cli::read(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
        }
    }
}

//! Targets and the documents in them: names that lead elsewhere, changed bytes, and signed releases that are not for this box.

use std::os::unix::fs::symlink;

use kontor_trust::{Clock, Folder, Limits, TransportErrorKind, TrustError, Trusted, Url, refresh};
use kontor_update::channel::Withdrawn;
use kontor_update::{Channel, Choice, Facts, Release, Version, Wish, accept, choose};

use crate::forge::{Box_, Forge, NOW, channel, release, run, target_path};

fn facts(version: &str) -> Facts {
    Facts {
        product: "branch".into(),
        board: "generic-x86-64".into(),
        version: version.parse().unwrap(),
        security_epoch: 2,
        state_schema: kontor_update::Span::default(),
        seed: 7,
        failed: Vec::new(),
    }
}

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

/// What a box does: the channel, then the release that it has chosen.
fn update(facts: &Facts, trusted: &Trusted, wish: Wish) -> Result<Version, String> {
    let channel = run(trusted.channel("stable")).map_err(|error| error.to_string())?;
    match choose(facts, &channel, wish, NOW).map_err(|refusal| refusal.to_string())? {
        Choice::Take(version) => {
            let release = run(trusted.release(&facts.product, version)).map_err(|error| error.to_string())?;
            accept(facts, &release, version, wish).map_err(|refusal| refusal.to_string())?;
            Ok(version)
        }
        other => Err(format!("{other:?}")),
    }
}

/// Signs these documents, as their keepers would, and has a box look at them.
#[track_caller]
fn check(change: impl FnOnce(&mut Forge), facts: &Facts, expected: Result<&str, &str>) {
    let mut forge = Forge::new();
    change(&mut forge);
    forge.publish_next();
    let trusted = Box_::new(&forge).accepts(&forge.server);
    let got = update(facts, &trusted, Wish::Automatic).map(|version| version.to_string());
    assert_eq!(got.as_deref().map_err(String::as_str), expected);
}

fn put_release(forge: &mut Forge, name: &str, change: impl FnOnce(&mut Release)) {
    let mut document = release(name);
    change(&mut document);
    forge.targets.insert(Release::target("branch", version(name)), document.to_json());
}

#[test]
fn a_release_for_this_box_is_taken() {
    check(|_| (), &facts("0.1.0"), Ok("0.2.0"));
}

#[test]
fn wrong_product() {
    check(
        |forge| put_release(forge, "0.2.0", |release| release.product = "central".into()),
        &facts("0.1.0"),
        Err("rule product: the release is for \"central\""),
    );
}

#[test]
fn wrong_board() {
    let mut facts = facts("0.1.0");
    facts.board = "pcengines-apu2".into();
    check(|_| (), &facts, Err("rule board: the release does not serve pcengines-apu2"));
}

#[test]
fn wrong_version_under_a_name() {
    check(
        |forge| put_release(forge, "0.2.0", |release| release.version = version("0.1.5")),
        &facts("0.1.0"),
        Err("rule version: the manifest is that of 0.1.5, under another name"),
    );
}

#[test]
fn another_channel_under_a_name() {
    let mut testing = channel("0.2.0");
    testing.channel = "testing".into();
    check(
        |forge| drop(forge.targets.insert(Channel::target("stable"), testing.to_json())),
        &facts("0.1.0"),
        Err(
            "rule document: channel/stable.json: the channel's document is wrong: it is of the channel \"testing\", not of \"stable\"",
        ),
    );
}

#[test]
fn a_downgrade_below_the_security_epoch() {
    check(
        |forge| put_release(forge, "0.2.0", |release| release.security_epoch = 1),
        &facts("0.1.0"),
        Err("rule security epoch: the release has 1, what runs has 2"),
    );
}

#[test]
fn a_downgrade_that_nobody_ordered() {
    check(
        |_| (),
        &facts("0.3.0"),
        Err("rule downgrade: 0.2.0 is older than what runs, which is not withdrawn"),
    );
}

/// The channel of before the withdrawal is refused as old; the one of after it names the reason, should it be current again.
#[test]
fn replay_of_a_withdrawn_release() {
    let mut forge = Forge::new();
    let before = forge.server.copy();
    let mut withdrawn = channel("0.1.9");
    let reason = "eats leases".to_owned();
    withdrawn.withdrawn.push(Withdrawn { product: "branch".into(), version: version("0.2.0"), reason });
    forge.targets.insert(Channel::target("stable"), withdrawn.to_json());
    put_release(&mut forge, "0.1.9", |_| ());
    forge.publish_next();
    let office = Box_::new(&forge);
    let trusted = office.accepts(&forge.server);
    assert_eq!(update(&facts("0.2.0"), &trusted, Wish::Automatic), Ok(version("0.1.9")), "the way back");
    office.refuses(&before, "rule rollback: timestamp 1 is older than 2, which was seen before");
}

#[test]
fn a_manifest_with_any_byte_changed() {
    let forge = Forge::new();
    let name = Release::target("branch", version("0.2.0"));
    let honest = forge.targets[&name].clone();
    let path = target_path(&name, &honest);
    let trusted = Box_::new(&forge).accepts(&forge.server);
    for at in 0..honest.len() {
        let mut bytes = honest.clone();
        bytes[at] ^= 1 << (at % 8);
        forge.server.put(&path, bytes);
        let error = run(trusted.release("branch", version("0.2.0"))).unwrap_err();
        assert_eq!(error.rule(), Some("hash"), "byte {at}: {error}");
    }
    forge.server.put(&path, honest[..honest.len() - 1].to_vec());
    assert_eq!(run(trusted.release("branch", version("0.2.0"))).unwrap_err().rule(), Some("hash"));
    forge.server.put(&path, [honest.as_slice(), b" "].concat());
    assert_eq!(run(trusted.release("branch", version("0.2.0"))).unwrap_err().rule(), Some("length"));
    forge.server.never_end(&path);
    assert_eq!(run(trusted.release("branch", version("0.2.0"))).unwrap_err().rule(), Some("length"));
}

#[test]
fn names_that_lead_elsewhere() {
    let mut forge = Forge::new();
    // Even where somebody has signed such a name.
    let hostile =
        ["../../etc/passwd", "channel/../../x", "/etc/passwd", "a//b", "channel/%2e%2e/x", ".ssh/x"];
    for name in hostile {
        forge.targets.insert(name.to_owned(), b"x".to_vec());
    }
    forge.publish_next();
    let trusted = Box_::new(&forge).accepts(&forge.server);
    for name in
        hostile.into_iter().chain(["", "..", "channel/", "channel/a b.json", "channel/a\\b", "a?b", "a#b"])
    {
        let error = run(trusted.target(name, 100)).unwrap_err();
        assert_eq!(error, TrustError::TargetName(name.to_owned()), "{name}");
        assert_eq!(error.to_string(), format!("rule target name: {name:?} is not a name of a target"));
    }
    for name in ["../stable", "", "Stable", "stable.json"] {
        assert_eq!(run(trusted.channel(name)).unwrap_err().rule(), Some("target name"), "{name}");
        assert_eq!(run(trusted.release(name, version("0.2.0"))).unwrap_err().rule(), Some("target name"));
    }
}

#[test]
fn a_target_that_nobody_has_signed() {
    let forge = Forge::new();
    let trusted = Box_::new(&forge).accepts(&forge.server);
    let error = run(trusted.release("branch", version("0.9.0"))).unwrap_err().to_string();
    assert_eq!(error, "rule target: nobody has signed release/branch/0.9.0.json");
}

#[test]
fn a_target_longer_than_its_reader_allows() {
    let forge = Forge::new();
    let trusted = Box_::new(&forge).accepts(&forge.server);
    let error = run(trusted.target("channel/stable.json", 10)).unwrap_err().to_string();
    assert_eq!(error, "rule length: channel/stable.json is longer than 10 bytes");
}

/// A stick with a repository, on which somebody has put links and pipes.
#[test]
fn a_folder_gives_nothing_but_its_own_files() {
    let forge = Forge::new();
    let stick = tempfile::tempdir().unwrap();
    let root = stick.path().join("a stick");
    forge.server.write_to(&root);
    let folder = Folder::open(&root).unwrap();
    let look = || {
        let office = Box_::new(&forge);
        let clock = Clock { now: office.now, floor: office.floor };
        run(refresh(&mut office.open(), folder.base(), folder.clone(), clock, Limits::default()))
    };
    let trusted = look().unwrap();
    assert!(run(trusted.channel("stable")).is_ok());
    let secret = stick.path().join("secret.json");
    std::fs::copy(root.join("metadata/1.snapshot.json"), &secret).unwrap();
    std::fs::remove_file(root.join("metadata/1.snapshot.json")).unwrap();
    symlink(&secret, root.join("metadata/1.snapshot.json")).unwrap();
    assert!(look().unwrap_err().to_string().starts_with("cannot fetch 1.snapshot.json: "));
    std::fs::rename(root.join("targets"), stick.path().join("targets")).unwrap();
    symlink(stick.path().join("targets"), root.join("targets")).unwrap();
    assert!(run(trusted.channel("stable")).is_err(), "a folder may not be a link either");
    let fetch = |name: &str| {
        let url = Url::parse(&format!("{}{name}", folder.base())).unwrap();
        run(kontor_trust::Transport::fetch(&folder, url)).map(drop).map_err(|error| error.kind())
    };
    assert_eq!(fetch("metadata/timestamp.json"), Ok(()));
    for name in
        ["../secret.json", "%2e%2e/secret.json", "metadata", "metadata/", "", "metadata/timestamp.json?x"]
    {
        assert_eq!(fetch(name), Err(TransportErrorKind::FileNotFound), "{name}");
    }
}

//! What a mirror sends before any hash of it is known, and what is read once it is: release files, signatures and keys,
//! package indexes, relations, versions; and apt's list of mirrors.
//!
//! The first octet chooses. What an index offers must be lockable, and the lock readable.
#![no_main]

use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use xtask::archive::index::Index;
use xtask::archive::lock_file::{LockFile, LockedPackage};
use xtask::archive::release::{KeyRing, Release, format_date};
use xtask::archive::version::{self, Operator};
use xtask::archive::{cache, http, mirrors, relation, resolver};

const KEY: &str = include_str!("../../../rootfs/keys/debian-archive-trixie-stable.asc");

static KEYS: LazyLock<KeyRing> = LazyLock::new(|| {
    let mut keys = KeyRing::default();
    keys.add("stable", KEY).expect("the archive's key");
    keys
});

fn fuzz_release(text: &str) {
    let Ok(release) = Release::parse(text) else { return };
    assert_eq!(format_date(release.made_at).len(), 20);
    let _ = release.check("trixie", 1_790_000_000, false);
}

fn fuzz_index(text: &str) {
    let mut index = Index::default();
    if index.add(text, "trixie").is_err() {
        return;
    }
    let Ok(index) = index.finish() else { return };
    let numbers = 0..index.len();
    let names: Vec<&str> = numbers.clone().map(|number| index.package(number).name.as_str()).collect();
    for name in &names {
        let best = index.package(index.candidate(name).expect("a package has a candidate"));
        assert_eq!(best.name, **name);
        for (provider, _) in index.providers(name) {
            assert!(*provider < index.len());
        }
    }
    let few = &names[..names.len().min(4)];
    if let Ok(chosen) = resolver::resolve(&index, few, &HashSet::new()) {
        assert!(chosen.iter().all(|number| *number < index.len()));
    }
    let mut lock = LockFile::new("packages.lock".into());
    lock.requests.insert("base".to_owned(), String::new());
    lock.replace("base", numbers.map(|number| LockedPackage::from(index.package(number))).collect());
    if let Ok(text) = lock.to_text() {
        let again = LockFile::parse("packages.lock".into(), &text).expect("a lock that was just made");
        assert_eq!(again, lock);
    }
}

fn fuzz_relations(text: &str) {
    let Ok(groups) = relation::parse(text) else { return };
    for relation in groups.iter().flatten() {
        let shown = relation.to_string().replace(":foreign", ":x");
        assert_eq!(relation::parse(&shown), Ok(vec![vec![relation.clone()]]), "{shown}");
        let _ = relation.admits("1:2.0~rc1-3+b4");
    }
}

/// The laws of an order.
fn fuzz_versions(text: &str) {
    let versions: Vec<&str> = text.splitn(3, '\0').collect();
    for a in &versions {
        assert_eq!(version::compare(a, a), Ordering::Equal);
        for b in &versions {
            let order = version::compare(a, b);
            assert_eq!(order, version::compare(b, a).reverse(), "{a:?} {b:?}");
            assert_eq!(Operator::Later.holds(a, b), order.is_gt());
            for c in &versions {
                if order.is_le() && version::compare(b, c).is_le() {
                    assert!(version::compare(a, c).is_le(), "{a:?} {b:?} {c:?}");
                }
            }
        }
    }
}

fn fuzz_addresses(text: &str) {
    for extension in ["list", "sources"] {
        for source in mirrors::parse(text, extension) {
            assert!(!source.uri.is_empty() && !source.suite.contains(char::is_whitespace));
        }
    }
    let _ = http::folder_path(text);
    let path = http::folder_path(&format!("file://{}", cache::escape(text)));
    assert_eq!(path.as_deref(), Some(text.as_ref()));
}

fuzz_target!(|input: (u8, &str)| {
    let (kind, text) = input;
    match kind % 8 {
        0 => fuzz_release(text),
        1 => drop(Release::verify(text, &KEYS)),
        2 => drop(KeyRing::default().add("a", text)),
        3 => fuzz_relations(text),
        4 => fuzz_versions(text),
        5 => fuzz_addresses(text),
        _ => fuzz_index(text),
    }
});

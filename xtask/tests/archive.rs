//! Locks and downloads against a mirror that lies, breaks off, or has lost the file.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be set up is a failed test")]

use xtask::archive::cache::FetchOptions;
use xtask::archive::http::Client;
use xtask::archive::lock_file::LockFile;

#[path = "archive/fixture.rs"]
mod fixture;
#[path = "archive/server.rs"]
mod server;

use fixture::{Fixture, Spec, deb, inrelease, key, xz};
use server::Fault;

const INDEX: &str = "/debian/dists/trixie/main/binary-amd64/Packages.xz";

fn packages() -> Vec<Spec> {
    vec![Spec("a", "1", "Depends: b (>= 1)\n", deb(b"first")), Spec("b", "1", "", deb(&[7; 5000]))]
}

fn fixture() -> Fixture {
    Fixture::new("\"a\"", &packages())
}

#[track_caller]
fn has(error: &anyhow::Error, parts: &[&str]) {
    let text = format!("{error:#}");
    parts.iter().for_each(|part| assert!(text.contains(part), "{part:?} is not in {text:?}"));
}

/// Locks, spoils one package's answer, and expects this of the download.
#[track_caller]
fn check_download(fault: Fault, expect: &[&str]) {
    let fixture = fixture();
    let mut lock = fixture.lock().unwrap();
    fixture.server.fail_always("/debian/pool/b_1.deb", fault);
    let error = fixture.cache().provide(&mut lock, &["base"]).unwrap_err();
    has(&error, expect);
    assert!(fixture.cached_debs() < 2, "a bad file has a final name");
}

#[test]
fn a_good_mirror_is_asked_once() {
    let fixture = fixture();
    let mut lock = fixture.lock().unwrap();
    fixture.cache().provide(&mut lock, &["base"]).unwrap();
    fixture.server.requests("");
    let paths = fixture.cache().fetch(&lock.set("base").unwrap().iter().collect::<Vec<_>>()).unwrap();
    assert_eq!(paths.len(), 2);
    assert_eq!(fixture.server.requests(""), []);
    let reread = LockFile::load(fixture.rootfs().join("packages.lock")).unwrap();
    assert_eq!(reread, lock);
}

#[test]
fn a_foreign_signature_is_refused() {
    let fixture = fixture();
    let index = fixture.server.get(INDEX);
    let date = "Date: Sat, 12 Sep 2020 07:55:41 UTC\n";
    fixture.server.put("/debian/dists/trixie/InRelease", inrelease(&key(), "trixie", &index, date));
    let error = fixture.lock().unwrap_err();
    has(
        &error,
        &["no valid signature by a known key", "keys tried: test (", "/debian/dists/trixie/InRelease"],
    );
}

#[test]
fn a_changed_or_cut_release_file_is_refused() {
    let fixture = fixture();
    let path = "/debian/dists/trixie/InRelease";
    let good = String::from_utf8(fixture.server.get(path)).unwrap();
    fixture.server.put(path, good.replace("Origin: Test", "Origin: Tesu").into_bytes());
    has(&fixture.lock().unwrap_err(), &["no valid signature"]);
    fixture.server.put(path, good.as_bytes()[..good.len() / 2].to_vec());
    has(&fixture.lock().unwrap_err(), &["not a clear-signed release file"]);
}

#[test]
fn an_expired_release_file_is_refused_unless_told_otherwise() {
    let fixture = fixture();
    let fields = "Date: Sat, 12 Sep 2020 07:55:41 UTC\nValid-Until: Sat, 19 Sep 2020 07:55:41 UTC\n";
    let folder = "/security/dists/trixie-security";
    fixture.publish_suite(folder, "trixie-security", &xz(b""), fields);
    has(&fixture.lock().unwrap_err(), &["expired at 2020-09-19T07:55:41Z", "--ignore-valid-until"]);
    let options = FetchOptions { ignore_valid_until: true, ..fixture.options() };
    let repository = xtask::archive::repository::Repository::load(&fixture.rootfs()).unwrap();
    repository.archive(&fixture.cache_with(&options), None).unwrap();
}

#[test]
fn a_cut_or_changed_index_is_refused() {
    let fixture = fixture();
    let good = fixture.server.get(INDEX);
    fixture.server.fail_always(INDEX, Fault::Half);
    // Half of what is missing arrives each time; it never ends within the attempts.
    has(&fixture.lock().unwrap_err(), &["the transfer broke off", "Packages.xz"]);
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    fixture.server.fail_always(INDEX, Fault::Instead(bad));
    has(&fixture.lock().unwrap_err(), &["wrong content", "SHA-256"]);
    fixture.server.fail_always(INDEX, Fault::Instead(good[..good.len() - 4].to_vec()));
    has(&fixture.lock().unwrap_err(), &["the signed index says"]);
}

#[test]
fn a_package_with_other_content_is_refused() {
    let mut bad = packages()[1].3.clone();
    *bad.last_mut().unwrap() ^= 1;
    check_download(Fault::Instead(bad), &["downloading b 1", "wrong content"]);
}

#[test]
fn a_package_of_another_size_is_refused() {
    check_download(
        Fault::Instead(b"short".to_vec()),
        &["downloading b 1", "has 5 bytes, the signed index says"],
    );
}

#[test]
fn a_broken_server_is_named_with_path_and_status() {
    check_download(Fault::Status(500), &["/debian/pool/b_1.deb", "status 500"]);
    check_download(Fault::Status(403), &["/debian/pool/b_1.deb", "status 403"]);
}

#[test]
fn passing_trouble_is_ridden_out() {
    let fixture = fixture();
    let mut lock = fixture.lock().unwrap();
    fixture.server.fail("/debian/pool/b_1.deb", &[Fault::Status(503), Fault::Half, Fault::Status(500)]);
    fixture.cache().provide(&mut lock, &["base"]).unwrap();
    let half = packages()[1].3.len() as u64 / 2;
    assert_eq!(fixture.server.requests("b_1.deb"), [None, None, Some(half), Some(half)]);
}

#[test]
fn a_later_run_goes_on_where_the_first_broke_off() {
    for ignores_ranges in [false, true] {
        let fixture = fixture();
        let mut lock = fixture.lock().unwrap();
        fixture.server.fail("/debian/pool/b_1.deb", &[Fault::Half, Fault::Status(403)]);
        fixture.cache().provide(&mut lock, &["base"]).unwrap_err();
        if ignores_ranges {
            fixture.server.fail("/debian/pool/b_1.deb", &[Fault::IgnoreRange]);
        }
        fixture.server.requests("");
        fixture.cache().provide(&mut lock, &["base"]).unwrap();
        let half = packages()[1].3.len() as u64 / 2;
        assert_eq!(fixture.server.requests("b_1.deb"), [Some(half)]);
    }
}

#[test]
fn a_wrong_part_of_an_earlier_run_is_thrown_away() {
    let fixture = fixture();
    let mut lock = fixture.lock().unwrap();
    let sha256 = lock.set("base").unwrap()[1].sha256.clone();
    std::fs::write(fixture.path("cache/partial").join(sha256), "not the beginning").unwrap();
    fixture.cache().provide(&mut lock, &["base"]).unwrap();
    assert_eq!(fixture.cached_debs(), 2);
}

#[test]
fn a_damaged_cache_file_is_fetched_again() {
    let fixture = fixture();
    let mut lock = fixture.lock().unwrap();
    let cache = fixture.cache();
    cache.provide(&mut lock, &["base"]).unwrap();
    let package = &lock.set("base").unwrap()[1];
    let path = cache.fetch(&[package]).unwrap().remove(0);
    let good = std::fs::read(&path).unwrap();
    std::fs::write(&path, vec![0; good.len()]).unwrap();
    cache.fetch(&[package]).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), good);
}

#[test]
fn offline_lists_what_is_missing() {
    let fixture = fixture();
    let mut lock = fixture.lock().unwrap();
    let offline = fixture.cache_with(&FetchOptions { offline: true, ..fixture.options() });
    has(
        &offline.provide(&mut lock, &["base"]).unwrap_err(),
        &[
            "2 of the locked packages are not here",
            "  a 1: pool/a_1.deb",
            "  b 1: pool/b_1.deb",
            "would be",
            "Run the same command once without --offline",
        ],
    );
    fixture.cache().provide(&mut lock, &["base"]).unwrap();
    offline.provide(&mut lock, &["base"]).unwrap();
}

#[test]
fn a_vanished_package_is_locked_anew_and_nothing_else() {
    let fixture = fixture();
    let mut lock = fixture.lock().unwrap();
    fixture.server.remove("/debian/pool/b_1.deb");
    let newer = [
        Spec("a", "9", "Depends: b\n", deb(b"newer")),
        Spec("b", "2", "Depends: c\n", deb(b"two")),
        Spec("c", "1", "", deb(b"three")),
    ];
    fixture.publish(&newer);

    let locked = fixture.cache_with(&FetchOptions { locked: true, ..fixture.options() });
    let error = locked.provide(&mut lock, &["base"]).unwrap_err();
    has(&error, &["pool/b_1.deb", "status 404", "--locked", "cargo xtask lock"]);

    fixture.cache().provide(&mut lock, &["base"]).unwrap();
    let versions = |lock: &LockFile| -> Vec<String> {
        lock.set("base").unwrap().iter().map(|p| format!("{} {}", p.name, p.version)).collect()
    };
    assert_eq!(versions(&lock), ["a 1", "b 2", "c 1"]);
    assert_eq!(versions(&LockFile::load(lock.path()).unwrap()), ["a 1", "b 2", "c 1"]);
}

#[test]
fn two_builds_may_fill_one_cache() {
    let fixture = fixture();
    let lock = fixture.lock().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| fixture.cache().provide(&mut lock.clone(), &["base"]).unwrap());
        }
    });
    assert_eq!(fixture.cached_debs(), 2);
    assert_eq!(fixture.path("cache/partial").read_dir_utf8().unwrap().count(), 0);
    assert_eq!(fixture.server.requests("b_1.deb").len(), 1);
}

#[test]
fn a_full_disk_is_told_as_such() {
    let fixture = fixture();
    let mut full = std::fs::File::options().read(true).write(true).open("/dev/full").unwrap();
    let url = fixture.server.url("debian/pool/b_1.deb");
    let size = packages()[1].3.len() as u64;
    let error = Client::new().unwrap().download(&url, &mut full, size, &|_| {}).unwrap_err();
    has(&error.into(), &["no space left", "KONTOR_CACHE"]);
}

#[test]
fn an_archive_alone_is_enough() {
    let fixture = fixture();
    let lock = fixture.lock().unwrap();
    let kept = fixture.keep(&lock).unwrap();
    assert_eq!((kept.packages, kept.added), (2, 2));
    assert!(kept.replaced.is_empty() && kept.missing.is_empty() && kept.unproved.is_empty(), "{kept:?}");
    assert!(kept.unvouched.is_empty() && kept.foreign.is_empty(), "{kept:?}");
    for path in
        ["debian/pool/a_1.deb", "debian/dists/trixie/InRelease", "keys/test.asc", "kontor-archive.toml"]
    {
        assert!(fixture.path("kept").join(path).is_file(), "{path}");
    }

    std::fs::remove_dir_all(fixture.path("cache")).unwrap();
    fixture.server.requests("");
    let options = FetchOptions {
        archive: Some(fixture.path("kept")),
        offline: true,
        locked: true,
        quiet: true,
        ..FetchOptions::default()
    };
    fixture.cache_with(&options).provide(&mut lock.clone(), &["base"]).unwrap();
    assert_eq!(fixture.cached_debs(), 2);
    assert_eq!(fixture.server.requests(""), []);
}

#[test]
fn an_archive_is_a_mirror() {
    let fixture = fixture();
    let lock = fixture.lock().unwrap();
    fixture.keep(&lock).unwrap();
    std::fs::remove_dir_all(fixture.path("cache")).unwrap();
    let url = |name: &str| Some(format!("file://{}", fixture.path("kept").join(name)));
    let options = FetchOptions {
        mirror: url("debian"),
        mirror_security: url("debian-security"),
        quiet: true,
        ..FetchOptions::default()
    };
    let cache = fixture.cache_with(&options);
    let repository = xtask::archive::repository::Repository::load(&fixture.rootfs()).unwrap();
    let archive = repository.archive(&cache, None).unwrap();
    assert_eq!(repository.lock(&archive, lock.path()).unwrap(), lock);
    cache.provide(&mut lock.clone(), &["base"]).unwrap();
    assert_eq!(fixture.cached_debs(), 2);
}

#[test]
fn an_archive_is_checked_mended_and_otherwise_left_alone() {
    let fixture = fixture();
    let lock = fixture.lock().unwrap();
    fixture.keep(&lock).unwrap();
    let damaged = fixture.path("kept/debian/pool/b_1.deb");
    let good = std::fs::read(&damaged).unwrap();
    std::fs::write(&damaged, vec![0; good.len()]).unwrap();
    std::fs::write(fixture.path("kept/debian/pool/holiday.jpg"), "x").unwrap();
    let untouched = std::fs::metadata(fixture.path("kept/debian/pool/a_1.deb")).unwrap().modified().unwrap();

    let kept = fixture.keep(&lock).unwrap();
    assert_eq!((kept.added, kept.replaced), (0, vec!["debian/pool/b_1.deb".to_owned()]));
    assert_eq!(kept.foreign, ["debian/pool/holiday.jpg"]);
    assert_eq!(std::fs::read(&damaged).unwrap(), good);
    let again = std::fs::metadata(fixture.path("kept/debian/pool/a_1.deb")).unwrap().modified().unwrap();
    assert_eq!(untouched, again);

    let kept = fixture.keep(&lock).unwrap();
    assert_eq!((kept.added, kept.replaced.len()), (0, 0));
    assert_eq!(fixture.path("kept/.unfinished").read_dir_utf8().unwrap().count(), 0);
}

#[test]
fn a_damaged_archive_does_no_harm_to_a_build() {
    let fixture = fixture();
    let lock = fixture.lock().unwrap();
    fixture.keep(&lock).unwrap();
    std::fs::remove_dir_all(fixture.path("cache")).unwrap();
    let damaged = fixture.path("kept/debian/pool/b_1.deb");
    let length = std::fs::metadata(&damaged).unwrap().len() as usize;
    std::fs::write(&damaged, vec![0; length]).unwrap();
    let archive = Some(fixture.path("kept"));
    let offline = FetchOptions { archive: archive.clone(), offline: true, ..fixture.options() };
    let error = fixture.cache_with(&offline).provide(&mut lock.clone(), &["base"]).unwrap_err();
    has(&error, &["1 of the locked packages are not here", "b 1: pool/b_1.deb", "--archive DIR"]);
    let options = FetchOptions { archive, ..fixture.options() };
    fixture.cache_with(&options).provide(&mut lock.clone(), &["base"]).unwrap();
    assert_eq!(fixture.cached_debs(), 2);
}

#[test]
fn an_archive_says_what_it_cannot_have() {
    let fixture = fixture();
    let lock = fixture.lock().unwrap();
    fixture.server.remove("/debian/pool/b_1.deb");
    let kept = fixture.keep(&lock).unwrap();
    assert_eq!(kept.added, 1);
    assert!(kept.missing[0].starts_with("b 1: ") && kept.missing.len() == 1, "{kept:?}");

    // The mirror has moved on; the release file that the lock was made from is in the cache.
    let fixture = self::fixture();
    let lock = fixture.lock().unwrap();
    fixture.cache().provide(&mut lock.clone(), &["base"]).unwrap();
    fixture.publish(&[Spec("a", "9", "", deb(b"newer"))]);
    let kept = fixture.keep(&lock).unwrap();
    assert!(kept.unvouched.is_empty() && kept.missing.is_empty(), "{kept:?}");
    // And when it is not, that is said.
    std::fs::remove_dir_all(fixture.path("cache/release")).unwrap();
    std::fs::remove_dir_all(fixture.path("cache/index")).unwrap();
    let kept = fixture.keep(&lock).unwrap();
    assert_eq!(kept.unvouched, ["a 1", "b 1"]);
}

#[test]
fn folders_that_are_no_place_for_an_archive_are_refused() {
    use xtask::archive::keep::{Archive, opened};
    let fixture = fixture();
    let target = fixture.path("target");
    let refused = |folder: &str, expect: &[&str]| {
        has(&Archive::open(&fixture.path(folder), &[&target]).unwrap_err(), expect);
    };
    refused("target/kept", &["lies in", "choose a folder elsewhere"]);
    std::fs::create_dir(fixture.path("photos")).unwrap();
    std::fs::write(fixture.path("photos/holiday.jpg"), "x").unwrap();
    refused("photos", &["holds other files and no kontor-archive.toml"]);
    refused("photos/holiday.jpg", &["is not a folder"]);
    refused("photos/holiday.jpg/kept", &["cannot make the folder"]);
    has(&Archive::open("/proc/kept".into(), &[]).unwrap_err(), &["/proc/kept", "cannot make the folder"]);
    has(&opened(&fixture.path("photos")).unwrap_err(), &["is no archive of packages"]);
    let _first = Archive::open(&fixture.path("kept"), &[&target]).unwrap();
    refused("kept", &["another run is at work in it"]);
}

#[test]
fn what_stays_must_fit_what_is_new() {
    for relation in ["Depends: a (>= 9)\n", "Breaks: a (<< 9)\n"] {
        let fixture = fixture();
        let mut lock = fixture.lock().unwrap();
        fixture.server.remove("/debian/pool/b_1.deb");
        fixture
            .publish(&[Spec("a", "9", "Depends: b\n", deb(b"newer")), Spec("b", "2", relation, deb(b"two"))]);
        fixture.cache().provide(&mut lock, &["base"]).unwrap();
        let versions: Vec<_> =
            lock.set("base").unwrap().iter().map(|p| format!("{} {}", p.name, p.version)).collect();
        assert_eq!(versions, ["a 9", "b 2"], "{relation}");
    }
}

#[test]
fn only_what_nobody_uses_is_pruned() {
    use xtask::archive::prune;
    let fixture = fixture();
    let lock = fixture.lock().unwrap();
    fixture.cache().provide(&mut lock.clone(), &["base"]).unwrap();
    let strange = fixture.path("cache/deb/ab").join(format!("{}.deb", "ab".repeat(32)));
    std::fs::create_dir_all(strange.parent().unwrap()).unwrap();
    std::fs::write(&strange, "old").unwrap();
    let locked = &lock.set("base").unwrap()[0];
    let copies = [&"ab".repeat(32), &locked.sha256]
        .map(|hash| fixture.path("cache/unpacked").join(&hash[..2]).join(format!("{hash}.zst")));
    for copy in &copies {
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        std::fs::write(copy, "what was in it").unwrap();
    }
    std::fs::write(fixture.path("cache/partial/x"), "half").unwrap();
    let day = std::time::Duration::from_secs(86_400);
    let (now, root) = (std::time::SystemTime::now(), fixture.path("cache"));
    let names = |at| -> Vec<String> {
        let stale = prune::stale(&root, &lock, 90 * day, at).unwrap();
        let pruned = stale.into_iter().filter(|file| !file.path.as_str().contains("/index/"));
        pruned.map(|file| file.path.file_name().unwrap().to_owned()).collect()
    };
    assert!(names(now + 89 * day).is_empty());
    let expected = [strange.file_name().unwrap(), "x", copies[0].file_name().unwrap()];
    assert_eq!(names(now + 91 * day), expected);
    prune::remove(&prune::stale(&root, &lock, 90 * day, now + 91 * day).unwrap()).unwrap();
    assert_eq!(fixture.cached_debs(), 2);
    assert_eq!(copies.map(|copy| copy.exists()), [false, true]);
    fixture
        .cache_with(&FetchOptions { offline: true, ..fixture.options() })
        .provide(&mut lock.clone(), &["base"])
        .unwrap();
}

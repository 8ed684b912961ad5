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
    has(&offline.provide(&mut lock, &["base"]).unwrap_err(), &["lacks 2 packages", "  a 1", "  b 1"]);
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

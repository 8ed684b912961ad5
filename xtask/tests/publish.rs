//! Publishing as an operator does it, with a small release in place of an image: what boxes then see, and what is refused.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;

use camino::{Utf8Path, Utf8PathBuf};
use kontor_trust::tough::schema::RoleType;
use kontor_update::{Channel, Release, Version};
use xtask::publish::keys::{Keys, ensure_outside_git};
use xtask::publish::release::Folder;
use xtask::publish::repository::{Outcome, Repository, verify};
use xtask::publish::rollout::{self, Rollout};
use xtask::publish::root::{self, Quorum};
use xtask::publish::{forms, objects, release, waves};

const DAY: u64 = 86_400;

/// Bytes that nothing compresses.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

/// A folder with keys, releases and a repository.
struct Scene {
    folder: tempfile::TempDir,
    now: u64,
}

impl Scene {
    fn new() -> Self {
        let scene = Self { folder: tempfile::tempdir().unwrap(), now: xtask::publish::now().unwrap() };
        let quorum = |keys, threshold| Quorum { keys, threshold };
        let quorums = BTreeMap::from([("root", quorum(3, 2)), ("targets", quorum(2, 2))]);
        root::init(&scene.path("keys"), &quorums, false).unwrap();
        scene
    }

    fn path(&self, name: &str) -> Utf8PathBuf {
        Utf8Path::from_path(self.folder.path()).unwrap().join(name)
    }

    fn keys(&self) -> Keys {
        Keys::open(&[self.path("keys")]).unwrap()
    }

    fn to(&self) -> Utf8PathBuf {
        self.path("repository")
    }

    /// A release as `cargo xtask release` leaves it.
    fn release(&self, version: &str, change: impl FnOnce(&mut Release)) -> Folder {
        let folder = self.path("releases").join(version);
        let store = folder.join(objects::FOLDER);
        fs::create_dir_all(&store).unwrap();
        let image = folder.join("slot.img");
        fs::write(&image, format!("the slot of {version} {}", "0".repeat(10_000))).unwrap();
        let mut release = Release {
            schema: 1,
            product: "branch".into(),
            version: version.parse().unwrap(),
            boards: vec!["qemu".into()],
            date: "2026-11-28".into(),
            epoch_s: 1_795_824_000,
            security_epoch: 1,
            from_minimum: "0.0.0".parse().unwrap(),
            state_schema: kontor_update::Span::default(),
            changelog: String::new(),
            slot: objects::compress(&image, &store).unwrap(),
            components: Vec::new(),
            sbom: None,
        };
        change(&mut release);
        release::write(&folder, &release).unwrap();
        Folder::open(&folder).unwrap()
    }

    fn publish(&self, folder: &Folder) -> anyhow::Result<Outcome> {
        rollout::publish(&self.to(), self.keys(), folder, &Rollout::default(), self.now)
    }

    /// The channel as a box reads it.
    fn channel(&self) -> Channel {
        let trusted = verify(&self.to(), self.now).unwrap();
        run(trusted.channel("stable")).unwrap()
    }

    fn current(&self) -> Option<String> {
        self.channel().current("branch", 0).map(|current| current.version.to_string())
    }

    /// Every file with its bytes.
    fn state(&self) -> BTreeMap<Utf8PathBuf, Vec<u8>> {
        let (mut found, mut pending) = (BTreeMap::new(), vec![self.to()]);
        while let Some(folder) = pending.pop() {
            for entry in folder.read_dir_utf8().into_iter().flatten() {
                let path = entry.unwrap().into_path();
                if path.is_dir() {
                    pending.push(path);
                } else {
                    found.insert(path.clone(), fs::read(path).unwrap());
                }
            }
        }
        found
    }

    #[track_caller]
    fn refused(&self, result: anyhow::Result<Outcome>, before: &BTreeMap<Utf8PathBuf, Vec<u8>>, why: &str) {
        let error = format!("{:#}", result.unwrap_err());
        assert!(error.contains(why), "{error}");
        assert!(self.state() == *before, "something was written: {why}");
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

#[test]
fn a_published_release_is_what_boxes_see() {
    let scene = Scene::new();
    assert_eq!(scene.publish(&scene.release("0.2.0", |_| ())).unwrap(), Outcome::Published);
    let trusted = verify(&scene.to(), scene.now).unwrap();
    let channel = run(trusted.channel("stable")).unwrap();
    assert_eq!(channel.current[0].start_at, scene.now);
    let release = run(trusted.release("branch", version("0.2.0"))).unwrap();
    let object = release.slot.full().unwrap();
    let packed = fs::read(objects::path(&scene.to().join("objects"), object)).unwrap();
    let image = zstd::decode_all(packed.as_slice()).unwrap();
    assert_eq!(objects::sha256(&image), release.slot.sha256.as_str());
    assert_eq!(scene.publish(&scene.release("0.3.0", |_| ())).unwrap(), Outcome::Published);
    assert_eq!(scene.current().as_deref(), Some("0.3.0"));
    assert!(run(verify(&scene.to(), scene.now).unwrap().release("branch", version("0.2.0"))).is_ok());
}

#[test]
fn twice_is_once() {
    let scene = Scene::new();
    let folder = scene.release("0.2.0", |_| ());
    let rollout = Rollout { waves: Some(waves::parse("0h:1%,24h:100%").unwrap()), ..Rollout::default() };
    rollout::publish(&scene.to(), scene.keys(), &folder, &rollout, scene.now).unwrap();
    let before = scene.state();
    let again = rollout::publish(&scene.to(), scene.keys(), &folder, &Rollout::default(), scene.now + 60);
    assert_eq!(again.unwrap(), Outcome::Unchanged);
    assert!(scene.state() == before);
    assert_eq!(scene.channel().current[0].waves.len(), 2);
}

#[test]
fn what_must_not_be_published_is_refused_before_anything_is_written() {
    let scene = Scene::new();
    scene.publish(&scene.release("0.2.0", |_| ())).unwrap();
    let before = scene.state();
    let other = scene.release("0.2.0", |release| release.changelog = "another".into());
    scene.refused(scene.publish(&other), &before, "published already, with other bytes");
    let lower = scene.release("0.1.0", |_| ());
    scene.refused(scene.publish(&lower), &before, "0.1.0 is lower than 0.2.0, which is current");
    let epoch = scene.release("0.3.0", |release| release.security_epoch = 0);
    scene.refused(scene.publish(&epoch), &before, "no box would take it");
    let folder = scene.release("0.4.0", |_| ());
    let object = objects::path(&folder.objects(), folder.releases[0].slot.full().unwrap());
    let honest = fs::read(&object).unwrap();
    fs::write(&object, vec![0; honest.len()]).unwrap();
    scene.refused(scene.publish(&folder), &before, "has other bytes than its name says");
    fs::remove_file(&object).unwrap();
    scene.refused(scene.publish(&folder), &before, "is missing");
    fs::write(&object, honest).unwrap();
    root::init(&scene.path("others"), &BTreeMap::new(), false).unwrap();
    let others = Keys::open(&[scene.path("others")]).unwrap();
    let result = rollout::publish(&scene.to(), others, &folder, &Rollout::default(), scene.now);
    scene.refused(result, &before, "a repository of another root");
    let late = scene.now + 731 * DAY;
    let result = rollout::publish(&scene.to(), scene.keys(), &folder, &Rollout::default(), late);
    scene.refused(result, &before, "root 1 has expired");
    fs::rename(scene.path("keys/targets-2.pem"), scene.path("targets-2.pem")).unwrap();
    scene.refused(
        scene.publish(&folder),
        &before,
        "targets needs 2 signatures, and 1 of its keys are here; missing:",
    );
    fs::rename(scene.path("targets-2.pem"), scene.path("keys/targets-2.pem")).unwrap();
    scene.publish(&folder).unwrap();
}

#[test]
fn a_lost_object_of_an_old_release_is_noticed() {
    let scene = Scene::new();
    let folder = scene.release("0.2.0", |_| ());
    scene.publish(&folder).unwrap();
    let object = folder.releases[0].slot.full().unwrap();
    fs::remove_file(objects::path(&scene.to().join("objects"), object)).unwrap();
    let before = scene.state();
    scene.refused(scene.publish(&scene.release("0.3.0", |_| ())), &before, "branch 0.2.0 is not whole");
    scene.refused(
        rollout::refresh(&scene.to(), scene.keys(), scene.now),
        &before,
        "branch 0.2.0 is not whole",
    );
}

/// Keys of root and targets in a safe, those of snapshot and timestamp on the server.
#[test]
fn offline_and_online_keys_apart() {
    let scene = Scene::new();
    let (safe, server) = (scene.path("keys"), scene.path("server"));
    fs::create_dir(&server).unwrap();
    fs::copy(safe.join("1.root.json"), server.join("1.root.json")).unwrap();
    for name in ["snapshot-1.pem", "timestamp-1.pem"] {
        fs::rename(safe.join(name), server.join(name)).unwrap();
    }
    let folder = scene.release("0.2.0", |_| ());
    scene.refused(scene.publish(&folder), &scene.state(), "the keys of snapshot are elsewhere; --sign-later");
    let later = Rollout { later: true, ..Rollout::default() };
    let keys = || Keys::open(std::slice::from_ref(&server)).unwrap();
    for (name, expected) in [("0.2.0", None), ("0.3.0", Some("0.2.0"))] {
        let folder = scene.release(name, |_| ());
        let signed = rollout::publish(&scene.to(), scene.keys(), &folder, &later, scene.now).unwrap();
        assert_eq!(signed, Outcome::AwaitsRefresh);
        if let Some(old) = expected {
            assert_eq!(scene.current().as_deref(), Some(old), "readers have the old state");
        }
        assert_eq!(rollout::refresh(&scene.to(), keys(), scene.now).unwrap(), Outcome::Published);
        assert_eq!(scene.current().as_deref(), Some(name));
    }
    // Two that were signed before anybody carried them: each has its own number, and the last one counts.
    for name in ["0.4.0", "0.5.0"] {
        let folder = scene.release(name, |_| ());
        rollout::publish(&scene.to(), scene.keys(), &folder, &later, scene.now).unwrap();
    }
    rollout::refresh(&scene.to(), keys(), scene.now).unwrap();
    assert_eq!(scene.current().as_deref(), Some("0.5.0"));
    assert_eq!(verify(&scene.to(), scene.now).unwrap().versions()[3].1, 4);
}

/// Cron signs for as long as the targets are valid, and everybody is warned before.
#[test]
fn refresh_keeps_a_repository_alive() {
    let scene = Scene::new();
    scene.publish(&scene.release("0.2.0", |_| ())).unwrap();
    assert!(Repository::warnings(&scene.to(), scene.now).unwrap().is_empty());
    let late = scene.now + 25 * DAY;
    let warnings = Repository::warnings(&scene.to(), late).unwrap();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].starts_with("timestamp expires in "), "{warnings:?}");
    assert!(verify(&scene.to(), scene.now + 31 * DAY).is_err());
    for day in [25, 50, 75, 100] {
        rollout::refresh(&scene.to(), scene.keys(), scene.now + day * DAY).unwrap();
        verify(&scene.to(), scene.now + (day + 29) * DAY).unwrap();
    }
    let versions = verify(&scene.to(), scene.now + 100 * DAY).unwrap().versions().map(|(_, version)| version);
    assert_eq!(versions, [1, 5, 5, 1]);
    let warnings = Repository::warnings(&scene.to(), scene.now + 129 * DAY).unwrap();
    assert!(!warnings.iter().any(|warning| warning.starts_with("targets")), "{warnings:?}");
}

#[test]
fn withdrawing_leads_back() {
    let scene = Scene::new();
    for name in ["0.2.0", "0.3.0"] {
        scene.publish(&scene.release(name, |_| ())).unwrap();
    }
    let withdraw = |name: &str| {
        let what = ("branch", version(name));
        rollout::withdraw(&scene.to(), scene.keys(), &Rollout::default(), what, "eats leases", scene.now)
    };
    assert!(format!("{:#}", withdraw("0.9.0").unwrap_err()).contains("was never published"));
    assert_eq!(withdraw("0.3.0").unwrap(), (Outcome::Published, Some(version("0.2.0"))));
    assert_eq!(withdraw("0.3.0").unwrap(), (Outcome::Unchanged, Some(version("0.2.0"))));
    assert_eq!(scene.channel().is_withdrawn("branch", version("0.3.0")), Some("eats leases"));
    assert_eq!(scene.current().as_deref(), Some("0.2.0"));
    let again = scene.publish(&Folder::open(&scene.path("releases/0.3.0")).unwrap());
    assert!(format!("{:#}", again.unwrap_err()).contains("is withdrawn (eats leases)"));
    assert_eq!(withdraw("0.2.0").unwrap(), (Outcome::Published, None));
    assert_eq!(scene.current(), None);
    scene.publish(&scene.release("0.4.0", |_| ())).unwrap();
    assert_eq!(scene.current().as_deref(), Some("0.4.0"));
}

/// Every file that a publish writes, in order; a reader sees the old state until the last one.
#[test]
fn an_interrupted_publish_leaves_the_old_state() {
    let scene = Scene::new();
    scene.publish(&scene.release("0.2.0", |_| ())).unwrap();
    let old = scene.state();
    scene.publish(&scene.release("0.3.0", |_| ())).unwrap();
    let new = scene.state();
    let timestamp = scene.to().join("metadata/timestamp.json");
    for (path, bytes) in &old {
        assert!(new[path] == *bytes || *path == timestamp, "{path} was changed in place");
    }
    fs::write(&timestamp, &old[&timestamp]).unwrap();
    assert_eq!(scene.current().as_deref(), Some("0.2.0"));
    let again = scene.publish(&Folder::open(&scene.path("releases/0.3.0")).unwrap());
    assert_eq!(again.unwrap(), Outcome::Published, "and the next try goes on");
    assert_eq!(scene.current().as_deref(), Some("0.3.0"));
}

#[test]
fn rotated_keys_reach_boxes_with_the_first_root() {
    let scene = Scene::new();
    scene.publish(&scene.release("0.2.0", |_| ())).unwrap();
    let directories = [scene.path("keys")];
    for role in [RoleType::Timestamp, RoleType::Snapshot] {
        root::next(&directories, Some(role), None).unwrap();
        rollout::refresh(&scene.to(), scene.keys(), scene.now).unwrap();
        verify(&scene.to(), scene.now).unwrap();
    }
    root::next(&directories, Some(RoleType::Root), Some(Quorum { keys: 2, threshold: 2 })).unwrap();
    root::next(&directories, Some(RoleType::Targets), None).unwrap();
    let stale = rollout::refresh(&scene.to(), scene.keys(), scene.now);
    assert!(format!("{:#}", stale.unwrap_err()).contains("publish anew where those are"));
    verify(&scene.to(), scene.now).unwrap();
    // A thief of the old keys may have put something in: the new ones do not vouch for it unasked.
    let (folder, before) = (scene.release("0.3.0", |_| ()), scene.state());
    scene.refused(scene.publish(&folder), &before, "signed by keys that have been replaced");
    let vouched = Rollout { vouch: true, ..Rollout::default() };
    rollout::publish(&scene.to(), scene.keys(), &folder, &vouched, scene.now).unwrap();
    assert_eq!(root::next(&directories, None, None).unwrap(), 6);
    rollout::refresh(&scene.to(), scene.keys(), scene.now).unwrap();
    assert_eq!(verify(&scene.to(), scene.now).unwrap().versions()[0].1, 6);
}

#[test]
fn keys_are_private_and_outside_the_repository() {
    use std::os::unix::fs::PermissionsExt as _;
    let scene = Scene::new();
    for name in ["root-1.pem", "root-3.pem", "targets-2.pem", "snapshot-1.pem", "timestamp-1.pem"] {
        let mode = fs::metadata(scene.path("keys").join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    ensure_outside_git(&scene.path("new")).unwrap();
    fs::create_dir(scene.path(".git")).unwrap();
    let error = ensure_outside_git(&scene.path("a/b")).unwrap_err().to_string();
    assert!(error.contains("lies in the git work tree"), "{error}");
    let error = root::init(&scene.path("keys"), &BTreeMap::new(), false).unwrap_err().to_string();
    assert!(error.contains("is not empty; keys are never overwritten"), "{error}");
    let quorums = BTreeMap::from([("root", Quorum { keys: 1, threshold: 2 })]);
    let error = root::init(&scene.path("few"), &quorums, false).unwrap_err().to_string();
    assert!(error.contains("2 of 1 keys cannot sign"), "{error}");
}

/// Whoever renames the folder does not make another root of it: the mark is signed.
#[test]
fn a_development_root_says_so_itself() {
    let scene = Scene::new();
    let workspace = xtask::workspace::Workspace::locate();
    let trusted = |name: &str| root::trusted(Some(&scene.path(name)), &workspace).unwrap().unwrap();
    assert!(!trusted("keys").development);
    root::init(&scene.path("development"), &BTreeMap::new(), true).unwrap();
    fs::create_dir(scene.path("moved")).unwrap();
    fs::copy(scene.path("development/root.json"), scene.path("moved/root.json")).unwrap();
    assert!(trusted("moved").development, "the root alone is enough for an image");
    assert_eq!(trusted("moved").bytes, fs::read(scene.path("development/root.json")).unwrap());
    let text = fs::read_to_string(scene.path("moved/root.json")).unwrap();
    let changed = text.replace("\"x-kontor-development\": true", "\"x-kontor-development\": false");
    assert_ne!(changed, text);
    fs::write(scene.path("moved/root.json"), changed).unwrap();
    assert!(root::trusted(Some(&scene.path("moved")), &workspace).is_err());
}

#[test]
fn a_release_comes_whole_in_chunks_and_as_a_patch() {
    let scene = Scene::new();
    let make = |version: &str, bytes: &[u8], older: &[Folder]| {
        let store = scene.path("releases").join(version).join("objects");
        fs::create_dir_all(&store).unwrap();
        let image = store.with_file_name("made.img");
        fs::write(&image, bytes).unwrap();
        let image = forms::make("slot", &image, &forms::older(older, "branch", None), &store).unwrap();
        scene.release(version, |release| release.slot = image)
    };
    let mut bytes = noise(600_000);
    let old = make("0.1.0", &bytes, &[]);
    assert_eq!(old.releases[0].slot.forms.len(), 2);
    bytes.splice(300_000..300_010, *b"a change");
    let olds = [old.clone(), old];
    let new = make("0.2.0", &bytes, &olds);
    let slot = &new.releases[0].slot;
    let patches: Vec<_> = slot.patches().collect();
    assert_eq!(patches.len(), 1, "an older release that is named twice counts once");
    assert_eq!((patches[0].0, patches[0].1), (&olds[0].releases[0].slot.sha256, 600_000));
    assert!(patches[0].2.bytes < 1000, "{}", patches[0].2.bytes);
    let full = slot.full().unwrap().bytes;
    assert!(slot.chunks().unwrap().1.bytes < full + full / 100);

    assert_eq!(scene.publish(&new).unwrap(), Outcome::Published);
    for object in new.releases[0].objects() {
        objects::check(object, &scene.to().join("objects")).unwrap();
    }
    assert_eq!(scene.publish(&new).unwrap(), Outcome::Unchanged);
    let before = scene.state();
    let next = make("0.3.0", &noise(500_000), &olds);
    let pack = next.releases[0].slot.chunks().unwrap().1;
    fs::remove_file(objects::path(&next.objects(), pack)).unwrap();
    scene.refused(scene.publish(&next), &before, "is missing");
    // Whoever has a damaged older release is told, and not given a patch from it.
    let damaged = objects::path(&olds[0].objects(), olds[0].releases[0].slot.full().unwrap());
    fs::write(&damaged, noise(10)).unwrap();
    let store = scene.path("releases/0.4.0/objects");
    fs::write(scene.path("next.img"), noise(1000)).unwrap();
    let made = forms::make("slot", &scene.path("next.img"), &forms::older(&olds, "branch", None), &store);
    let error = format!("{:#}", made.unwrap_err());
    assert!(error.contains("has 10 bytes, not"), "{error}");
}

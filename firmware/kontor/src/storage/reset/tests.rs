//! A box as directories and files: whatever a reset is cut at, the next boot ends with the same fresh office, and what keeps old releases
//! out was there all the time.

use std::os::unix::fs::PermissionsExt as _;

use kontor_boot::filesystem::{Content, identify};
use kontor_boot::partition::BOOTSTATE_SIZE;
use kontor_boot::site_copy::newest;

use super::*;

const FACTORY: &str = "the seed's site";
const ASKED: Record = Record { stage: Stage::Asked, data: Data::Keep, at: 1000 };
const KEPT: [&str; 4] =
    ["updated/journal.json", "updated/trust/seen.json", "updated/trust/1.root.json", "init/clock"];
const GONE: [&str; 8] = [
    "site/site.toml",
    "site/good.toml",
    "site/history/0001.toml",
    "site/secrets/samba-join",
    "dhcpd/leases.journal",
    "netd/ports.json",
    "init/other",
    "unknown",
];

struct TestBox {
    scratch: tempfile::TempDir,
}

impl TestBox {
    /// An office that has been used, flashed with a site file or without one.
    fn used(factory: Option<&str>) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let found = Self { scratch };
        for path in KEPT.iter().chain(&GONE) {
            let path = found.state().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "of the old office").unwrap();
        }
        std::os::unix::fs::symlink(found.state().join("updated"), found.state().join("netd/link")).unwrap();
        fs::write(found.data(), vec![7; PROBE_LENGTH + 512]).unwrap();
        File::create(found.bootstate()).unwrap().set_len(BOOTSTATE_SIZE).unwrap();
        let device = open_writable(&found.bootstate()).unwrap();
        for offset in AREA_OFFSETS {
            write_copy(&device, offset, "the old office".into()).unwrap();
        }
        let site = factory.map(|text| SeedFile { path: "site.toml".into(), content: text.into() });
        let secret = SeedFile { path: "secrets/samba-join".into(), content: "secret".into() };
        keep_factory_site(&found.bootstate(), &[site.as_slice(), &[secret]].concat()).unwrap();
        found
    }

    fn state(&self) -> PathBuf {
        self.scratch.path().join("state")
    }

    fn data(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    fn bootstate(&self) -> PathBuf {
        self.scratch.path().join("bootstate")
    }

    fn ask(&self, data: Data) {
        write_record(&self.bootstate(), &Record { data, ..ASKED }).unwrap();
    }

    /// One boot, with a power cut after so many steps; whether it came to its end.
    fn boot(&self, cut: usize) -> bool {
        let (bootstate, data, state) = (self.bootstate(), self.data(), self.state());
        let places = Places { bootstate: &bootstate, data: Some(&data), state: &state };
        let Some(asked) = read_record(&bootstate).unwrap().filter(|record| record.stage != Stage::Done)
        else {
            return true;
        };
        for (number, step) in places.plan(asked).unwrap().iter().enumerate() {
            if number == cut {
                // Half of what is removed may be gone.
                if let Step::Remove(path) = step {
                    let inside = fs::read_dir(state.join(path)).into_iter().flatten().flatten().next();
                    if let Some(entry) = inside {
                        remove(&entry.path()).unwrap();
                    }
                }
                return false;
            }
            let before = self.of_the_old_office();
            places.take(step, asked).unwrap();
            // Whoever finds `state` changed finds that it is, until it is fresh.
            let stage = read_record(&bootstate).unwrap().unwrap().stage;
            assert!(before == self.of_the_old_office() || stage == Stage::Begun, "{step:?}: {stage:?}");
        }
        true
    }

    /// What goes and is there, whole.
    fn of_the_old_office(&self) -> Vec<&str> {
        let is_whole =
            |path: &str| fs::read(self.state().join(path)).is_ok_and(|text| text == b"of the old office");
        GONE.into_iter().filter(|path| is_whole(path)).collect()
    }

    fn copy(&self) -> Option<String> {
        let device = File::open(self.bootstate()).unwrap();
        let copies = AREA_OFFSETS.map(|offset| {
            let mut area = vec![0; AREA_LENGTH];
            device.read_exact_at(&mut area, offset).unwrap();
            SiteCopy::decode(&area)
        });
        newest(copies).map(|copy| String::from_utf8(copy.text).unwrap()).filter(|text| !text.is_empty())
    }

    #[track_caller]
    fn has_what_stays(&self) {
        for path in KEPT {
            assert_eq!(fs::read(self.state().join(path)).unwrap(), b"of the old office", "{path}");
        }
    }

    #[track_caller]
    fn is_fresh(&self, factory: Option<&str>, data: Data) {
        self.has_what_stays();
        let site = self.state().join("site/site.toml");
        assert_eq!(fs::read_to_string(&site).ok().as_deref(), factory);
        if factory.is_some() {
            assert_eq!(fs::metadata(&site).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let names: Vec<_> = fs::read_dir(self.state().join("site/secrets")).into_iter().flatten().collect();
        assert!(names.is_empty(), "{names:?}");
        for path in &GONE[1..] {
            assert!(!self.state().join(path).exists(), "{path}");
        }
        assert_eq!(self.copy().as_deref(), factory);
        let start = fs::read(self.data()).unwrap();
        assert_eq!(identify(&start[..PROBE_LENGTH]) == Content::Empty, data == Data::Wipe);
        let record = read_record(&self.bootstate()).unwrap().unwrap();
        assert!(record.stage == Stage::Done && record.data == data && record.at > ASKED.at, "{record:?}");
    }
}

#[test]
fn a_reset_cut_at_any_step_ends_the_same() {
    for (factory, data) in [(Some(FACTORY), Data::Keep), (Some(FACTORY), Data::Wipe), (None, Data::Wipe)] {
        let mut cut = 0;
        loop {
            let found = TestBox::used(factory);
            found.ask(data);
            if found.boot(cut) {
                break;
            }
            found.has_what_stays();
            // And cut again, somewhere else.
            found.boot(cut / 2);
            found.has_what_stays();
            assert!(found.boot(usize::MAX));
            found.is_fresh(factory, data);
            cut += 1;
        }
        assert!(cut > 15, "only {cut} steps");
    }
}

#[test]
fn without_a_request_nothing_happens_and_it_is_carried_out_once() {
    let found = TestBox::used(Some(FACTORY));
    assert!(found.boot(0));
    assert_eq!(found.copy().as_deref(), Some("the old office"));
    found.ask(Data::Keep);
    assert!(found.boot(usize::MAX));
    fs::write(found.state().join("site/site.toml"), "of a new office").unwrap();
    assert!(found.boot(0));
    assert_eq!(fs::read(found.state().join("site/site.toml")).unwrap(), b"of a new office");
}

#[test]
fn what_is_removed_was_overwritten_and_links_are_not_followed() {
    let found = TestBox::used(None);
    let secret = found.state().join("site/secrets/samba-join");
    // Another name of the same file shows what is left on the disk.
    fs::hard_link(&secret, found.scratch.path().join("disk")).unwrap();
    found.ask(Data::Keep);
    assert!(found.boot(usize::MAX));
    assert_eq!(fs::read(found.scratch.path().join("disk")).unwrap(), [0; 17]);
    found.is_fresh(None, Data::Keep);
}

#[test]
fn of_a_seed_the_site_file_is_kept_and_no_secret() {
    let found = TestBox::used(Some(FACTORY));
    assert_eq!(read_factory_site(&found.bootstate()).unwrap().unwrap(), FACTORY.as_bytes());
    let bytes = fs::read(found.bootstate()).unwrap();
    assert!(!bytes.windows(6).any(|window| window == b"secret"));
    // Another seed replaces it, also one without a site file.
    keep_factory_site(&found.bootstate(), &[]).unwrap();
    assert_eq!(read_factory_site(&found.bootstate()).unwrap(), None);
}

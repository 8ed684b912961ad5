//! Power cuts while a box remembers what it has seen, and memory that is damaged.
//!
//! The disk is simulated: what was not synced may be there after a cut, or may not, or be empty.

use std::collections::BTreeMap;
use std::io::{Error, Result};
use std::sync::{Arc, Mutex};

use kontor_trust::tough::schema::RoleType;
use kontor_trust::{Clock, Files, Store};

use crate::forge::{Box_, Forge, NOW, keys, look, run};

/// What becomes of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// It was written by chance.
    Kept,
    /// It is gone.
    Lost,
    /// Names are there, bytes are not: what ext4 may do to files that are renamed without a sync.
    Empty,
}

#[derive(Debug, Clone, Default)]
struct File {
    bytes: Vec<u8>,
    synced: Option<Vec<u8>>,
}

#[derive(Debug, Default)]
struct State {
    /// By name; two names may be one file.
    names: BTreeMap<String, Arc<Mutex<File>>>,
    synced_names: BTreeMap<String, Arc<Mutex<File>>>,
    /// Operations until the power goes; none is for ever.
    left: Option<usize>,
    done: usize,
}

#[derive(Debug, Clone, Default)]
struct Disk(Arc<Mutex<State>>);

impl Disk {
    fn change<T>(&self, change: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut state = self.0.lock().unwrap();
        if state.left.is_some_and(|left| state.done >= left) {
            return Err(Error::other("the power is gone"));
        }
        state.done += 1;
        change(&mut state)
    }

    /// The disk after the power has come back.
    fn after_cut(&self, after: After) -> Self {
        let state = self.0.lock().unwrap();
        let names = if after == After::Lost { &state.synced_names } else { &state.names };
        let survived = |file: &Arc<Mutex<File>>| {
            let file = file.lock().unwrap();
            let bytes = match after {
                After::Kept => file.bytes.clone(),
                After::Lost | After::Empty => file.synced.clone().unwrap_or_default(),
            };
            Arc::new(Mutex::new(File { synced: Some(bytes.clone()), bytes }))
        };
        let names: BTreeMap<_, _> = names.iter().map(|(name, file)| (name.clone(), survived(file))).collect();
        Self(Arc::new(Mutex::new(State { synced_names: names.clone(), names, left: None, done: 0 })))
    }

    fn cut_after(&self, operations: usize) {
        let mut state = self.0.lock().unwrap();
        (state.left, state.done) = (Some(operations), 0);
    }

    fn store(&self, office: &Box_) -> Store {
        Store::open_files(Box::new(self.clone()), &office.shipped).unwrap()
    }
}

impl Files for Disk {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.0.lock().unwrap().names.get(name).map(|file| file.lock().unwrap().bytes.clone()))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.change(|state| {
            state.names.entry(name.to_owned()).or_default().lock().unwrap().bytes = bytes.to_vec();
            Ok(())
        })
    }

    fn sync(&self, name: &str) -> Result<()> {
        self.change(|state| {
            let mut file = state.names[name].lock().unwrap();
            file.synced = Some(file.bytes.clone());
            Ok(())
        })
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.change(|state| {
            let file = state.names.remove(from).ok_or_else(|| Error::other("no such file"))?;
            state.names.insert(to.to_owned(), file);
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.change(|state| state.names.remove(name).map(drop).ok_or_else(|| Error::other("no such file")))
    }

    fn sync_names(&self) -> Result<()> {
        self.change(|state| {
            state.synced_names = state.names.clone();
            Ok(())
        })
    }

    fn names(&self) -> Result<Vec<String>> {
        Ok(self.0.lock().unwrap().names.keys().cloned().collect())
    }
}

const CLOCK: Clock = Clock { now: NOW, floor: 0 };

/// A box that has seen a first state sees a second one, with two new roots, and loses its power after any number of writes.
#[test]
fn any_cut_leaves_a_memory_that_holds() {
    let mut forge = Forge::new();
    let office = Box_::new(&forge);
    let disk = Disk::default();
    run(look(&mut disk.store(&office), &forge.server, CLOCK)).unwrap();
    let first = forge.server.copy();
    forge.rotate(RoleType::Targets, keys(&[13], 1), &[1, 2]);
    forge.rotate(RoleType::Timestamp, keys(&[32], 1), &[1, 2]);
    forge.publish_next();
    let mut whole = 0;
    for cut in 0.. {
        let before = disk.after_cut(After::Kept);
        before.cut_after(cut);
        let looked = run(look(&mut before.store(&office), &forge.server, CLOCK));
        for after in [After::Kept, After::Lost, After::Empty] {
            check_after(&before.after_cut(after), &office, &forge, &first, (cut, after));
        }
        whole = cut;
        if looked.is_ok() {
            break;
        }
    }
    assert_eq!(whole, 12, "two roots and the memory, four steps each");
}

fn check_after(disk: &Disk, office: &Box_, forge: &Forge, first: &crate::forge::Server, at: (usize, After)) {
    let store = disk.store(office);
    assert!(store.reports().is_empty(), "{at:?}: {:?}", store.reports());
    let root = store.root_version();
    // What was promised after the cut is not forgotten: before the first new root is durable, the old state is still right.
    let (old, second) = (disk.after_cut(After::Kept), disk.after_cut(After::Kept));
    let looked = run(look(&mut old.store(office), first, CLOCK));
    match root {
        1 => assert!(looked.is_ok(), "{at:?}"),
        _ => assert_eq!(looked.unwrap_err().rule(), Some("signature"), "{at:?}: root {root}"),
    }
    run(look(&mut second.store(office), &forge.server, CLOCK))
        .unwrap_or_else(|error| panic!("{at:?}: {error}"));
    assert_eq!(second.store(office).root_version(), 3);
}

/// As recovery from fast-forward, with the power gone between the new root and everything else.
#[test]
fn a_cut_does_not_undo_the_recovery_from_fast_forward() {
    let mut forge = Forge::new();
    let office = Box_::new(&forge);
    let honest = forge.clone();
    forge.versions.insert(RoleType::Snapshot, 1_000_000);
    forge.versions.insert(RoleType::Timestamp, 1_000_000);
    forge.publish();
    let disk = Disk::default();
    run(look(&mut disk.store(&office), &forge.server, CLOCK)).unwrap();
    let mut forge = honest;
    // The timestamp's key stays: only the memory of whose keys signed the snapshot tells that it counts no longer.
    forge.rotate(RoleType::Snapshot, keys(&[22], 1), &[1, 2]);
    forge.publish_next();
    disk.cut_after(4);
    assert!(run(look(&mut disk.store(&office), &forge.server, CLOCK)).is_err());
    let disk = disk.after_cut(After::Lost);
    assert_eq!(disk.store(&office).root_version(), 2);
    run(look(&mut disk.store(&office), &forge.server, CLOCK)).unwrap();
}

#[test]
fn a_damaged_memory_is_set_aside_and_reported() {
    let mut forge = Forge::new();
    forge.publish_next();
    for damage in ["", "{", "null", "garbage"] {
        let office = Box_::new(&forge);
        office.accepts(&forge.server);
        let path = office.path().join("seen.json");
        std::fs::write(&path, damage).unwrap();
        let store = office.open();
        assert!(store.reports()[0].starts_with("what was remembered in seen.json is unusable"), "{damage}");
        assert!(office.path().join("seen.json.damaged").exists());
        office.accepts(&forge.server);
        assert!(office.open().reports().is_empty());
    }
}

/// A bad block in a number: the file is still JSON, and still says less than was seen.
#[test]
fn a_memory_with_any_byte_changed_is_never_silently_weaker() {
    let mut forge = Forge::new();
    let old = forge.server.copy();
    forge.publish_next();
    let office = Box_::new(&forge);
    office.accepts(&forge.server);
    let path = office.path().join("seen.json");
    let honest = std::fs::read(&path).unwrap();
    for at in (0..honest.len()).step_by(19) {
        let mut bytes = honest.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let reported = !office.open().reports().is_empty();
        let refused = office.look(&old).is_err();
        assert!(reported || refused, "byte {at}");
        std::fs::write(&path, &honest).unwrap();
    }
}

/// Nothing is written where nothing has changed: boxes look every hour, for years, at flash.
#[test]
fn what_has_not_changed_is_not_written() {
    let forge = Forge::new();
    let office = Box_::new(&forge);
    let disk = Disk::default();
    let mut store = disk.store(&office);
    run(look(&mut store, &forge.server, CLOCK)).unwrap();
    let writes = disk.0.lock().unwrap().done;
    run(look(&mut store, &forge.server, Clock { now: NOW + 60, ..CLOCK })).unwrap();
    assert_eq!(disk.0.lock().unwrap().done, writes);
    run(look(&mut store, &forge.server, Clock { now: NOW + 7200, ..CLOCK })).unwrap();
    assert_eq!(disk.0.lock().unwrap().done, writes + 4);
}

//! A power cut at every operation, with any part of what was not durable yet lost.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::table::trial;

const LEASES: &str = "dhcpd/leases.journal";
const OTHER: &str = "netd/ports.json";
const OLD: &[u8] = b"0123abcd {\"a\":1}\n89abcdef {\"a\":2}\n";
const NEW: &[u8] = b"{\"a\":1} 0123abcd\n{\"a\":2} 89abcdef\n";

/// A file system of which names are durable only when their directory has been synced.
#[derive(Debug, Clone, Default)]
struct Model {
    durable: BTreeMap<String, Vec<u8>>,
    pending: Vec<Change>,
    operations_left: Option<usize>,
}

#[derive(Debug, Clone)]
enum Change {
    Put(String, Vec<u8>),
    Rename(String, String),
    Remove(String),
}

impl Model {
    fn of(schema: Option<u32>, leases: &[u8]) -> Self {
        let mut model = Self::default();
        model.durable.insert(LEASES.into(), leases.to_vec());
        model.durable.insert(OTHER.into(), b"[]".to_vec());
        if let Some(schema) = schema {
            model.durable.insert(NOTE.into(), Note::of(schema).to_json());
        }
        model
    }

    fn now(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = self.durable.clone();
        self.pending.iter().for_each(|change| apply(&mut files, change));
        files
    }

    /// The power goes: of what is pending only these survive.
    fn cut(mut self, survives: impl Fn(usize) -> bool) -> Self {
        for (index, change) in std::mem::take(&mut self.pending).iter().enumerate() {
            if survives(index) {
                apply(&mut self.durable, change);
            }
        }
        self.operations_left = None;
        self
    }

    fn operation(&mut self) -> io::Result<()> {
        match &mut self.operations_left {
            Some(0) => Err(io::Error::other("the power is gone")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

fn apply(files: &mut BTreeMap<String, Vec<u8>>, change: &Change) {
    match change {
        Change::Put(path, bytes) => drop(files.insert(path.clone(), bytes.clone())),
        Change::Rename(from, to) => {
            if let Some(bytes) = files.remove(from) {
                files.insert(to.clone(), bytes);
            }
        }
        Change::Remove(path) => drop(files.remove(path)),
    }
}

fn is_in(path: &str, directory: &str) -> bool {
    path.rsplit_once('/').map_or("", |(parent, _)| parent) == directory
}

impl Directory for Model {
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.now().get(path).cloned())
    }

    fn put(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.operation()?;
        self.durable.insert(path.into(), bytes.to_vec());
        Ok(())
    }

    fn stage(&mut self, path: &str, bytes: &[u8], like: &str) -> io::Result<()> {
        self.operation()?;
        assert!(self.now().contains_key(like), "{like}");
        self.pending.push(Change::Put(path.into(), bytes.to_vec()));
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.operation()?;
        self.pending.push(Change::Rename(from.into(), to.into()));
        Ok(())
    }

    fn sync(&mut self, directory: &str) -> io::Result<()> {
        self.operation()?;
        let touches = |change: &Change| match change {
            Change::Put(path, _) | Change::Remove(path) => is_in(path, directory),
            Change::Rename(from, to) => is_in(from, directory) || is_in(to, directory),
        };
        for change in std::mem::take(&mut self.pending) {
            if touches(&change) {
                apply(&mut self.durable, &change);
            } else {
                self.pending.push(change);
            }
        }
        Ok(())
    }

    fn clear(&mut self, _keep: bool) -> io::Result<()> {
        self.operation()?;
        for path in self.now().into_keys().filter(|path| path.starts_with(STAGING)) {
            self.pending.push(Change::Remove(path));
        }
        Ok(())
    }
}

/// What boots after a cut.
fn settled(mut model: Model) -> (u32, Vec<u8>) {
    let schema = Note::settle(&mut model).unwrap().unwrap_or(1);
    let files = model.now();
    assert_eq!(files[OTHER], b"[]");
    (schema, files[LEASES].clone())
}

#[test]
fn it_goes_there_and_back() {
    let mut model = Model::of(None, OLD);
    bring(&mut model, &trial::TABLE, 1, 2).unwrap();
    assert_eq!(settled(model.clone()), (2, NEW.to_vec()));
    bring(&mut model, &trial::TABLE, 2, 1).unwrap();
    assert_eq!(settled(model.clone()), (1, OLD.to_vec()));
    assert!(!model.now().keys().any(|path| path.starts_with(STAGING)));
}

#[test]
fn a_file_that_is_not_there_is_no_obstacle() {
    let mut model = Model::of(Some(1), OLD);
    model.durable.remove(LEASES);
    bring(&mut model, &trial::TABLE, 1, 2).unwrap();
    assert_eq!(Note::settle(&mut model).unwrap(), Some(2));
    model.durable.insert(NOTE.into(), b"{\"schema\"".to_vec());
    assert_eq!(Note::settle(&mut model).unwrap(), None, "garbage is no note");
}

proptest! {
    #[test]
    fn whenever_the_power_goes_all_is_old_or_all_is_new(
        first in 0usize..12, second in 0usize..12, lost in any::<u64>(), up in any::<bool>(),
    ) {
        let (from, to) = if up { (1, 2) } else { (2, 1) };
        let content = |schema| if schema == 1 { OLD } else { NEW };
        let mut model = Model::of(Some(from), content(from));
        model.operations_left = Some(first);
        let whole = bring(&mut model, &trial::TABLE, from, to).is_ok();
        model = model.cut(|index| lost >> (index % 32) & 1 == 0);
        // The next boot is cut short, too.
        model.operations_left = Some(second);
        let _ = Note::settle(&mut model);
        model = model.cut(|index| lost >> (32 + index % 32) & 1 == 0);
        let (schema, leases) = settled(model.clone());
        prop_assert!(schema == from || schema == to);
        prop_assert!(!whole || schema == to);
        prop_assert_eq!(&leases[..], content(schema));
        // And the change can still be made.
        Note::settle(&mut model).unwrap();
        if schema == from {
            bring(&mut model, &trial::TABLE, from, to).unwrap();
        }
        prop_assert_eq!(settled(model), (to, content(to).to_vec()));
    }
}

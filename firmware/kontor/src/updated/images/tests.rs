//! Every way to an image, from a repository in a folder; and what becomes of one that somebody has changed.

use kontor_delta::{digest, pack, patch};
use kontor_update::release::Form;
use tempfile::TempDir;

use super::super::held::Held;
use super::*;

fn noise(seed: u64, length: usize) -> Vec<u8> {
    // xorshift64: the same in each run.
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

/// What runs, and what it is to become: something new in the middle, a hole, a little changed here and there.
fn old() -> Vec<u8> {
    [noise(1, 900_000), vec![0; 300_000], noise(2, 300_000)].concat()
}

fn new() -> Vec<u8> {
    let old = old();
    let mut tail = old[1_200_000..].to_vec();
    tail[..9_000].iter_mut().step_by(337).for_each(|byte| *byte = byte.wrapping_add(4));
    [&old[..200_000], &noise(3, 5_000), &old[200_000..900_000], &[0; 350_000], &tail].concat()
}

fn sha256(bytes: &[u8]) -> Sha256Hex {
    Sha256Hex::from_bytes(&digest::sha256(bytes))
}

/// A repository in a folder, and a box in another one.
struct Scene {
    folder: TempDir,
    image: Image,
    bytes: Vec<u8>,
    old: File,
}

impl Scene {
    /// With these forms beside the full one; the box has `old`, followed by what a slot has behind an image.
    fn new(old: &[u8], new: Vec<u8>, with_chunks: bool, with_patch: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["repository/objects", "work/objects", "work/images"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        let store = folder.path().join("repository/objects");
        let put = |bytes: &[u8]| {
            let object = Object { sha256: sha256(bytes), bytes: bytes.len() as u64 };
            fs::write(store.join(object.sha256.as_str()), bytes).unwrap();
            object
        };
        let mut forms = vec![Form::Full(put(&full::make(&new).unwrap()))];
        if with_chunks {
            let made = pack::make(&new, 12).unwrap();
            forms.push(Form::Chunks { index: put(&made.index.encode()), pack: put(&made.pack) });
        }
        if with_patch {
            let patch = put(&patch::make(old, &new, patch::Options::default()).unwrap());
            forms.push(Form::Patch { from: sha256(old), from_bytes: old.len() as u64, patch });
        }
        let slot = folder.path().join("slot");
        fs::write(&slot, [old, &noise(9, 100_000)].concat()).unwrap();
        let image = Image { bytes: new.len() as u64, sha256: sha256(&new), forms };
        Self { old: File::open(slot).unwrap(), image, bytes: new, folder }
    }

    fn small(with_chunks: bool, with_patch: bool) -> Self {
        Self::new(&old(), new(), with_chunks, with_patch)
    }

    fn object(&self, object: &Object) -> PathBuf {
        self.folder.path().join("repository/objects").join(object.sha256.as_str())
    }

    fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    fn order(&self) -> Order {
        let held = Held::of(Kind::Slot, &self.old, self.old.metadata().unwrap().len());
        let wanted = Wanted { name: "slot".into(), kind: Kind::Slot, image: self.image.clone() };
        Order {
            from: self.folder.path().join("repository").display().to_string(),
            work: self.work(),
            channel: "stable".into(),
            product: "branch".into(),
            root: PathBuf::new(),
            clock_floor: 0,
            rate_limit_kbit_s: None,
            images: vec![wanted],
            held: vec![held],
        }
    }

    fn fetch(&self) -> anyhow::Result<Progress> {
        fetch(&self.order())
    }

    /// How many bytes came, when the right image came out and nothing else is left.
    #[track_caller]
    fn fetched(&self) -> u64 {
        let progress = self.fetch().unwrap();
        let made = Places::new(&self.work()).image(&self.image.sha256);
        assert!(fs::read(made).unwrap() == self.bytes);
        assert_eq!(fs::read_dir(self.work().join("objects")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(self.work().join("images")).unwrap().count(), 1);
        assert_eq!(progress.full, self.full());
        progress.bytes
    }

    fn full(&self) -> u64 {
        self.image.full().unwrap().bytes
    }

    /// Puts other bytes in an object's place, with the manifest's word for them when `signed`.
    fn replace(&mut self, which: usize, signed: bool, change: impl FnOnce(&mut Vec<u8>)) {
        let scene = self.folder.path().join("repository/objects");
        let object = match &mut self.image.forms[which] {
            Form::Chunks { index, .. } => index,
            Form::Full(object) | Form::Patch { patch: object, .. } => object,
            Form::Unknown => unreachable!(),
        };
        let mut bytes = fs::read(scene.join(object.sha256.as_str())).unwrap();
        change(&mut bytes);
        if signed {
            *object = Object { sha256: sha256(&bytes), bytes: bytes.len() as u64 };
        }
        fs::write(scene.join(object.sha256.as_str()), bytes).unwrap();
    }

    /// What stands against the way that is tried first.
    fn refusal(&self) -> String {
        let places = Places::new(&self.work());
        let path = places.part(&self.image.sha256);
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path);
        let mut target = OnDisk(file.unwrap());
        let order = self.order();
        let old = order.held.iter().map(|held| Old::take(*held).unwrap()).collect();
        let downloads = Downloads::new(&order, 0);
        let mut maker = Maker { places, downloads, allowance: Allowance::default(), old };
        let wanted = Wanted { name: "slot".into(), kind: Kind::Slot, image: self.image.clone() };
        let whole = self.image.full().unwrap();
        let failure = maker.smallest(&wanted, whole, &mut target).unwrap_err();
        assert!(matches!(failure, Failure::Form(_)), "{failure:?}");
        format!("{:#}", anyhow::Error::from(failure))
    }
}

#[test]
fn the_smallest_way_is_taken() {
    let scene = Scene::small(false, false);
    assert_eq!(scene.fetched(), scene.full());
    let chunks = Scene::small(true, false).fetched();
    assert!((5_000..scene.full() / 10).contains(&chunks), "{chunks}");
    let patch = Scene::small(true, true).fetched();
    assert!((5_000..chunks).contains(&patch), "{patch} of {chunks}");
}

#[test]
fn never_more_than_full_and_64_kib() {
    let scene = Scene::new(&noise(7, 500_000), noise(8, 900_000), true, true);
    let bytes = scene.fetched();
    assert!((scene.full()..scene.full() + (64 << 10)).contains(&bytes), "{bytes} of {}", scene.full());
}

#[test]
fn another_old_image_than_a_patch_is_made_for_is_no_source_of_it() {
    let mut scene = Scene::small(false, true);
    let Form::Patch { from, .. } = &mut scene.image.forms[1] else { unreachable!() };
    *from = sha256(b"another");
    assert_eq!(scene.fetched(), scene.full());
}

#[test]
fn what_an_earlier_attempt_has_brought_is_not_fetched_again() {
    let scene = Scene::small(true, false);
    let places = Places::new(&scene.work());
    // Cut off within what is new, and behind.
    fs::write(places.part(&scene.image.sha256), &scene.bytes[..1_000_000]).unwrap();
    let rest = scene.fetched();
    let index = scene.image.chunks().unwrap().0.bytes;
    let whole = Scene::small(true, false).fetched();
    assert!(rest < whole - 5_000 && rest > index, "{rest} of {whole}, index {index}");

    let scene = Scene::small(false, false);
    let object = scene.image.full().unwrap();
    let bytes = fs::read(scene.object(object)).unwrap();
    fs::write(scene.work().join("objects").join(object.sha256.as_str()), &bytes[..500_000]).unwrap();
    assert_eq!(scene.fetched(), scene.full() - 500_000);
}

#[test]
fn an_image_that_is_here_costs_nothing() {
    let scene = Scene::small(true, true);
    scene.fetched();
    assert_eq!(scene.fetched(), 0);
}

#[track_caller]
fn refused(scene: &Scene, rule: &str) {
    let refusal = scene.refusal();
    assert!(refusal.contains(rule), "{refusal}");
    // The full form is left, and whole.
    fs::remove_dir_all(scene.work().join("objects")).unwrap();
    fs::create_dir(scene.work().join("objects")).unwrap();
    assert!(scene.fetched() >= scene.full());
}

#[test]
fn a_changed_index_is_refused() {
    for at in [0, 8, 9, 20, 60, 1000] {
        let mut scene = Scene::small(true, false);
        scene.replace(1, false, |index| index[at] ^= 1);
        refused(&scene, "rule hash");
    }
    // By somebody who can sign, too.
    let mut scene = Scene::small(true, false);
    scene.replace(1, true, |index| index[0] ^= 1);
    refused(&scene, "rule index: malformed: not an index");
    let mut scene = Scene::small(true, false);
    scene.replace(1, true, |index| index[20] ^= 1);
    refused(&scene, "rule index: it is of another image");
    let mut scene = Scene::small(true, false);
    let Form::Chunks { pack, .. } = &mut scene.image.forms[1] else { unreachable!() };
    pack.bytes += 1;
    refused(&scene, "rule index: it is of another pack");
}

#[test]
fn a_changed_pack_is_refused() {
    let scene = Scene::small(true, false);
    let path = scene.object(scene.image.chunks().unwrap().1);
    let mut pack = fs::read(&path).unwrap();
    pack.iter_mut().for_each(|byte| *byte ^= 1);
    fs::write(&path, pack).unwrap();
    refused(&scene, "rule hash: the chunk at ");
}

#[test]
fn a_pack_that_is_not_there_is_done_without() {
    let scene = Scene::small(true, false);
    fs::remove_file(scene.object(scene.image.chunks().unwrap().1)).unwrap();
    refused(&scene, "No such file");
}

#[test]
fn what_is_shorter_than_it_should_be_is_done_without() {
    let cut = |path: PathBuf| {
        let bytes = fs::read(&path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    };
    let scene = Scene::small(true, false);
    cut(scene.object(scene.image.chunks().unwrap().1));
    refused(&scene, "");
    let scene = Scene::small(true, false);
    cut(scene.object(scene.image.chunks().unwrap().0));
    refused(&scene, "ended early");
    let scene = Scene::small(false, true);
    let patch = scene.object(scene.image.patches().next().unwrap().2);
    cut(patch);
    refused(&scene, "ended early");
}

#[test]
fn a_changed_patch_is_refused() {
    for at in [0, 12, 100, 1000] {
        let mut scene = Scene::small(false, true);
        scene.replace(1, false, |patch| patch[at] ^= 1);
        refused(&scene, "rule hash");
    }
    let mut scene = Scene::small(false, true);
    scene.replace(1, true, |patch| patch[0] ^= 1);
    refused(&scene, "rule patch: malformed: not a patch");
    let mut scene = Scene::small(false, true);
    scene.replace(1, true, |patch| patch[21] ^= 1);
    refused(&scene, "rule patch: it is of other images");
    let mut scene = Scene::small(false, true);
    scene.replace(1, true, |patch| *patch.last_mut().unwrap() ^= 1);
    refused(&scene, "rule patch: the segment at ");
}

#[test]
fn a_changed_full_form_is_refused_and_nothing_is_left() {
    for at in [0, 100, 500_000] {
        let mut scene = Scene::small(false, false);
        scene.replace(0, false, |stream| stream[at] ^= 1);
        let error = format!("{:#}", scene.fetch().unwrap_err());
        assert!(error.contains("slot: rule hash"), "{error}");
        assert!(!Places::new(&scene.work()).image(&scene.image.sha256).exists());
    }
    let mut scene = Scene::small(false, false);
    scene.replace(0, true, |stream| *stream = full::make(&noise(4, 1000)).unwrap());
    let error = format!("{:#}", scene.fetch().unwrap_err());
    assert!(error.contains("rule length: "), "{error}");
    // Of the right length, signed, and another image than the manifest's.
    let mut scene = Scene::small(false, false);
    let length = scene.bytes.len();
    scene.replace(0, true, |stream| *stream = full::make(&noise(4, length)).unwrap());
    let error = format!("{:#}", scene.fetch().unwrap_err());
    assert!(error.contains("rule hash: the image is not what"), "{error}");
}

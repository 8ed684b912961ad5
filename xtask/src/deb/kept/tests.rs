//! Copies that are there, missing, damaged, made by many at once, or cannot be made.

use super::*;
use crate::deb::tests::{deb, sample};

/// A package in a cache of its own.
fn package() -> (tempfile::TempDir, Deb) {
    let directory = tempfile::tempdir().unwrap();
    let root = Utf8Path::from_path(directory.path()).unwrap();
    let path = root.join("x.deb");
    let data = zstd::bulk::compress(&sample(), 19).unwrap();
    fs::write(&path, deb(&[("debian-binary", b"2.0\n"), ("data.tar.zst", &data)])).unwrap();
    let deb = Deb::new(path, root.join("unpacked/ab/x.zst"));
    (directory, deb)
}

fn entries(deb: &Deb) -> Vec<Entry> {
    let mut all = Vec::new();
    deb.entries(|entry| {
        all.push(entry);
        Ok(())
    })
    .unwrap();
    all
}

/// The same by every way there is.
#[track_caller]
fn check_content(deb: &Deb) {
    let mut expected = Vec::new();
    crate::deb::entries(deb.path(), |entry| {
        expected.push(entry);
        Ok(())
    })
    .unwrap();
    assert_eq!(entries(deb), expected);
    assert_eq!(deb.data().unwrap(), sample());
}

#[test]
fn a_copy_is_read_instead_of_the_package() {
    let (_directory, deb) = package();
    assert!(deb.kept().is_none());
    check_content(&deb);
    let (first, wanted) = (fs::read(&deb.copy).unwrap(), entries(&deb));
    fs::write(&deb.path, "no package any more").unwrap();
    assert_eq!(entries(&deb), wanted);
    assert_eq!(deb.data().unwrap(), sample());
    // An ordinary file of zstd's, with the sum before it.
    let mut plain = Vec::new();
    std::io::Read::read_to_end(&mut zstd::Decoder::new(first.as_slice()).unwrap(), &mut plain).unwrap();
    assert_eq!(plain, sample());
}

#[test]
fn a_missing_copy_is_made_anew() {
    let (_directory, deb) = package();
    check_content(&deb);
    let first = fs::read(&deb.copy).unwrap();
    deb.forget().unwrap();
    assert!(!deb.copy.exists());
    deb.forget().unwrap();
    check_content(&deb);
    assert_eq!(fs::read(&deb.copy).unwrap(), first);
}

#[test]
fn a_damaged_copy_is_made_anew() {
    let (_directory, deb) = package();
    check_content(&deb);
    let right = fs::read(&deb.copy).unwrap();
    for at in 0..right.len() {
        let mut wrong = right.clone();
        wrong[at] ^= 1;
        fs::write(&deb.copy, &wrong).unwrap();
        assert!(deb.kept().is_none(), "byte {at}");
    }
    for length in [0, 1, HEADER, right.len() - 1] {
        fs::write(&deb.copy, &right[..length]).unwrap();
        check_content(&deb);
        assert_eq!(fs::read(&deb.copy).unwrap(), right);
    }
}

#[test]
fn many_may_make_it_at_once() {
    let (directory, deb) = package();
    std::thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(|| check_content(&deb)))));
    assert!(deb.kept().is_some());
    let folder = directory.path().join("unpacked/ab");
    assert_eq!(fs::read_dir(folder).unwrap().count(), 1);
}

#[test]
fn what_cannot_be_kept_is_read_all_the_same() {
    let (directory, deb) = package();
    fs::write(directory.path().join("unpacked"), "in the way").unwrap();
    check_content(&deb);
    assert!(deb.kept().is_none());
}

#[test]
fn what_an_interrupted_maker_left_goes() {
    let (_directory, deb) = package();
    let folder = deb.copy.parent().unwrap();
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join(".half"), "half").unwrap();
    check_content(&deb);
    assert_eq!(folder.read_dir_utf8().unwrap().count(), 1);
}

#[test]
fn a_package_that_cannot_be_read_is_named() {
    let (_directory, deb) = package();
    fs::write(&deb.path, "no package").unwrap();
    let error = format!("{:#}", deb.entries(|_| Ok(())).unwrap_err());
    assert!(error.starts_with(&format!("package {}: ", deb.path)), "{error}");
    assert_eq!(error.matches("package /").count(), 1, "{error}");
    assert!(deb.data().is_err() && !deb.copy.exists());
}

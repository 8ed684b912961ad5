//! Files of the repository that people edit: the lock, package sets, products, boards, the base.
//!
//! The first octet chooses. A lock that is read is written as it was read.
#![no_main]

use std::sync::LazyLock;

use camino::Utf8Path;
use libfuzzer_sys::fuzz_target;
use xtask::archive::lock_file::LockFile;
use xtask::archive::sets;
use xtask::image::base;
use xtask::image::declaration::{BaseFile, BoardFile, Product};
use xtask::image::tree::Tree;

const PRODUCT: &str = include_str!("../../../images/branch.toml");

static BRANCH: LazyLock<Product> =
    LazyLock::new(|| Product::parse("branch.toml".into(), PRODUCT).expect("the repository's product"));

fn fuzz_lock(text: &str) {
    let Ok(lock) = LockFile::parse("packages.lock".into(), text) else { return };
    let written = lock.to_text().expect("what was read can be written");
    let again = LockFile::parse("packages.lock".into(), &written).expect("what was written can be read");
    assert_eq!(again, lock);
    assert_eq!(again.to_text().expect("the same"), written);
    assert!(lock.changes(&again).is_empty());
}

fn fuzz_product(text: &str) {
    let Ok(product) = Product::parse("branch.toml".into(), text) else { return };
    assert_eq!(product.date.len(), 10);
    assert_eq!(product.epoch_s().expect("it was checked") % 86_400, 0);
}

fn fuzz_board(text: &str) {
    let Ok(table) = toml::from_str(text) else { return };
    let Ok(file) = BoardFile::from_table("box.toml".into(), table, &BRANCH) else { return };
    assert!(BRANCH.kernel.modules.iter().all(|module| file.modules().contains(module)));
    kontor_config::Board::parse("box.toml", &file.text).expect("what the box reads is a board");
}

fn fuzz_base(text: &str) {
    let Ok(base) = BaseFile::parse(text) else { return };
    // Nothing of this machine is to be read.
    if base.file.iter().any(|file| file.content.is_none()) {
        return;
    }
    let mut tree = Tree::default();
    if base::declare(&mut tree, &base, Utf8Path::new("/nonexistent")).is_ok() {
        assert!(
            tree.iter().all(|(path, _)| !path.starts_with('/') && !path.split('/').any(|part| part == ".."))
        );
        let _ = tree.complete();
    }
}

fuzz_target!(|input: (u8, &str)| {
    let (kind, text) = input;
    match kind % 8 {
        0 | 1 => fuzz_lock(text),
        2 => {
            if let Ok(Some(declaration)) = sets::parse(text) {
                assert_eq!(declaration.fingerprint().len(), 16);
            }
        }
        3 => fuzz_product(text),
        4 | 5 => fuzz_board(text),
        _ => fuzz_base(text),
    }
});

//! The repository's own files are valid, and mistakes are named.

use super::*;
use crate::workspace::Workspace;

fn product(date: &str) -> Product {
    let mut product = Product::load(&Workspace::locate().product("branch")).unwrap();
    date.clone_into(&mut product.date);
    product
}

#[test]
fn dates_become_seconds() {
    for (date, days) in [("1970-01-01", 0), ("2000-02-29", 11_016), ("2026-11-21", 20_778)] {
        assert_eq!(product(date).epoch_s().unwrap(), days * 86_400, "{date}");
    }
    for date in ["2026-13-01", "2026-11", "yesterday", "1969-01-01", "2026-02-31", "2026-x-11-21", "2026-1-1"]
    {
        assert!(product(date).epoch_s().is_err(), "{date}");
    }
}

#[test]
fn the_repositorys_own_boards_are_valid_and_merged() {
    let workspace = Workspace::locate();
    let product = product("2026-11-21");
    for name in &product.board {
        let file = BoardFile::load(&workspace.board(name), &product).unwrap();
        assert!(file.board.kernel_modules.iter().any(|module| module == "igb"), "{name}");
        assert!(file.board.kernel_modules.iter().any(|module| module == "erofs"), "{name}");
        assert!(!file.text.contains("inherit"));
    }
    let qemu = BoardFile::load(&workspace.board("qemu"), &product).unwrap();
    assert_eq!(qemu.board.ports.len(), 4, "the child's ports replace the parent's");
}

#[test]
fn signatures_of_modules_are_a_products_choice() {
    let fast = std::fs::read_to_string(Workspace::locate().product("branch")).unwrap();
    let signatures = |text: &str| toml::from_str::<Product>(text).unwrap().kernel.module_signatures;
    assert!(!signatures(&fast));
    assert!(!signatures(&fast.replace("module-signatures = false\n", "")), "fast unless it is asked for");
    assert!(signatures(&fast.replace("module-signatures = false", "module-signatures = true")));
}

#[test]
fn words_are_joined_once_and_the_rest_replaced() {
    let parent: toml::Table = toml::from_str("a = 1\n[k]\nm = ['x', 'y']\n[[p]]\nn = 1").unwrap();
    let child: toml::Table = toml::from_str("a = 2\n[k]\nm = ['y', 'z']\n[[p]]\nn = 2").unwrap();
    let expected: toml::Table = toml::from_str("a = 2\n[k]\nm = ['x', 'y', 'z']\n[[p]]\nn = 2").unwrap();
    assert_eq!(merge(parent, child), expected);
}

#[track_caller]
fn base_error(text: &str, expected: &str) {
    let text = format!("packages = {{}}\nunpack.drop = []\n{text}");
    let error = match toml::from_str::<BaseFile>(&text) {
        Ok(base) => base.validate().unwrap_err().to_string(),
        Err(error) => error.to_string(),
    };
    assert!(error.contains(expected), "{error}");
}

#[test]
fn mistakes_in_the_base_are_named() {
    base_error("[[user]]\nname='a'\nid=1\n[[user]]\nname='a'\nid=2", "\"a\" is declared twice");
    base_error("[[user]]\nname='a'\nid=1\n[[group]]\nname='b'\nid=1", "have the same number 1");
    base_error("[[file]]\npath='/x'", "/x: a file needs either content or source");
    base_error("[[fil]]\npath='/x'", "unknown field `fil`");
}

#[test]
fn modes_are_octal() {
    assert_eq!(parse_mode("4755").unwrap(), 0o4755);
    for text in ["0888", "10000", ""] {
        assert!(parse_mode(text).is_err(), "{text}");
    }
}

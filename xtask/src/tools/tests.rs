//! What a tree looks like after packages were placed into it.

use super::*;

fn entry(path: &str, kind: Kind, mode: u32) -> Entry {
    Entry { path: path.to_owned(), kind, mode, uid: 0, gid: 0, mtime: 1_000_000_000, xattrs: Vec::new() }
}

fn file(path: &str, mode: u32, content: &str) -> Entry {
    entry(path, Kind::File { bytes: content.as_bytes().to_vec() }, mode)
}

fn link(path: &str, target: &str) -> Entry {
    entry(path, Kind::Symlink { target: target.to_owned() }, 0o777)
}

fn fill(entries: Vec<Entry>) -> (tempfile::TempDir, Result<()>) {
    let scratch = tempfile::tempdir().unwrap();
    let root = Utf8Path::from_path(scratch.path()).unwrap();
    // As `unpack` does before the packages.
    for folder in MERGED {
        fs::create_dir_all(root.join("usr").join(folder)).unwrap();
        symlink(format!("usr/{folder}"), root.join(folder)).unwrap();
    }
    let tree = Tree { root, folders: Mutex::default() };
    let result = entries.into_iter().try_for_each(|entry| tree.place(entry));
    (scratch, result)
}

#[test]
fn a_package_becomes_plain_files_of_the_user() {
    let (scratch, result) = fill(vec![
        entry("", Kind::Dir, 0o755),
        entry("lib", Kind::Dir, 0o755),
        link("bin", "usr/bin"),
        file("bin/su", 0o4111, "su"),
        entry("usr/bin/su2", Kind::Hardlink { target: "bin/su".to_owned() }, 0o4755),
        link("usr/bin/alternative", "/etc/alternatives/x"),
        file("etc/alternatives/x", 0o600, "x"),
        entry("dev/console", Kind::CharDevice { major: 5, minor: 1 }, 0o600),
        entry("run/pipe", Kind::Fifo, 0o600),
    ]);
    result.unwrap();
    let root = scratch.path();
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    assert_eq!(
        (read("usr/bin/su"), read("bin/su2"), read("usr/bin/alternative")),
        ("su".into(), "su".into(), "x".into())
    );
    let metadata = fs::metadata(root.join("usr/bin/su")).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o755);
    assert_eq!(metadata.modified().unwrap(), SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000));
    assert!(!root.join("dev/console").exists() && !root.join("run/pipe").exists());
}

#[test]
fn a_file_that_two_packages_ship_is_replaced() {
    let (scratch, result) = fill(vec![
        file("usr/share/x", 0o644, "long text"),
        file("usr/share/x", 0o644, "b"),
        link("usr/share/x", "y"),
    ]);
    result.unwrap();
    assert_eq!(fs::read_link(scratch.path().join("usr/share/x")).unwrap().to_str(), Some("y"));
}

#[test]
fn nothing_is_written_outside_the_tree() {
    let outside = |entries| format!("{:#}", fill(entries).1.unwrap_err());
    assert!(outside(vec![link("usr/out", "../../../tmp")]).contains("leads out of the tree"));
    // A link through another link: its text looks harmless, where it leads does not.
    let entries =
        vec![link("a", "usr"), link("usr/up", "../a/.."), link("b", "usr/up/.."), file("b/tmp/x", 0o644, "")];
    let (scratch, result) = fill(entries);
    assert!(result.is_err(), "a file was written to {:?}", scratch.path().parent());
}

#[test]
fn links_stay_inside_the_tree() {
    assert_eq!(relative("usr/bin/awk", "/etc/alternatives/awk").unwrap(), "../../etc/alternatives/awk");
    assert_eq!(relative("usr/lib/x", "/lib/y").unwrap(), "../../usr/lib/y");
    assert_eq!(relative("usr/bin/sh", "dash").unwrap(), "dash");
    assert_eq!(relative("usr/bin/sh", "../../etc/x").unwrap(), "../../etc/x");
    assert!(relative("usr/bin/sh", "../../../etc/x").is_err());
    assert!(relative("a", "b/../../c").is_err());
    assert!(relative("a", "/../../c").is_err());
}

#[test]
fn old_top_level_folders_are_merged() {
    assert_eq!(merged("lib/x86_64-linux-gnu/libc.so.6"), "usr/lib/x86_64-linux-gnu/libc.so.6");
    assert_eq!(merged("libexec/x"), "libexec/x");
    assert_eq!(merged("bin"), "bin");
}

#[test]
fn a_path_the_loader_cannot_read_is_refused_at_once() {
    let scratch = tempfile::tempdir().unwrap();
    let scratch = Utf8Path::from_path(scratch.path()).unwrap();
    let lock = LockFile::load(crate::workspace::Workspace::locate().lock_file()).unwrap();
    let offline = crate::archive::cache::FetchOptions { offline: true, ..Default::default() };
    let cache = Cache::open_at(&scratch.join("cache"), &offline).unwrap();
    let error = Tools::prepare(&lock, &cache, scratch.join("a:b")).unwrap_err().to_string();
    assert!(error.contains("a:b/tools: a path with ':'") && error.ends_with("move the checkout"), "{error}");
}

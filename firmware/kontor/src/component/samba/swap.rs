//! One directory's content put in the place of another's, so that a power cut at any moment leaves either, and the next start
//! goes on where it was.
//!
//! The new content is made below [`NEW`]. From the moment that it is called [`LEAVING`] there is no way back: what was there
//! moves to [`OLD`]; then it is called [`ARRIVING`], and moves into its place. Names with a dot in front stay where they are; of the
//! new content they are left out.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use nix::unistd::syncfs;

/// Where the new content is made.
pub(super) const NEW: &str = ".new";
/// The new content, while the old one leaves.
const LEAVING: &str = ".new-while-old-leaves";
/// The new content, while it moves into its place.
const ARRIVING: &str = ".new-while-it-arrives";
/// What was there before, until another swap. A backup of Samba's passes over directories that end like this one, and need not
/// have what was given up.
pub(super) const OLD: &str = ".replaced.sock";

/// Decides for the new content, durably; what an earlier swap has kept goes.
///
/// # Errors
/// The kernel's; whether it is decided says [`is_under_way`].
pub(super) fn begin(directory: &Path) -> io::Result<()> {
    syncfs(File::open(directory)?)?;
    remove(&directory.join(OLD))?;
    fs::rename(directory.join(NEW), directory.join(LEAVING))?;
    sync(directory)
}

/// Whether one has begun and is not finished.
pub(super) fn is_under_way(directory: &Path) -> bool {
    [LEAVING, ARRIVING].iter().any(|name| directory.join(name).exists())
}

/// Carries it to its end, wherever it is; with none under way nothing is done.
///
/// # Errors
/// The kernel's; it is still under way then.
pub(super) fn finish(directory: &Path) -> io::Result<()> {
    let (leaving, arriving) = (directory.join(LEAVING), directory.join(ARRIVING));
    if leaving.exists() {
        let old = directory.join(OLD);
        fs::create_dir_all(&old)?;
        move_all(directory, &old)?;
        fs::rename(&leaving, &arriving)?;
        sync(directory)?;
    }
    if arriving.exists() {
        move_all(&arriving, directory)?;
        remove(&arriving)?;
        sync(directory)?;
    }
    Ok(())
}

fn move_all(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            fs::rename(entry.path(), to.join(entry.file_name()))?;
        }
    }
    sync(to)
}

/// Removes a directory with everything in it, if it is there.
///
/// # Errors
/// The kernel's.
pub(super) fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Files and what is in them.
    fn content(directory: &Path) -> BTreeMap<String, String> {
        let files = fs::read_dir(directory).unwrap().map(Result::unwrap);
        let files = files.filter(|entry| entry.file_type().unwrap().is_file());
        let read = |entry: fs::DirEntry| {
            (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()))
        };
        files.map(read).map(|(name, text)| (name, text.unwrap())).collect()
    }

    fn check(files: &[(&str, &str)]) {
        let scratch = tempfile::tempdir().unwrap();
        files.iter().for_each(|(path, text)| write(&scratch.path().join(path), text));
        assert!(is_under_way(scratch.path()));
        finish(scratch.path()).unwrap();
        assert!(!is_under_way(scratch.path()));
        let pairs =
            |list: &[(&str, &str)]| list.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
        let new: BTreeMap<String, String> = pairs(&[("same", "new"), ("only-new", "new"), (".mark", "kept")]);
        assert_eq!(content(scratch.path()), new, "{files:?}");
        let old: BTreeMap<String, String> = pairs(&[("same", "old"), ("only-old", "old")]);
        assert_eq!(content(&scratch.path().join(OLD)), old, "{files:?}");
        finish(scratch.path()).unwrap();
        assert_eq!(content(scratch.path()), new, "{files:?}");
    }

    #[test]
    fn a_cut_at_any_moment_ends_the_same_way() {
        let mark = (".mark", "kept");
        let leaving = [(".new-while-old-leaves/same", "new"), (".new-while-old-leaves/only-new", "new")];
        let here = [("same", "old"), ("only-old", "old")];
        let gone = [(".replaced.sock/same", "old"), (".replaced.sock/only-old", "old")];
        check(&[&[mark], &leaving[..], &here[..]].concat());
        check(&[&[mark], &leaving[..], &here[..1], &gone[1..]].concat());
        check(&[&[mark], &leaving[..], &gone[..]].concat());
        let arriving = [
            (".new-while-it-arrives/same", "new"),
            (".new-while-it-arrives/only-new", "new"),
            (".new-while-it-arrives/.hidden", "new"),
        ];
        check(&[&[mark], &arriving[..], &gone[..]].concat());
        check(&[&[mark, ("same", "new")], &arriving[1..], &gone[..]].concat());
    }

    #[test]
    fn what_an_earlier_swap_has_left_goes_when_the_next_is_decided() {
        let scratch = tempfile::tempdir().unwrap();
        let files = [(".replaced.sock/ancient", "x"), (".new/same", "new"), ("same", "old")];
        files.iter().for_each(|(path, text)| write(&scratch.path().join(path), text));
        begin(scratch.path()).unwrap();
        finish(scratch.path()).unwrap();
        assert_eq!(content(scratch.path()), BTreeMap::from([("same".to_owned(), "new".to_owned())]));
        let old = content(&scratch.path().join(OLD));
        assert_eq!(old, BTreeMap::from([("same".to_owned(), "old".to_owned())]));
    }
}

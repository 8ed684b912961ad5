//! The form of a component's state: brought up to what this release's programs expect, and never taken for what it is not.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use kontor_component::Manifest;
use kontor_sys::file::write_durable;

/// The file beside a component's state directories with the number of their form; without it, that of the first release.
pub(super) const NOTE: &str = "state-version";

/// Runs the migrations that are still to be made and notes each in `note` once it is. State that is new has the newest form.
///
/// # Errors
/// When a newer release has written the state, or a migration fails: nothing else of the component may run.
pub(super) fn migrate(manifest: &Manifest, note: &Path, run: impl Fn(&[String]) -> Result<()>) -> Result<()> {
    let wanted = manifest.state_version;
    let noted = read(note)?;
    let is_new = || manifest.state.iter().all(|directory| is_empty(Path::new(&directory.path)));
    let found = match noted {
        Some(version) => version,
        None if is_new() => wanted,
        None => 1,
    };
    ensure!(
        found <= wanted,
        "its data was written by a newer release (form {found}; this one knows {wanted}): nothing was touched. Install \
         that release again, or restore a backup from before it"
    );
    for migration in manifest.migration.iter().filter(|migration| migration.from >= found) {
        let (from, to) = (migration.from, migration.from + 1);
        println!("bringing its data from form {from} to {to}");
        run(&migration.command).with_context(|| format!("its data stays of form {from}"))?;
        keep(note, to)?;
    }
    if noted.is_none() && wanted == found { keep(note, wanted) } else { Ok(()) }
}

fn read(note: &Path) -> Result<Option<u32>> {
    let text = match fs::read_to_string(note) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| NOTE.to_owned())?,
    };
    let version = text.trim().parse().with_context(|| format!("{NOTE} holds {text:?}, not a number"))?;
    Ok(Some(version))
}

fn keep(note: &Path, version: u32) -> Result<()> {
    write_durable(note, format!("{version}\n").as_bytes()).with_context(|| NOTE.to_owned())
}

/// One that cannot be read is not empty.
fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use anyhow::bail;

    use super::*;

    /// State with a file in it or without, and what was noted of it.
    struct Trial {
        scratch: tempfile::TempDir,
        ran: RefCell<Vec<String>>,
    }

    impl Trial {
        fn new(is_used: bool, noted: Option<&str>) -> Self {
            let scratch = tempfile::tempdir().unwrap();
            fs::create_dir(scratch.path().join("lib")).unwrap();
            if is_used {
                fs::write(scratch.path().join("lib/file"), "").unwrap();
            }
            noted.map_or(Ok(()), |noted| fs::write(scratch.path().join(NOTE), noted)).unwrap();
            Self { scratch, ran: RefCell::default() }
        }

        fn migrate(&self, wanted: u32, fails: &str) -> Result<()> {
            let migration =
                |from| format!("[[migration]]\nfrom = {from}\ncommand = ['/usr/bin/from-{from}']\n");
            let text = format!(
                "schema = 1\nname = 'some'\nmemory-mib = 8\nprocesses = 8\nstate-version = {wanted}\n{}\
                 [[state]]\nname = 'lib'\npath = '{}/lib'\n[[service]]\nname = 'one'\ncommand = ['/bin/true']\n",
                (1..wanted).map(migration).collect::<String>(),
                self.scratch.path().display()
            );
            migrate(&Manifest::parse(&text).unwrap(), &self.scratch.path().join(NOTE), |command| {
                self.ran.borrow_mut().push(command[0].clone());
                if command[0] == fails { bail!("it failed") } else { Ok(()) }
            })
        }

        #[track_caller]
        fn check(&self, ran: &[&str], noted: &str) {
            assert_eq!(*self.ran.borrow(), ran);
            assert_eq!(fs::read_to_string(self.scratch.path().join(NOTE)).unwrap().trim(), noted);
        }
    }

    #[test]
    fn new_state_has_the_newest_form_and_old_state_the_first() {
        let new = Trial::new(false, None);
        new.migrate(3, "").unwrap();
        new.check(&[], "3");
        let old = Trial::new(true, None);
        old.migrate(1, "").unwrap();
        old.check(&[], "1");
        old.migrate(3, "").unwrap();
        old.check(&["/usr/bin/from-1", "/usr/bin/from-2"], "3");
        old.migrate(3, "").unwrap();
        old.check(&["/usr/bin/from-1", "/usr/bin/from-2"], "3");
    }

    #[test]
    fn one_that_fails_is_made_again_and_those_before_it_are_not() {
        let trial = Trial::new(true, None);
        let error = trial.migrate(3, "/usr/bin/from-2").unwrap_err();
        assert_eq!(format!("{error:#}"), "its data stays of form 2: it failed");
        trial.check(&["/usr/bin/from-1", "/usr/bin/from-2"], "2");
        trial.migrate(3, "").unwrap();
        trial.check(&["/usr/bin/from-1", "/usr/bin/from-2", "/usr/bin/from-2"], "3");
    }

    #[test]
    fn what_a_newer_release_has_written_and_what_is_unreadable_is_left_alone() {
        let newer = Trial::new(true, Some("2\n"));
        assert!(newer.migrate(1, "").unwrap_err().to_string().contains("written by a newer release (form 2"));
        newer.check(&[], "2");
        let garbage = Trial::new(true, Some("two"));
        assert!(garbage.migrate(2, "").unwrap_err().to_string().contains("not a number"));
        garbage.check(&[], "two");
    }
}

//! A password to join a domain with that came with the seed: given as soon as the component waits for one, and wiped when
//! headquarters has refused it, or when the component needs none.
//!
//! Giving and wiping are processes of their own: headquarters may not answer, and a disk may hang.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, bail};
use kontor_sys::file::remove_durable;

use super::join::{FROM_FILE, REFUSED};
use super::{Places, samba};

/// The subcommand that wipes the file.
pub(super) const WIPE: &str = "wipe-join";

/// The file, and whoever is at work with it.
#[derive(Debug)]
pub(super) struct Seeded {
    file: Option<PathBuf>,
    run: PathBuf,
    giving: Option<Child>,
    wiping: Option<Child>,
    /// Whether the component waits for a password.
    is_wanted: bool,
}

impl Seeded {
    pub(super) fn new(places: &Places) -> Self {
        let (file, run) = (places.join.clone(), places.run.clone());
        Self { file, run, giving: None, wiping: None, is_wanted: false }
    }

    /// What the component says of itself.
    pub(super) fn hear(&mut self, status: &str) {
        self.is_wanted = status.starts_with(samba::WAITS);
        self.turn();
    }

    /// It serves, so it needs no password, whoever gave it one.
    pub(super) fn hear_ready(&mut self) {
        self.is_wanted = false;
        self.wipe();
    }

    /// A child may have ended.
    pub(super) fn turn(&mut self) {
        self.wiping.take_if(|child| !matches!(child.try_wait(), Ok(None)));
        if let Some(status) = self.giving.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
            self.giving = None;
            if is_refused(status) {
                println!("the seed's password was refused");
                self.wipe();
            }
        }
        if self.is_wanted && self.giving.is_none() && self.wiping.is_none() {
            // One that ends without an answer of headquarters is not started again before the component waits again.
            self.is_wanted = false;
            self.give();
        }
    }

    fn give(&mut self) {
        let Some(file) = self.file.as_ref().filter(|file| file.exists()) else { return };
        println!("joining with the password that came with the seed");
        let mut command = Command::new("/proc/self/exe");
        command.args(["component", FROM_FILE, "--run"]).arg(&self.run).arg(file);
        self.giving = start(command);
    }

    fn wipe(&mut self) {
        let Some(file) = self.file.as_ref().filter(|file| self.wiping.is_none() && file.exists()) else {
            return;
        };
        let mut command = Command::new("/proc/self/exe");
        command.args(["component", WIPE]).arg(file);
        self.wiping = start(command);
    }
}

fn start(mut command: Command) -> Option<Child> {
    let child = command.stdin(Stdio::null()).spawn();
    child.inspect_err(|error| eprintln!("error: the seed's password: {error}")).ok()
}

/// Without an answer of headquarters the same password is worth another try.
fn is_refused(status: ExitStatus) -> bool {
    status.code() == Some(REFUSED)
}

/// `wipe-join FILE`
pub(super) fn run(args: &[String]) -> anyhow::Result<()> {
    let [file] = args else { bail!("usage: kontor component {WIPE} FILE") };
    wipe(Path::new(file))?;
    println!("the seed's password is wiped");
    Ok(())
}

/// In place first, for a file that is removed stays where it was on the disk.
pub(crate) fn wipe(file: &Path) -> anyhow::Result<()> {
    let overwrite = || -> io::Result<()> {
        let length = fs::metadata(file)?.len();
        let mut opened = File::options().write(true).open(file)?;
        io::copy(&mut io::Read::take(io::repeat(0), length), &mut opened)?;
        opened.sync_all()
    };
    overwrite().and_then(|()| remove_durable(file)).with_context(|| format!("cannot wipe {}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn only_a_refusal_of_headquarters_is_the_end_of_a_password() {
        assert!(is_refused(ExitStatus::from_raw(REFUSED << 8)));
        assert!([0, 1 << 8, 9].iter().all(|status| !is_refused(ExitStatus::from_raw(*status))));
    }

    #[test]
    fn what_is_wiped_is_gone() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("samba-join");
        fs::write(&file, "joiner\nsecret\n").unwrap();
        // Another name of the same file shows what is left on the disk.
        fs::hard_link(&file, scratch.path().join("disk")).unwrap();
        run(&[file.display().to_string()]).unwrap();
        assert!(!file.exists());
        assert_eq!(fs::read(scratch.path().join("disk")).unwrap(), [0; 14]);
    }
}

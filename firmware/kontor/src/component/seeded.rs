//! A password to join a domain with that came with the seed: given as soon as the component waits for one, and wiped when
//! it has been accepted, or refused for good.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::Context;
use kontor_sys::file::remove_durable;

use super::join::{FROM_FILE, REFUSED};
use super::{Places, samba};

/// The file, and whoever is giving it to the component that runs.
#[derive(Debug)]
pub(super) struct Seeded {
    file: Option<PathBuf>,
    run: PathBuf,
    running: Option<Child>,
}

impl Seeded {
    pub(super) fn new(places: &Places) -> Self {
        Self { file: places.join.clone(), run: places.run.clone(), running: None }
    }

    /// What the component says of itself.
    pub(super) fn hear(&mut self, status: &str) {
        let Some(file) = self.file.as_ref().filter(|file| status.starts_with(samba::WAITS) && file.exists())
        else {
            return;
        };
        if self.running.is_some() {
            return;
        }
        println!("joining with the password that came with the seed");
        let mut command = Command::new("/proc/self/exe");
        command.args(["component", FROM_FILE, "--run"]).arg(&self.run).arg(file).stdin(Stdio::null());
        match command.spawn() {
            Ok(child) => self.running = Some(child),
            Err(error) => eprintln!("error: the seed's password cannot be used: {error}"),
        }
    }

    /// A child may have ended.
    pub(super) fn turn(&mut self) {
        let Some(status) = self.running.as_mut().and_then(|child| child.try_wait().ok().flatten()) else {
            return;
        };
        self.running = None;
        if let Some((file, outcome)) = self.file.as_ref().zip(outcome(status)) {
            println!("{outcome}; it is wiped");
            if let Err(error) = wipe(file) {
                eprintln!("error: {error:#}");
            }
        }
    }
}

/// Nothing when the same password is worth another try: the component has ended before it knew.
fn outcome(status: ExitStatus) -> Option<&'static str> {
    match status.code() {
        Some(0) => Some("the seed's password was accepted"),
        Some(REFUSED) => Some("the seed's password was refused"),
        _ => None,
    }
}

/// In place first: a file that is removed stays where it was on the disk.
fn wipe(file: &Path) -> anyhow::Result<()> {
    let overwrite = || -> io::Result<()> {
        let length = fs::metadata(file)?.len();
        let mut opened = File::options().write(true).open(file)?;
        io::copy(&mut io::Read::take(io::repeat(0), length), &mut opened)?;
        opened.flush()?;
        opened.sync_all()
    };
    overwrite().and_then(|()| remove_durable(file)).with_context(|| format!("cannot wipe {}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn only_an_answer_of_headquarters_is_the_end_of_a_password() {
        assert!(outcome(ExitStatus::from_raw(0)).is_some());
        assert!(outcome(ExitStatus::from_raw(REFUSED << 8)).is_some());
        assert!(outcome(ExitStatus::from_raw(1 << 8)).is_none());
        assert!(outcome(ExitStatus::from_raw(9)).is_none());
    }

    #[test]
    fn what_is_wiped_is_gone() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("samba-join");
        fs::write(&file, "joiner\nsecret\n").unwrap();
        // Another name of the same file shows what is left on the disk.
        fs::hard_link(&file, scratch.path().join("disk")).unwrap();
        wipe(&file).unwrap();
        assert!(!file.exists());
        assert_eq!(fs::read(scratch.path().join("disk")).unwrap(), [0; 14]);
    }
}

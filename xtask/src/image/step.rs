//! Steps and their cache: a step whose inputs have not changed is not done again.
//!
//! A step's result is a directory named by the hash of its inputs, made under a temporary name and renamed
//! when it is complete. Several builds may share the cache.

use std::fmt::Display;
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};
use sha2::{Digest, Sha256};

use crate::scratch;

/// How many results of one step are kept; one for each board, site or branch one works on.
const KEPT: usize = 4;
/// How the names of unfinished results begin.
const UNFINISHED: &str = ".";

/// The hash of a step's inputs.
#[derive(Debug, Clone)]
pub struct Key(Sha256);

impl Key {
    /// Of a step; `version` changes with the step's code.
    #[must_use]
    pub fn new(step: &str, version: u32) -> Self {
        let mut key = Self(Sha256::new());
        key.add(step.as_bytes());
        key.add(&version.to_le_bytes());
        key
    }

    /// Adds one input.
    pub fn add(&mut self, input: &[u8]) {
        self.0.update((input.len() as u64).to_le_bytes());
        self.0.update(input);
    }

    /// Adds one input, by value.
    #[must_use]
    pub fn with(mut self, input: impl AsRef<[u8]>) -> Self {
        self.add(input.as_ref());
        self
    }

    /// The hash in hexadecimal.
    #[must_use]
    pub fn hex(&self) -> String {
        hex(&self.0.clone().finalize())
    }
}

/// Lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The cache, and the clock of the progress lines.
#[derive(Debug)]
pub struct Steps {
    directory: Utf8PathBuf,
    began: Instant,
}

impl Steps {
    /// Opens the cache and clears what an interrupted build left.
    ///
    /// # Errors
    /// When the directory cannot be created.
    pub fn open(directory: Utf8PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&directory).with_context(|| format!("cannot create {directory}"))?;
        scratch::sweep(&directory, UNFINISHED);
        Ok(Self { directory, began: Instant::now() })
    }

    /// The result of a step, from the cache or made now.
    ///
    /// # Errors
    /// When making it fails; nothing is then left under its name.
    pub fn result(
        &self,
        name: &str,
        key: &Key,
        make: impl FnOnce(&Utf8Path) -> Result<()>,
    ) -> Result<Utf8PathBuf> {
        let target = self.target(name, key);
        if target.exists() {
            touch(&target);
            self.say(format_args!("{name}: unchanged"));
            return Ok(target);
        }
        let began = Instant::now();
        let (temporary, _claim) = scratch::directory(&self.directory, &format!("{UNFINISHED}{name}-"))?;
        let path = Utf8Path::from_path(temporary.path()).context("the step cache's path is not UTF-8")?;
        make(path).with_context(|| format!("step {name}"))?;
        scratch::settle(path)?;
        match std::fs::rename(path, &target) {
            // A build at the same time was faster; its result is the same.
            Err(_) if target.exists() => {}
            renamed => renamed.with_context(|| format!("cannot rename to {target}"))?,
        }
        scratch::settle_name(&target)?;
        self.prune(name)?;
        self.say(format_args!("{name}: done in {:.1} s", began.elapsed().as_secs_f32()));
        Ok(target)
    }

    /// Whether the step's result is in the cache.
    #[must_use]
    pub fn has(&self, name: &str, key: &Key) -> bool {
        self.target(name, key).exists()
    }

    fn target(&self, name: &str, key: &Key) -> Utf8PathBuf {
        self.directory.join(format!("{name}-{}", &key.hex()[..16]))
    }

    /// A progress line with the time since the build began.
    pub fn say(&self, message: impl Display) {
        eprintln!("[{:6.1} s] {message}", self.began.elapsed().as_secs_f32());
    }

    fn entries(&self) -> Result<Vec<(String, SystemTime)>> {
        let read =
            std::fs::read_dir(&self.directory).with_context(|| format!("cannot read {}", self.directory))?;
        let mut entries = Vec::new();
        for entry in read {
            let entry = entry?;
            // Another build may have removed it meanwhile.
            if let Ok(metadata) = entry.metadata() {
                entries.push((entry.file_name().to_string_lossy().into_owned(), metadata.modified()?));
            }
        }
        Ok(entries)
    }

    fn prune(&self, name: &str) -> Result<()> {
        let is_result = |entry: &str| entry.rsplit_once('-').is_some_and(|(step, _)| step == name);
        let mut results = self.entries()?;
        results.retain(|(entry, _)| is_result(entry));
        results.sort_by_key(|(_, modified)| std::cmp::Reverse(*modified));
        for (entry, _) in results.iter().skip(KEPT) {
            let _ = std::fs::remove_dir_all(self.directory.join(entry));
        }
        Ok(())
    }
}

/// Marks a result as used now, for [`Steps::prune`]; failing only ages it.
fn touch(path: &Utf8Path) {
    let _ = std::fs::File::open(path).and_then(|file| file.set_modified(SystemTime::now()));
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    fn cache() -> (tempfile::TempDir, Steps) {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(directory.path().to_owned()).unwrap();
        let steps = Steps::open(path).unwrap();
        (directory, steps)
    }

    fn write(text: &'static str) -> impl FnOnce(&Utf8Path) -> Result<()> {
        move |path| Ok(std::fs::write(path.join("out"), text)?)
    }

    #[test]
    fn the_same_inputs_are_not_made_twice() {
        let (_directory, steps) = cache();
        let key = Key::new("s", 1).with("input");
        assert!(!steps.has("s", &key));
        let first = steps.result("s", &key, write("one")).unwrap();
        assert!(steps.has("s", &key) && !steps.has("other", &key));
        let second = steps.result("s", &key, |_| bail!("made again")).unwrap();
        assert_eq!(first, second);
        assert_eq!(std::fs::read_to_string(first.join("out")).unwrap(), "one");
        let other = steps.result("s", &Key::new("s", 1).with("other"), write("two")).unwrap();
        assert_ne!(second, other);
    }

    #[test]
    fn a_failed_step_leaves_nothing() {
        let (directory, steps) = cache();
        let failed = steps.result("s", &Key::new("s", 1), |path| {
            write("half")(path)?;
            bail!("disk full")
        });
        assert_eq!(format!("{:#}", failed.unwrap_err()), "step s: disk full");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn only_the_newest_results_are_kept() {
        let (directory, steps) = cache();
        for n in 0..10_u32 {
            steps.result("s", &Key::new("s", n), write("x")).unwrap();
        }
        steps.result("other-s", &Key::new("other-s", 0), write("x")).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), KEPT + 1);
    }

    #[test]
    fn inputs_do_not_run_together() {
        let key = |parts: &[&str]| parts.iter().fold(Key::new("s", 1), |key, part| key.with(part)).hex();
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
    }
}

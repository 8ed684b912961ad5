//! Loads the packet filter and the kernel's network settings.
//!
//! **Invariant:** nothing is forwarded and no external link is up before the filter is loaded; a filter that
//! cannot be replaced stays in force together with the site it was made for.
//!
//! A netd that comes back after a crash need not load what its predecessor loaded, which takes most of a second on
//! a small machine: a file says which rules these were and in which generation they left the kernel's filter. When
//! anybody changed anything since, an operator by hand included, the generation is another one.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::generation;

/// nft loads our table in some ten milliseconds; under an emulated CPU at boot it was seen to take 2 s.
const NFT_TIMEOUT: Duration = Duration::from_secs(15);
/// How much of nft's complaint is worth repeating.
const COMPLAINT_MAX: usize = 400;

/// The packet filter in the kernel, as far as we know.
pub(crate) struct Firewall {
    nft: PathBuf,
    /// What is left for the next netd: the generation, and in the lines after it the rules.
    note: PathBuf,
    generation: fn() -> io::Result<u32>,
    loaded: Option<String>,
}

impl Firewall {
    /// `note` must not outlive the kernel's filter.
    pub(crate) fn new(nft: PathBuf, note: PathBuf) -> Self {
        Self { nft, note, generation: generation::current, loaded: None }
    }

    /// Whether any filter of ours is in force.
    pub(crate) fn is_loaded(&self) -> bool {
        self.loaded.is_some()
    }

    /// Loads `rules` unless exactly these are in force. nft applies a file as one transaction, so on an error
    /// the old rules stay, and connection tracking is not touched either way.
    pub(crate) async fn load(&mut self, rules: &str) -> Result<(), String> {
        if self.loaded.as_deref() == Some(rules) {
            return Ok(());
        }
        if !self.is_loaded() && self.is_noted(rules) {
            eprintln!("the firewall in force is the right one");
            self.loaded = Some(rules.to_owned());
            return Ok(());
        }
        let before = (self.generation)().ok();
        let run = tokio::time::timeout(NFT_TIMEOUT, run_nft(&self.nft, rules));
        run.await.map_err(|_| format!("nft did not finish within {} s", NFT_TIMEOUT.as_secs()))??;
        self.loaded = Some(rules.to_owned());
        self.write_note(before, rules);
        Ok(())
    }

    /// Whether a netd before us loaded exactly these rules and nobody changed anything since.
    fn is_noted(&self, rules: &str) -> bool {
        let Ok(generation) = (self.generation)() else { return false };
        let Ok(note) = std::fs::read_to_string(&self.note) else { return false };
        note.strip_prefix(&format!("{generation}\n")) == Some(rules)
    }

    /// One step further the change was ours alone. A note that cannot be written costs the next netd some time.
    fn write_note(&self, before: Option<u32>, rules: &str) {
        let after = (self.generation)().ok();
        if let Some(after) =
            after.filter(|after| before.is_some_and(|before| before.wrapping_add(1) == *after))
        {
            let note = format!("{after}\n{rules}");
            if let Err(error) = kontor_sys::file::write_atomic(&self.note, note.as_bytes()) {
                eprintln!("cannot write {}: {error}", self.note.display());
            }
        }
    }
}

async fn run_nft(nft: &Path, rules: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", nft.display());
    let mut child = Command::new(nft)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A broken pipe here means nft has ended; its own words below say why.
        let _ = stdin.write_all(rules.as_bytes()).await;
    }
    let output = child.wait_with_output().await.map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let complaint: String = String::from_utf8_lossy(&output.stderr).chars().take(COMPLAINT_MAX).collect();
    Err(format!("nft refused the rules ({}): {}", output.status, complaint.trim().replace('\n', " | ")))
}

/// Writes one file below /proc/sys unless it has that value. A file that does not exist belongs to an
/// interface, or a protocol, that is not there: nothing to protect, no error.
pub(crate) fn set_sysctl(path: &Path, value: &str) -> Result<(), String> {
    match std::fs::read_to_string(path) {
        Ok(now) if now.trim() == value => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        _ => {}
    }
    std::fs::write(path, value).map_err(|error| format!("{} = {value}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn fake_nft(dir: &Path, script: &str) -> PathBuf {
        let path = dir.join("nft");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn loads_changed_rules_only_and_keeps_the_old_on_error() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let script = format!(
            "cat >> {0}; echo >> {0}; ! grep -q bad {0} || {{ echo no >&2; exit 1; }}",
            log.display()
        );
        let mut firewall = Firewall::new(fake_nft(dir.path(), &script), dir.path().join("note"));
        runtime().block_on(async {
            assert!(!firewall.is_loaded());
            firewall.load("rules one").await.unwrap();
            firewall.load("rules one").await.unwrap();
            let error = firewall.load("bad rules").await.unwrap_err();
            assert!(error.contains("no") && firewall.is_loaded(), "{error}");
            assert_eq!(firewall.loaded.as_deref(), Some("rules one"));
        });
        assert_eq!(std::fs::read_to_string(log).unwrap(), "rules one\nbad rules\n");
    }

    #[test]
    fn after_a_restart_only_a_filter_that_somebody_changed_is_loaded_again() {
        static GENERATION: AtomicU32 = AtomicU32::new(7);
        let generation = || Ok(GENERATION.load(Ordering::SeqCst));
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let nft = fake_nft(dir.path(), &format!("cat >> {0}; echo >> {0}", log.display()));
        // nft itself cannot move the number of this test.
        let restart = |rules: &str, before: u32, after: u32| {
            let note = dir.path().join("note");
            let mut firewall = Firewall { generation, ..Firewall::new(nft.clone(), note) };
            runtime().block_on(async {
                if firewall.is_noted(rules) {
                    firewall.load(rules).await.unwrap();
                    return;
                }
                firewall.load(rules).await.unwrap();
                GENERATION.store(after, Ordering::SeqCst);
                firewall.write_note(Some(before), rules);
            });
            std::fs::read_to_string(&log).unwrap().lines().count()
        };
        assert_eq!(restart("one", 7, 8), 1);
        assert_eq!(restart("one", 8, 8), 1, "the same rules are in force");
        assert_eq!(restart("two", 8, 9), 2, "other rules");
        GENERATION.store(10, Ordering::SeqCst);
        assert_eq!(restart("two", 10, 12), 3, "somebody changed the filter");
        assert_eq!(restart("two", 12, 13), 4, "somebody changed it while nft ran");
        assert_eq!(restart("two", 13, 13), 4);
    }

    #[test]
    fn a_missing_nft_is_an_error_in_words() {
        let mut firewall = Firewall::new("/nonexistent/nft".into(), "/nonexistent/note".into());
        let error = runtime().block_on(firewall.load("x")).unwrap_err();
        assert!(error.starts_with("/nonexistent/nft: "), "{error}");
    }
}

//! Loads the packet filter and the kernel's network settings.
//!
//! **Invariant:** nothing is forwarded and no external link is up before the filter is loaded; a filter that
//! cannot be replaced stays in force together with the site it was made for.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// nft loads our table in some ten milliseconds; under an emulated CPU at boot it was seen to take 2 s.
const NFT_TIMEOUT: Duration = Duration::from_secs(15);
/// How much of nft's complaint is worth repeating.
const COMPLAINT_MAX: usize = 400;

/// The packet filter in the kernel, as far as we know.
pub(crate) struct Firewall {
    nft: PathBuf,
    loaded: Option<String>,
}

impl Firewall {
    pub(crate) fn new(nft: PathBuf) -> Self {
        Self { nft, loaded: None }
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
        let run = tokio::time::timeout(NFT_TIMEOUT, run_nft(&self.nft, rules));
        run.await.map_err(|_| format!("nft did not finish within {} s", NFT_TIMEOUT.as_secs()))??;
        self.loaded = Some(rules.to_owned());
        Ok(())
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
        let mut firewall = Firewall::new(fake_nft(dir.path(), &script));
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
    fn a_missing_nft_is_an_error_in_words() {
        let mut firewall = Firewall::new("/nonexistent/nft".into());
        let error = runtime().block_on(firewall.load("x")).unwrap_err();
        assert!(error.starts_with("/nonexistent/nft: "), "{error}");
    }
}

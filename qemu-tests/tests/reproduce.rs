//! The image the other tests boot, built once more from clean under other circumstances: the same bytes.
//!
//! The second build has no network, so it also proves that a full cache is enough (`image --offline --locked`).

use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use camino::Utf8PathBuf;
use libtest_mimic::{Arguments, Trial};
use xtask::archive::cache::FetchOptions;
use xtask::image::ImageOptions;
use xtask::reproduce::{self, Options};

/// What an ordinary Linux machine permits; where it does not, the test says so.
const ALWAYS: [&str; 7] =
    ["home", "cargo's home", "checkout", "time zone", "locale", "umask", "temporary folder"];

fn main() -> ExitCode {
    if let Some(status) = reproduce::inside::entered() {
        return status;
    }
    let arguments = Arguments::from_args();
    let image = std::env::var("KONTOR_IMAGE").ok().map(Utf8PathBuf::from);
    if image.is_none() {
        eprintln!(
            "SKIPPED: building the image twice: KONTOR_IMAGE names no image; `cargo xtask test` builds one"
        );
    }
    let ignored = image.is_none();
    let run = move || image.map_or(Ok(()), |image| twice(image).map_err(|error| format!("{error:#}").into()));
    let trial = Trial::test("reproduce: another user, place, clock and no network make the same image", run);
    libtest_mimic::run(&arguments, vec![trial.with_ignored_flag(ignored)]).exit_code()
}

fn twice(image: Utf8PathBuf) -> Result<()> {
    let ImageOptions { product, .. } = ImageOptions::default();
    let fetch = FetchOptions { quiet: true, ..FetchOptions::default() };
    let outcome = reproduce::run(&Options { product, against: Some(image), keep: false, keys: None, fetch })?;
    for varied in &outcome.varied {
        println!("varied: {}: {} | {}", varied.what, varied.first, varied.second);
    }
    for (what, why) in &outcome.skipped {
        println!("SKIPPED: reproduce under another {what}: {why}");
    }
    for what in ALWAYS {
        let found = outcome.varied.iter().find(|varied| varied.what == what);
        found.with_context(|| format!("the {what} was the same in both builds"))?;
    }
    ensure!(outcome.sha256.len() == 64, "no hash: {:?}", outcome.sha256);
    match outcome.difference {
        Some(difference) => bail!("the images differ: {difference}"),
        None => Ok(()),
    }
}

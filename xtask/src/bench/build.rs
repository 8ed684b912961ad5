//! `cargo xtask bench build`: how long an image takes from cached packages when nothing is built yet.
//!
//! Our crates are compiled once, beforehand: the compiler's time is reported apart and is no part of a sample.

use std::time::Instant;

use anyhow::{Context, Result};
use camino::Utf8Path;

use super::report::OURS;
use super::{Report, Subject};
use crate::command::bench::Common;
use crate::image::{self, ImageOptions, firmware};
use crate::scratch;
use crate::workspace::Workspace;

/// How the names of this benchmark's directories begin.
const SCRATCH: &str = ".bench-build-";

/// Measures.
///
/// # Errors
/// When the firmware does not compile or a subject fails.
pub fn run(common: &Common) -> Result<Report> {
    let workspace = Workspace::locate();
    let began = Instant::now();
    let program = firmware::build(&workspace)?;
    let compile_s = began.elapsed().as_secs_f64();
    let ours = Subject::new(OURS, |_| {
        let folder = workspace.target();
        scratch::sweep(&folder, SCRATCH);
        let (directory, _claim) = scratch::directory(&folder, SCRATCH)?;
        let directory =
            Utf8Path::from_path(directory.path()).context("the target folder's path is not UTF-8")?;
        let began = Instant::now();
        image::build(&ImageOptions {
            output: Some(directory.join("disk.img")),
            steps: Some(directory.join("steps")),
            program: Some(program.clone()),
            fetch: common.fetch.clone(),
            ..ImageOptions::default()
        })?;
        Ok(began.elapsed().as_secs_f64())
    });
    let mut report = Report::new("build", "s", &super::run(common.rounds, "s", vec![ours])?)?;
    report.detail.insert("compile_s".to_owned(), compile_s.into());
    Ok(report)
}

//! A new site file: validated, stored, put in force. With any mistake nothing changes.

use anyhow::{Context, bail};
use kontor_config::{Board, Site};
use kontor_status::SiteOrigin;
use kontor_status::paths::Paths;

use super::store::{self, Info};
use super::{copy, in_force, pending};

/// What a successful load did.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Loaded {
    /// Number in the history; nothing when the change will not survive a restart.
    pub(super) number: Option<u32>,
    /// Revision in force.
    pub(super) revision: u64,
    /// Why it is less than it should be.
    pub(super) warning: Option<String>,
}

/// Validates `bytes` and makes them the site of the box.
///
/// # Errors
/// The report, when the file is refused; or what could not be written. The site in force stays then.
pub(super) fn load(
    paths: &Paths,
    board: &Board,
    name: &str,
    bytes: &[u8],
    info: &Info,
) -> anyhow::Result<Loaded> {
    let _lock =
        in_force::lock(paths).context("the other commands that change the site cannot be kept out")?;
    let site = match Site::parse_bytes(name, bytes, board) {
        Ok(site) => site,
        Err(report) => {
            let report = report.to_string();
            in_force::refuse(paths, &report).context("the site's status cannot be written")?;
            bail!("the site file is refused, nothing has changed\n\n{report}");
        }
    };
    let text = std::str::from_utf8(bytes)?;
    let (number, mut warning) = keep(paths, text, info)?;
    let status = in_force::apply(paths, text, &site, SiteOrigin::File, None)
        .and_then(|_| in_force::clear_error(paths))
        .context("the site file is kept for the next start, but cannot be put in force now")?;
    let promoted = if number.is_some() { store::promote(paths, text) } else { Ok(()) };
    if let Err(error) = promoted.and_then(|()| copy::write(paths, text)) {
        // Stored and in force; only the way back still leads to the site before.
        let problem = format!("the last good site cannot be stored: {error}");
        warning = Some(warning.map_or(problem.clone(), |warning| format!("{warning}; {problem}")));
    }
    Ok(Loaded { number, revision: status.revision, warning })
}

/// Stores the file, or keeps it in RAM when there is no disk, or one that takes nothing: a gateway can be
/// changed as long as it runs.
fn keep(paths: &Paths, text: &str, info: &Info) -> anyhow::Result<(Option<u32>, Option<String>)> {
    let stored = if store::is_durable(paths) {
        store::store(paths, text, info).map_err(|error| format!("the site file cannot be stored ({error})"))
    } else {
        Err("the state partition is not mounted".to_owned())
    };
    match stored {
        Ok(number) => {
            pending::discard(paths);
            Ok((Some(number), None))
        }
        Err(problem) => {
            pending::keep(paths, text, info).context("the site file cannot be kept")?;
            let warning =
                format!("THE CHANGE IS NOT DURABLE: {problem}, a restart can bring back the site before");
            Ok((None, Some(warning)))
        }
    }
}

//! The `site` applet: which site file is in force, and how a new one comes into force.
//!
//! One-shot and run by root. Owns /state/site and /run/kontor/site; tells nobody: whoever calls it
//! (`init`, `ctl`) makes the daemons read the new file. Decisions about the content of a site file are
//! `kontor-config`'s.

mod boot;
mod copy;
mod in_force;
mod load;
mod pending;
mod store;
pub(crate) mod wait;

#[cfg(test)]
mod tests;

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, bail};
use kontor_config::{Board, Site};
use kontor_status::paths::Paths;

use crate::calendar;
use store::Info;
pub(crate) use wait::wait;

const USAGE: &str = "usage: kontor site boot
       kontor site check FILE
       kontor site load FILE|- [--who NAME] [--why TEXT]
       kontor site show
       kontor site history
options for trials: [--run DIR] [--state DIR] [--board FILE]";

pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let paths = Paths::from_args(args);
    let arguments = Arguments::parse(args)?;
    let words: Vec<&str> = arguments.words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["boot"] => boot(&paths),
        ["check", file] => check(&paths, file),
        ["load", file] => load(&paths, file, &arguments),
        ["show"] => show(&paths),
        ["history"] => history(&paths),
        _ => bail!("{USAGE}"),
    }
}

/// The site file in force, as every daemon reads it; it was validated before it came there.
pub(crate) fn read_in_force(paths: &Paths) -> anyhow::Result<Site> {
    let path = paths.site();
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| name.clone())?;
    Site::parse(&name, &text, &board(paths)?).map_err(anyhow::Error::new)
}

/// The site file that came with the seed, on a box that was flashed before it was kept for a factory reset.
pub(crate) fn first_seeded(paths: &Paths) -> Option<Vec<u8>> {
    store::first_seeded(paths)
}

/// What is left of the command line besides [`Paths`]' options.
#[derive(Debug, Default)]
struct Arguments {
    words: Vec<String>,
    who: Option<String>,
    why: Option<String>,
}

impl Arguments {
    fn parse(args: &[String]) -> anyhow::Result<Self> {
        let mut arguments = Self::default();
        let mut rest = args.iter();
        while let Some(argument) = rest.next() {
            let (flag, inline) = match argument.split_once('=') {
                Some((flag, value)) if flag.starts_with("--") => (flag, Some(value.to_owned())),
                _ => (argument.as_str(), None),
            };
            if !flag.starts_with("--") {
                arguments.words.push(argument.clone());
                continue;
            }
            let value = inline.or_else(|| rest.next().cloned());
            let value = value.with_context(|| format!("{flag} needs a value"))?;
            match flag {
                "--who" => arguments.who = Some(value),
                "--why" => arguments.why = Some(value),
                "--run" | "--state" | "--site" | "--board" => {}
                _ => bail!("unknown option {flag}\n{USAGE}"),
            }
        }
        Ok(arguments)
    }
}

fn boot(paths: &Paths) -> anyhow::Result<()> {
    let status = boot::boot(paths, &board(paths)?)?;
    eprintln!("site of {} in force: {:?}, revision {}", status.office, status.origin, status.revision);
    if let Some(error) = status.error {
        eprintln!("a site file is refused:\n{error}");
    }
    Ok(())
}

fn check(paths: &Paths, file: &str) -> anyhow::Result<()> {
    let bytes = read(file)?;
    let name = shown(file);
    match Site::parse_bytes(name, &bytes, &board(paths)?) {
        Ok(site) => print(&format!("{name}: right, the site of {}\n", site.office.name)),
        Err(report) => bail!("{name} has mistakes\n\n{report}"),
    }
}

fn load(paths: &Paths, file: &str, arguments: &Arguments) -> anyhow::Result<()> {
    let bytes = read(file)?;
    let info = Info {
        who: arguments.who.clone().unwrap_or_else(|| "root".to_owned()),
        when: calendar::utc(std::time::SystemTime::now()),
        why: arguments.why.clone().unwrap_or_default(),
    };
    let loaded = load::load(paths, &board(paths)?, shown(file), &bytes, &info)?;
    if let Some(warning) = loaded.warning {
        eprintln!("warning: {warning}");
    }
    let stored = loaded.number.map(|number| format!(", stored as number {number}")).unwrap_or_default();
    print(&format!("site in force: revision {}{stored}\n", loaded.revision))
}

fn show(paths: &Paths) -> anyhow::Result<()> {
    let path = paths.site();
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    print(&text)
}

fn history(paths: &Paths) -> anyhow::Result<()> {
    let numbers = store::numbers(paths)?;
    if numbers.is_empty() {
        return print("no site file has been loaded on this box yet\n");
    }
    for number in numbers {
        let line = match store::info(paths, number) {
            Some(Info { who, when, why }) => format!("{number:04}  {when}  {who}  {why}"),
            None => format!("{number:04}  (its header is damaged)"),
        };
        print(&format!("{}\n", line.trim_end()))?;
    }
    Ok(())
}

/// The file of the board that this machine is.
pub(crate) fn board(paths: &Paths) -> anyhow::Result<Board> {
    let name = paths.board.display().to_string();
    let text = std::fs::read_to_string(&paths.board).with_context(|| name.clone())?;
    Board::parse(&name, &text).map_err(|report| anyhow::anyhow!("the board file is wrong\n\n{report}"))
}

/// How a report names the file: what was pasted has no name of its own.
fn shown(file: &str) -> &str {
    if file == "-" { "site.toml" } else { file }
}

fn read(file: &str) -> anyhow::Result<Vec<u8>> {
    if file == "-" {
        return Ok(store::read_limited(std::io::stdin().lock())?);
    }
    let bytes = store::read_bounded(Path::new(file)).with_context(|| file.to_owned())?;
    bytes.with_context(|| format!("{file} does not exist or is empty"))
}

fn print(text: &str) -> anyhow::Result<()> {
    Ok(std::io::stdout().lock().write_all(text.as_bytes())?)
}

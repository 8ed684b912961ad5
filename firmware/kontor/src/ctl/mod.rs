//! The `ctl` applet: the operator's commands, for root on the box and for the console.
//!
//! Reads the daemons' status files and talks to PID 1 over its control socket; it holds no state. Text that
//! came from the network or from logs is stripped of control characters before it reaches a terminal.

mod command;
pub(crate) mod control;
mod reset;
pub(crate) mod show;
pub(crate) mod snapshot;
pub(crate) mod table;
mod tunnels;
mod update;

use std::io::{BufRead as _, IsTerminal as _, Read as _, Write};

use anyhow::{Context, bail, ensure};
use kontor_status::paths::Paths;
use serde::Serialize;

use command::Command;
pub(crate) use command::{FACTORY_RESET, INSTALL, SAMBA};
use snapshot::Snapshot;

/// Log lines of each service when none is named.
const LOG_LINES_EACH: u32 = 5;
/// `site load` went well, and then the daemons could not be told.
const UNTOLD: &str =
    "the new site file is in force, but the services still follow the one before: try `reload`";
/// A factory reset was asked for, and then the box could not be restarted.
const UNRESTARTED: &str = "the reset is asked for and comes with the next restart";
/// The newest release's facts in the base image.
const OS_RELEASE: &str = "/usr/lib/os-release";

pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    // All that follows belongs to the component's tool.
    let own = args.iter().take_while(|word| *word != command::SAMBA).count();
    let paths = Paths::from_args(&args[..own]);
    let (mut words, places) = split_places(&args[..own]);
    words.extend_from_slice(&args[own..]);
    match command::parse(&words).map_err(anyhow::Error::msg)? {
        Command::Help(text) => print(text),
        Command::Status { json } => present(&Snapshot::take(&paths), json, show::status, |all| all),
        Command::Leases { json } => present(&Snapshot::take(&paths), json, show::leases, |all| &all.dhcp),
        Command::Links { json } => present(&Snapshot::take(&paths), json, show::links, |all| &all.net),
        Command::Tunnels { json } => present(&Snapshot::take(&paths), json, tunnels::show, tunnels::of),
        Command::Logs { service, lines } => logs(&paths, service.as_deref(), lines),
        Command::Site(words) => site(&paths, words, &places),
        Command::Component { name, words } => crate::component::tool(name, &words),
        Command::Update { json } => present(&Snapshot::take(&paths), json, update::show, |all| &all.update),
        Command::AskUpdate(request) => {
            request.found()?.leave(&paths)?;
            print("asked for; `update` shows how it goes\n")
        }
        Command::Install { disk: None, .. } => print(&crate::install::list()?),
        Command::Install { disk: Some(disk), agreed } => crate::install::to(&disk, agreed.as_deref()),
        Command::Reload => tell(&paths, "reload", "the site file is being validated and applied"),
        Command::Restart { service } => tell(&paths, &format!("restart {service}"), "restarting"),
        Command::Reboot => tell(&paths, "reboot", "the box restarts"),
        Command::PowerOff => tell(&paths, "power-off", "the box switches off"),
        Command::FactoryReset { data, confirmed } => match reset::ask(&paths, data, confirmed)? {
            true => tell(&paths, "reboot", "asked for; the box restarts and does it").context(UNRESTARTED),
            false => print("nothing is changed\n"),
        },
        Command::WithdrawReset => {
            crate::storage::reset::withdraw()?;
            print("nothing will be reset\n")
        }
        Command::Version => print(&version()),
    }
}

/// Separates the flags of [`Paths::from_args`] from the command.
fn split_places(args: &[String]) -> (Vec<String>, Vec<String>) {
    let (mut words, mut places) = (Vec::new(), Vec::new());
    let mut rest = args.iter();
    while let Some(argument) = rest.next() {
        let flag = argument.split('=').next().unwrap_or_default();
        if !matches!(flag, "--run" | "--state" | "--site" | "--board") {
            words.push(argument.clone());
            continue;
        }
        places.push(argument.clone());
        places.extend(rest.next().filter(|_| !argument.contains('=')).cloned());
    }
    (words, places)
}

fn present<T: Serialize + ?Sized>(
    snapshot: &Snapshot,
    json: bool,
    text: fn(&Snapshot) -> String,
    part: fn(&Snapshot) -> &T,
) -> anyhow::Result<()> {
    match json {
        true => print(&(serde_json::to_string_pretty(part(snapshot))? + "\n")),
        false => print(&text(snapshot)),
    }
}

fn logs(paths: &Paths, service: Option<&str>, lines: u32) -> anyhow::Result<()> {
    let socket = paths.init_socket();
    let of = |name: &str, lines: u32| control::ask(&socket, &format!("logs {name} {lines}"));
    if let Some(name) = service {
        return print(&table::plain_lines(&refusal(of(name, lines)?)?));
    }
    let status: kontor_status::InitStatus = serde_json::from_str(&control::ask(&socket, "status")?)?;
    for service in &status.services {
        print(&format!("==> {} <==\n", service.name))?;
        print(&table::plain_lines(&of(&service.name, LOG_LINES_EACH)?))?;
    }
    Ok(())
}

/// Runs the `site` applet; after a load, the daemons must read what is now in force.
fn site(paths: &Paths, mut words: Vec<String>, places: &[String]) -> anyhow::Result<()> {
    let load = words.first().is_some_and(|word| word == "load");
    if load && words.get(1).is_none_or(|word| word.starts_with("--")) {
        words.insert(1, "-".to_owned());
    }
    words.extend(places.iter().cloned());
    crate::site::run(&words)?;
    match load {
        true => request_reload(paths).context(UNTOLD),
        false => Ok(()),
    }
}

/// PID 1 validates what is stored once more and then has every daemon read what is in force. A file that no
/// disk has taken stays in force through this, see `site`.
fn request_reload(paths: &Paths) -> anyhow::Result<()> {
    refusal(control::ask(&paths.init_socket(), "reload")?).map(drop)
}

fn tell(paths: &Paths, request: &str, done: &str) -> anyhow::Result<()> {
    refusal(control::ask(&paths.init_socket(), request)?)?;
    print(&format!("{done}\n"))
}

/// PID 1 answers a request it cannot fulfil with `{"error": "…"}`.
fn refusal(answer: String) -> anyhow::Result<String> {
    let json: Option<serde_json::Value> = serde_json::from_str(&answer).ok();
    match json.as_ref().and_then(|json| json.get("error")).and_then(|error| error.as_str()) {
        Some(error) => bail!("{}", table::plain(error)),
        None => Ok(answer),
    }
}

/// As the base says: the program itself knows no version, so that two releases of one source share its bytes.
fn version() -> String {
    let text = std::fs::read_to_string(OS_RELEASE).unwrap_or_default();
    let pretty = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    format!("{}\n", pretty.map_or("Kontor (version unknown)", |pretty| pretty.trim_matches('"')))
}

/// Writes to standard output; a reader that has gone away (`| head`) is no error.
/// Asks the person at the terminal; whether the answer is `word`. Without a terminal, `nobody` is the error.
pub(crate) fn is_typed(word: &str, question: &str, nobody: &str) -> anyhow::Result<bool> {
    let input = std::io::stdin().lock();
    ensure!(input.is_terminal(), "{nobody}");
    print(question)?;
    let mut line = String::new();
    input.take(256).read_line(&mut line).context("reading the answer")?;
    Ok(line.trim() == word)
}

pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

//! The `dnsd` applet: name service for the office.
//!
//! Every decision is in [`kontor_dns`]; this module holds the sockets, the clock and the files. One thread,
//! one epoll loop, nothing that blocks. It listens on the box's addresses in internal networks and on
//! loopback, never on external ones, and drops what comes from anywhere else.

mod announce;
mod daemon;
mod listen;
mod names;
mod poller;
mod realm;
mod settings;
mod status;
mod tcp;
mod upstream;

use anyhow::Context;
use kontor_status::paths::Paths;
use kontor_sys::notify::Notifier;
use kontor_sys::signal::Signals;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;

use crate::site;
use daemon::{Daemon, Options};

/// Port of DNS.
const PORT: u16 = 53;

/// Runs dnsd until SIGTERM; SIGHUP reads the site file again.
///
/// `--run --state --site --board` move files, `--port N`, `--upstream-port N` and `--samba-port N` ports; all of them
/// for trial runs.
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let options = Options {
        paths: Paths::from_args(args),
        port: port(args, "--port", PORT)?,
        upstream_port: port(args, "--upstream-port", PORT)?,
        samba_port: port(args, "--samba-port", kontor_samba::DNS_PORT)?,
    };
    let mut signals = Signals::new(&[Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT])?;
    let notifier = Notifier::from_environment();
    raise_file_limit();
    if !site::wait(&options.paths, &mut signals, &notifier)? {
        return Ok(());
    }
    Daemon::new(options, signals, notifier)?.run()
}

/// Each question on its way has up to three sockets, and the usual soft limit is only 1024.
fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        eprintln!("the limit of open files stays as it is: {error}");
    }
}

fn port(args: &[String], flag: &str, default: u16) -> anyhow::Result<u16> {
    let Some(at) = args.iter().position(|argument| argument == flag) else { return Ok(default) };
    let value = args.get(at + 1).with_context(|| format!("{flag} needs a port number"))?;
    value.parse().with_context(|| format!("{flag}: {value:?} is not a port number"))
}

//! The operator's side of joining a domain: takes a password from standard input into the component, and waits for what
//! comes of it.

use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

use super::exec::enter;
use super::outside::pid_inside;
use super::samba::{ANSWER_END, COUNTER};

/// The longest line that is taken for a password.
const MAX_PASSWORD: u64 = 1024;

/// `--run DIR USER`.
pub(super) fn run(args: &[String]) -> anyhow::Result<()> {
    let (run, user) = match args {
        [flag, run, user] if flag == "--run" && !user.starts_with('-') => (run, user),
        _ => bail!("usage: kontor component join --run DIR USER (on a box: samba join USER)"),
    };
    // Samba's tools take what follows a percent sign for a password.
    ensure!(!user.contains(['%', '\n']), "{user:?} is no name of a user");
    let pid = pid_inside(Path::new(run))?;
    let password = password(user)?;
    enter(pid)?;
    let stream = UnixStream::connect(COUNTER).context(
        "it waits for no password: it is in its domain, needs none, or is still starting; its log says which",
    )?;
    writeln!(&stream, "{user}\n{password}").context("give the password")?;
    drop(password);
    outcome(&stream)
}

/// One line, which nobody sees.
fn password(user: &str) -> anyhow::Result<String> {
    let input = std::io::stdin();
    let shown = input.is_terminal().then(|| tcgetattr(&input)).transpose().context("the terminal")?;
    if let Some(shown) = &shown {
        let mut hidden = shown.clone();
        hidden.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(&input, SetArg::TCSAFLUSH, &hidden).context("the terminal")?;
        // Not before: who answers at once would be seen, or flushed away.
        eprint!("Password of {user}: ");
    }
    let mut line = String::new();
    let read = input.lock().take(MAX_PASSWORD).read_line(&mut line);
    if let Some(shown) = &shown {
        tcsetattr(&input, SetArg::TCSANOW, shown).context("the terminal")?;
        eprintln!();
    }
    read.context("read the password")?;
    let password = line.trim_end_matches(['\n', '\r']);
    ensure!(!password.is_empty(), "no password was given");
    Ok(password.to_owned())
}

/// Says how it goes; refused is an error.
fn outcome(stream: &UnixStream) -> anyhow::Result<()> {
    let [joined, refused] = ANSWER_END;
    for line in BufReader::new(stream).lines() {
        let line = line.context("the component")?;
        if let Some(reason) = line.strip_prefix(refused) {
            bail!("not joined: {reason}");
        }
        if let Some(domain) = line.strip_prefix(joined) {
            println!("joined {domain}");
            return Ok(());
        }
        println!("{line}");
    }
    bail!("the component has ended without an answer; its log says why")
}

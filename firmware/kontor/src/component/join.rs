//! Giving a component the password to join a domain with, and waiting for what comes of it: an operator's, from standard
//! input, or the one that came with the seed ([`super::seeded`]).

use std::fs;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

use super::exec::enter;
use super::outside::pid_inside;
use super::samba::{ANSWER_END, COUNTER, ONCE, PATIENT, REPLACED};

/// The subcommand of one who has the password in a file.
pub(super) const FROM_FILE: &str = "join-from";
/// Exit code of a process whose password was refused for good.
pub(super) const REFUSED: i32 = 3;

enum Outcome {
    Joined,
    Refused(String),
}

/// The longest line that is taken for a password.
const MAX_PASSWORD: u64 = 1024;

/// `--run DIR USER`.
pub(super) fn run(args: &[String]) -> anyhow::Result<()> {
    let (run, user) = match args {
        [flag, run, user] if flag == "--run" && !user.starts_with('-') => (run, user),
        _ => bail!("usage: kontor component join --run DIR USER (on a box: samba join USER)"),
    };
    check_user(user)?;
    let pid = pid_inside(Path::new(run))?;
    let password = password(user)?;
    match apply(pid, user, password, ONCE)? {
        Outcome::Joined => Ok(()),
        Outcome::Refused(reason) => bail!("not joined: {reason}"),
    }
}

/// `--run DIR FILE`: user and password are the file's two lines.
pub(super) fn run_from_file(args: &[String]) -> anyhow::Result<()> {
    let (run, file) = match args {
        [flag, run, file] if flag == "--run" => (run, file),
        _ => bail!("usage: kontor component {FROM_FILE} --run DIR FILE"),
    };
    let text = fs::read_to_string(file).with_context(|| file.clone())?;
    let (user, password) = two_lines(&text).with_context(|| {
        format!("{file} is to have two lines, the name of a user who may join computers, and the password")
    })?;
    check_user(user)?;
    match apply(pid_inside(Path::new(run))?, user, password.to_owned(), PATIENT)? {
        Outcome::Joined => Ok(()),
        Outcome::Refused(_) => std::process::exit(REFUSED),
    }
}

fn two_lines(text: &str) -> Option<(&str, &str)> {
    let (user, password) = text.trim_end_matches(['\n', '\r']).split_once('\n')?;
    let (user, password) = (user.trim(), password.trim_end_matches('\r'));
    (!user.is_empty() && !password.is_empty() && !password.contains('\n')).then_some((user, password))
}

/// Samba's tools take what follows a percent sign for a password.
fn check_user(user: &str) -> anyhow::Result<()> {
    ensure!(!user.contains(['%', '\n']), "{user:?} is no name of a user");
    Ok(())
}

fn apply(pid: i32, user: &str, password: String, patience: &str) -> anyhow::Result<Outcome> {
    enter(pid)?;
    let stream = UnixStream::connect(COUNTER).context(
        "it waits for no password: it is in its domain, needs none, or is still starting; its log says which",
    )?;
    writeln!(&stream, "{user}\n{password}\n{patience}").context("give the password")?;
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

/// Says how it goes.
fn outcome(stream: &UnixStream) -> anyhow::Result<Outcome> {
    let [joined, refused] = ANSWER_END;
    for line in BufReader::new(stream).lines() {
        let line = line.context("the component")?;
        if let Some(reason) = line.strip_prefix(refused) {
            return Ok(Outcome::Refused(reason.to_owned()));
        }
        ensure!(line != REPLACED, "another password was given since");
        if let Some(domain) = line.strip_prefix(joined) {
            println!("joined {domain}");
            return Ok(Outcome::Joined);
        }
        println!("{line}");
    }
    bail!("the component has ended without an answer; its log says why")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_user_and_a_password_that_may_hold_spaces() {
        assert_eq!(two_lines("joiner\ncorrect horse \n"), Some(("joiner", "correct horse ")));
        assert_eq!(two_lines("joiner\r\nsecret\r\n"), Some(("joiner", "secret")));
        for wrong in ["", "joiner", "joiner\n", "\nsecret", "joiner\nsecret\nmore"] {
            assert_eq!(two_lines(wrong), None, "{wrong:?}");
        }
    }
}

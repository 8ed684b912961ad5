//! `cargo xtask site`: site files looked at where they are written, with the crate the box uses.

use std::io::{self, BufRead, IsTerminal, Write};
use std::os::fd::AsFd;

use anyhow::{Context, Result, bail, ensure};
use argon2::Argon2;
use argon2::password_hash::PasswordHasher;
use camino::{Utf8Path, Utf8PathBuf};
use kontor_config::{Board, Site};
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

use crate::image::declaration::{BoardFile, Product};
use crate::workspace::Workspace;

/// Passwords shorter than this are found by trying, whatever the hash.
const MIN_PASSWORD: usize = 8;
/// Longer ones are a paste by mistake; far below what the console reads as one line.
const MAX_PASSWORD: usize = 128;

const EXAMPLES: &str = "\
Examples:
  cargo xtask site default > office.toml       a file to begin with
  cargo xtask site check office.toml
  cargo xtask site hash-password               for [console] operator-password-hash";

/// Check site files, make operator password hashes
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Command {
    /// Check a site file; every mistake is shown with its place and what is allowed
    Check {
        /// The site file
        file: Utf8PathBuf,
        /// Board the site is meant for (a file of board/, without .toml)
        #[arg(long, value_name = "NAME", default_value = "generic-x86-64")]
        board: String,
        /// Product whose image the board runs (a file of images/, without .toml)
        #[arg(long, value_name = "NAME", default_value = "branch")]
        product: String,
    },
    /// Make an `operator-password-hash` from a password typed in, or from one line of standard input
    HashPassword,
    /// Print the site file of a box that has none
    Default,
}

/// Runs the command.
///
/// # Errors
/// When the site file has mistakes or cannot be read, or the password is not acceptable.
pub fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::Check { file, board, product } => {
            super::print(format_args!("{}\n", check(file, &load_board(board, product)?)?))
        }
        Command::HashPassword => super::print(format_args!("{}\n", hash(&read_password()?)?)),
        Command::Default => super::print(Site::default_text()),
    }
}

fn load_board(board: &str, product: &str) -> Result<Board> {
    let workspace = Workspace::locate();
    let product = Product::load(&workspace.product(product))?;
    Ok(BoardFile::load(&workspace.board(board), &product)?.board)
}

fn check(file: &Utf8Path, board: &Board) -> Result<String> {
    let bytes = std::fs::read(file).with_context(|| format!("reading {file}"))?;
    match Site::parse_bytes(file.as_str(), &bytes, board) {
        Ok(site) => Ok(format!("{file}: right, the site of {} on board {}", site.office.name, board.name)),
        Err(report) => bail!("{file} has mistakes\n\n{report}"),
    }
}

fn hash(password: &str) -> Result<String> {
    let characters = password.chars().count();
    ensure!(characters >= MIN_PASSWORD, "the password needs at least {MIN_PASSWORD} characters");
    ensure!(password.len() <= MAX_PASSWORD, "the password may have at most {MAX_PASSWORD} bytes");
    ensure!(!password.chars().any(char::is_control), "the console cannot read control characters");
    // The crate's defaults are OWASP's first choice: argon2id, 19 MiB, two passes.
    let hash = Argon2::default().hash_password(password.as_bytes());
    Ok(hash.map_err(|error| anyhow::anyhow!("hashing: {error}"))?.to_string())
}

fn read_password() -> Result<String> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return read_line();
    }
    let password = without_echo("operator's password: ")?;
    ensure!(password == without_echo("the same again: ")?, "the two passwords differ");
    Ok(password)
}

fn without_echo(prompt: &str) -> Result<String> {
    let stdin = io::stdin();
    eprint!("{prompt}");
    io::stderr().flush()?;
    let before = tcgetattr(stdin.as_fd())?;
    let mut silent = before.clone();
    silent.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(stdin.as_fd(), SetArg::TCSAFLUSH, &silent)?;
    let line = read_line();
    tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &before)?;
    eprintln!();
    line
}

fn read_line() -> Result<String> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).context("reading the password")?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::PasswordVerifier;
    use argon2::password_hash::phc::PasswordHash;

    use super::*;

    fn board() -> Board {
        let text = "schema = 1\nname = \"test\"\n[[port]]\nname = \"port1\"\n[[port]]\nname = \"port2\"\n";
        Board::parse("board.toml", text).unwrap()
    }

    #[test]
    fn hash_is_what_a_site_file_takes() {
        let hash = hash("correct horse").unwrap();
        let verified = PasswordHash::new(&hash)
            .is_ok_and(|hash| Argon2::default().verify_password(b"correct horse", &hash).is_ok());
        assert!(verified);
        let console = format!("operator-password-hash = {hash:?}\nroot-shell = false");
        let text = Site::default_text().replace("root-shell = false", &console);
        Site::parse("site.toml", &text, &board()).unwrap_or_else(|report| panic!("{report}"));
    }

    #[test]
    fn weak_or_untypable_passwords_are_refused() {
        let message = |password: &str| hash(password).unwrap_err().to_string();
        assert_eq!(message("short"), "the password needs at least 8 characters");
        assert_eq!(message("with\ta tab in it"), "the console cannot read control characters");
        assert_eq!(message(&"x".repeat(129)), "the password may have at most 128 bytes");
    }

    #[test]
    fn check_shows_the_report() {
        let scratch = tempfile::tempdir().unwrap();
        let file = Utf8PathBuf::from_path_buf(scratch.path().join("site.toml")).unwrap();
        std::fs::write(&file, Site::default_text()).unwrap();
        assert!(check(&file, &board()).unwrap().contains("the site of Kontor on board test"));
        std::fs::write(&file, Site::default_text().replace("port2", "port9")).unwrap();
        let error = check(&file, &board()).unwrap_err().to_string();
        assert!(error.contains("board test has no port `port9`"), "{error}");
    }
}

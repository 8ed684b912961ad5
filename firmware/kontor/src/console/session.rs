//! The dialogue with whoever sits at the terminal, as a machine without terminal, clock and processes.
//!
//! Feed bytes, time and results; drain [`Session::poll_action`] after each. Before the log-in nothing but the
//! name and the password is read, and both are bounded.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::line::{Edit, Editor};
use crate::ctl::{FACTORY_RESET, INSTALL, SAMBA};

/// The one account.
const OPERATOR: &str = "operator";
const PROMPT: &str = "kontor> ";
/// A forgotten log-in must not stay open.
const IDLE_LIMIT: Duration = Duration::from_secs(10 * 60);
/// A forgotten log-in prompt gives the screen back to the status.
const LOGIN_LIMIT: Duration = Duration::from_secs(60);
/// After the n-th failure in a row: 1, 2, 4 … seconds. Guessing over a serial line gets nowhere, and the
/// operator who mistyped waits a moment.
const LOCK_FIRST: Duration = Duration::from_secs(1);
const LOCK_MAX: Duration = Duration::from_secs(64);
/// Largest pasted site file.
const PASTE_MAX: usize = 256 * 1024;
/// Input kept while a command runs; a paste that comes too early fits.
const QUEUE_MAX: usize = PASTE_MAX + 4096;

const NO_LOGIN: &str = "\
Log-in is disabled: the site file has no operator's password.
To enable it, put a hash made with `cargo xtask site hash-password` into the site file:
  [console]
  operator-password-hash = \"$argon2id$...\"
and write that file to the box's seed (`cargo xtask image --site FILE`).
";
const HELP: &str = "\
  status               everything at a glance
  leases               who has which address
  links                ports, carriers, addresses
  tunnels              WireGuard tunnels: keys, peers, what is up
  logs [NAME] [-n N]   the newest log lines of a service, or of all
  reload               check the stored site file again and apply it
  site load            paste a new site file, check it and put it in force
  site check           paste a site file, check it and change nothing
  site show            the site file in force
  site history         earlier site files
  install [DISK]       put a box that runs from a stick on a disk of the machine
  samba TOOL …         a tool of Samba's: `samba user list`, `samba user add NAME`
  restart NAME         restart one service
  reboot               restart the box
  power-off            switch the box off
  factory-reset        back to how the box was flashed, with or without its data
  version              firmware version
  shell                root shell, if the site file allows it
  logout               end this session (happens by itself after 10 minutes)
COMMAND --help shows more. Ctrl-C stops a command.
";

const NO_FILES: &str = "\
The console takes no file names and no --options that name files, because it reads as root: paste the
file after `site load` or `site check`. With root-shell = true under [console] both are possible.
";

/// What the caller has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Write to the terminal; lines end with `\n`.
    Write(String),
    /// Echo these bytes as they are.
    Echo(Vec<u8>),
    /// Check the password, then call [`Session::verified`].
    Verify(String),
    /// Run `kontor ctl` with these words and this standard input, then call [`Session::finished`].
    Run(Vec<String>, Option<Vec<u8>>),
    /// Run `kontor ctl` with these words on the terminal, then call [`Session::finished`]: it may ask for a password.
    Converse(Vec<String>),
    /// Run a root shell on the terminal, then call [`Session::finished`].
    Shell,
    /// Stop the running command.
    Interrupt,
    /// Show the status: nobody is in a dialogue (any more).
    Watch,
}

/// What the site file says about this terminal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Policy {
    /// Whether there is a password at all.
    pub(super) login: bool,
    /// Whether the operator may open a root shell.
    pub(super) shell: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Watching,
    Name,
    Password { name_ok: bool },
    Verifying,
    Locked { until: Instant },
    Prompt,
    Paste { bytes: Vec<u8>, after_return: bool, load: bool },
    Running,
}

/// One terminal's dialogue.
#[derive(Debug)]
pub(super) struct Session {
    state: State,
    editor: Editor,
    queue: VecDeque<u8>,
    actions: VecDeque<Action>,
    policy: Policy,
    failures: u32,
    last_input_at: Instant,
}

impl Session {
    pub(super) fn new(now: Instant, policy: Policy) -> Self {
        Self {
            state: State::Watching,
            editor: Editor::default(),
            queue: VecDeque::new(),
            actions: VecDeque::new(),
            policy,
            failures: 0,
            last_input_at: now,
        }
    }

    pub(super) fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Whether the terminal shows the status (and nobody types).
    pub(super) fn is_watching(&self) -> bool {
        self.state == State::Watching
    }

    pub(super) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Bytes from the terminal.
    pub(super) fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) {
        self.last_input_at = now;
        match self.state {
            // Guesses typed ahead while locked are thrown away.
            State::Locked { .. } | State::Verifying => return,
            State::Running if bytes.contains(&0x03) => {
                self.queue.clear();
                self.act(Action::Interrupt);
                return;
            }
            _ => {}
        }
        let room = QUEUE_MAX.saturating_sub(self.queue.len());
        self.queue.extend(bytes.iter().take(room));
        self.work(now);
    }

    /// The answer to [`Action::Verify`].
    pub(super) fn verified(&mut self, now: Instant, right: bool) {
        if right {
            self.failures = 0;
            self.write("Welcome. `help` lists the commands.\n");
            self.prompt();
            return self.work(now);
        }
        let pause = LOCK_FIRST.saturating_mul(1 << self.failures.min(10)).min(LOCK_MAX);
        self.failures = self.failures.saturating_add(1);
        self.queue.clear();
        self.write(&format!("Log-in failed. Next try in {} s.\n", pause.as_secs()));
        self.state = State::Locked { until: now + pause };
    }

    /// A command or shell has ended.
    pub(super) fn finished(&mut self, now: Instant) {
        if self.state == State::Running {
            self.last_input_at = now;
            self.prompt();
            self.work(now);
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Watching | State::Verifying | State::Running => None,
            State::Locked { until } => Some(until),
            State::Name | State::Password { .. } => Some(self.last_input_at + LOGIN_LIMIT),
            State::Prompt | State::Paste { .. } => Some(self.last_input_at + IDLE_LIMIT),
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|at| now < at) {
            return;
        }
        match self.state {
            State::Locked { .. } => {
                self.last_input_at = now;
                self.ask_name();
            }
            State::Prompt | State::Paste { .. } => {
                self.write("\nLogged out after 10 minutes without input.\n");
                self.watch();
            }
            _ => {
                self.write("\n");
                self.watch();
            }
        }
    }

    /// Works through the queue as long as this state takes input.
    fn work(&mut self, now: Instant) {
        while !matches!(self.state, State::Running | State::Verifying | State::Locked { .. }) {
            let Some(byte) = self.queue.pop_front() else { return };
            match &mut self.state {
                State::Paste { .. } => self.paste(byte),
                State::Watching => {
                    if matches!(byte, b'\r' | b'\n') {
                        self.wake();
                    }
                }
                _ => self.edit(now, byte),
            }
        }
    }

    fn wake(&mut self) {
        match self.policy.login {
            true => {
                self.write("\n");
                self.ask_name();
            }
            false => {
                self.write(&format!("\n{NO_LOGIN}"));
                self.watch();
            }
        }
    }

    fn edit(&mut self, now: Instant, byte: u8) {
        let secret = matches!(self.state, State::Password { .. });
        match self.editor.feed(byte) {
            Edit::Echo(bytes) if !secret && !bytes.is_empty() => self.act(Action::Echo(bytes)),
            Edit::Echo(_) => {}
            Edit::Line(line) => {
                self.write("\n");
                self.line(now, line);
            }
            Edit::Cancel if self.state == State::Prompt => {
                self.write("^C\n");
                self.prompt();
            }
            Edit::Cancel | Edit::End => {
                self.write("\n");
                self.watch();
            }
        }
    }

    fn line(&mut self, now: Instant, line: String) {
        match self.state {
            State::Name if line.trim().is_empty() => self.watch(),
            State::Name => {
                self.state = State::Password { name_ok: line.trim() == OPERATOR };
                self.write("password: ");
            }
            State::Password { name_ok } => {
                self.state = State::Verifying;
                match name_ok {
                    true => self.act(Action::Verify(line)),
                    false => self.verified(now, false),
                }
            }
            _ => self.command(&line),
        }
    }

    fn command(&mut self, line: &str) {
        let words = words(line);
        let texts: Vec<&str> = words.iter().map(String::as_str).collect();
        match texts.as_slice() {
            [] => self.prompt(),
            ["help" | "?"] => {
                self.write(HELP);
                self.prompt();
            }
            ["logout" | "exit" | "quit"] => {
                self.write("Logged out.\n");
                self.watch();
            }
            ["site", verb @ ("load" | "check")] | ["site", verb @ ("load" | "check"), "-"] => {
                self.write("Paste the site file; a line with a single dot ends it, Ctrl-C cancels. It is not shown.\n");
                self.state = State::Paste { bytes: Vec::new(), after_return: false, load: *verb == "load" };
            }
            ["shell"] if self.policy.shell => self.run(Action::Shell),
            ["shell"] => {
                self.write("The site file does not allow a shell: set root-shell = true under [console].\n");
                self.prompt();
            }
            // It sees the files of its component, and none of the box.
            [SAMBA, _, ..] => self.run(Action::Converse(words)),
            // It asks before it erases a disk, which is no file to read.
            [INSTALL, ..] => self.run(Action::Converse(words)),
            _ if !self.policy.shell && names_files(&texts) => {
                self.write(NO_FILES);
                self.prompt();
            }
            // It asks whether to go on.
            [FACTORY_RESET, ..] => self.run(Action::Converse(words)),
            _ => self.run(Action::Run(words, None)),
        }
    }

    /// Takes a pasted byte. Nothing is echoed, so that no output holds up the reading of a serial line.
    fn paste(&mut self, byte: u8) {
        let State::Paste { bytes, after_return, load } = &mut self.state else { return };
        // Terminals send CR, LF or CR LF at the end of a line.
        let skip = std::mem::replace(after_return, byte == b'\r') && byte == b'\n';
        if byte == 0x03 {
            self.write("^C\n");
            return self.prompt();
        }
        if skip {
            return;
        }
        bytes.push(if byte == b'\r' { b'\n' } else { byte });
        if bytes.len() > PASTE_MAX {
            self.write("Too long: a site file has at most 256 KiB. Nothing has changed.\n");
            self.queue.clear();
            return self.prompt();
        }
        if bytes.ends_with(b"\n.\n") || bytes == b".\n" {
            bytes.truncate(bytes.len() - 2);
            let (content, load) = (std::mem::take(bytes), *load);
            self.pasted(content, load);
        }
    }

    fn pasted(&mut self, content: Vec<u8>, load: bool) {
        let lines = content.iter().filter(|byte| **byte == b'\n').count();
        self.write(&format!("{lines} lines read.\n"));
        let words: &[&str] =
            if load { &["site", "load", "-", "--who", OPERATOR] } else { &["site", "check", "-"] };
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        self.run(Action::Run(words, Some(content)));
    }

    fn run(&mut self, action: Action) {
        self.state = State::Running;
        self.act(action);
    }

    fn ask_name(&mut self) {
        self.editor = Editor::default();
        self.state = State::Name;
        self.write("login: ");
    }

    fn prompt(&mut self) {
        self.state = State::Prompt;
        self.write(PROMPT);
    }

    fn watch(&mut self) {
        self.editor = Editor::default();
        self.queue.clear();
        self.state = State::Watching;
        self.act(Action::Watch);
    }

    fn write(&mut self, text: &str) {
        self.act(Action::Write(text.to_owned()));
    }

    fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }
}

/// The words of a line; quotation marks keep spaces in one, as names of groups have them.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
    for c in line.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            _ if c.is_whitespace() && !quoted => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Whether a command would read a file of the operator's choice: reports quote what is in a file, and the
/// console reads as root. Of the options, only those that name none are let through.
fn names_files(words: &[&str]) -> bool {
    const HARMLESS: [&str; 8] =
        ["--json", "--help", "-h", "-n", "--keep-data", "--wipe-data", "--withdraw", "--yes"];
    let harmless = |word: &&str| HARMLESS.contains(word);
    let options = words.iter().any(|word| word.starts_with('-') && !harmless(word));
    let help = words.iter().any(|word| matches!(*word, "--help" | "-h"));
    options || (matches!(words, ["site", "load" | "check", _, ..]) && !help)
}

#[cfg(test)]
mod tests;

//! A session on a box's console, as an operator has it.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use xtask::qemu::development_site;

use crate::world::{BoxId, World};

/// From power-on to a working gateway: ~20 s by emulation on an idle machine; the rest is room for loaded ones.
pub const BOOT_LIMIT: Duration = Duration::from_secs(240);
/// One answer of the console.
/// What Ctrl-C sends.
const INTERRUPT: &str = "\u{3}";
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// The operator's password in tests.
const PASSWORD: &str = "correct horse";
/// Its argon2id hash, with the cheapest parameters there are: guests run by emulation.
const PASSWORD_HASH: &str =
    "$argon2id$v=19$m=64,t=1,p=1$a29udG9yLXFlbXUtdGVzdA$vpPGeifGrt8kuFhOc+vNqTnkuwpEhIjqQfEnmXs9vI4";
const PROMPT: &str = "kontor> ";
const ROOT_PROMPT: &str = "root# ";

/// The default site with an operator who can log in, and `extra` at its end.
#[must_use]
pub fn site_with_operator(extra: &str) -> String {
    format!("{}\n{extra}", development_site(PASSWORD_HASH))
}

/// The same, and the operator may open a root shell.
#[must_use]
pub fn site_with_root_shell() -> String {
    site_with_operator("").replace("root-shell = false", "root-shell = true")
}

impl World {
    /// Waits until the console says that the gateway is up; that line.
    ///
    /// # Errors
    /// When it does not, or the box switches itself off.
    pub fn wait_until_ready(&mut self, id: BoxId) -> Result<String> {
        self.wait_for_line(id, "kontor: gateway ready", BOOT_LIMIT)
    }

    /// Waits for a line with `pattern` on the console; that line.
    ///
    /// # Errors
    /// When it does not come, or the box switches itself off.
    pub fn wait_for_line(&mut self, id: BoxId, pattern: &str, limit: Duration) -> Result<String> {
        self.wait_for(&format!("{pattern:?} on the console"), limit, |world| {
            let vm = world.vm(id);
            let line = vm.serial.take_line(pattern);
            let ended = vm.ended()?;
            match (line, ended) {
                (None, Some(status)) => bail!("{} is off: {status}; QEMU said {:?}", vm.name(), vm.said()),
                (line, _) => Ok(line),
            }
        })
    }

    /// Waits for `pattern` on the console; everything up to it.
    ///
    /// # Errors
    /// When it does not come.
    pub fn expect(&mut self, id: BoxId, pattern: &str, limit: Duration) -> Result<String> {
        let what = format!("{pattern:?} on the console");
        self.wait_for(&what, limit, |world| Ok(world.vm(id).serial.take_through(pattern)))
    }

    /// Logs the operator in; waits until there is an operator, as the box serves its office before its disk is
    /// there with the site file.
    ///
    /// # Errors
    /// When the console does not ask for name and password or does not take them.
    pub fn log_in(&mut self, id: BoxId) -> Result<()> {
        self.eventually(BOOT_LIMIT, |world| world.ask_for_login(id))?;
        for (typed, answer) in [("operator", "password: "), (PASSWORD, PROMPT)] {
            self.vm(id).serial.send(&format!("{typed}\r"))?;
            self.expect(id, answer, ANSWER_LIMIT).context("log in")?;
        }
        Ok(())
    }

    fn ask_for_login(&mut self, id: BoxId) -> Result<()> {
        self.vm(id).serial.skip();
        self.vm(id).serial.send("\r")?;
        self.wait_for("the log-in prompt", ANSWER_LIMIT, |world| {
            let serial = &mut world.vm(id).serial;
            ensure!(serial.take_through("Log-in is disabled").is_none(), "the console lets nobody in");
            Ok(serial.take_through("login: ").map(drop))
        })
    }

    /// Runs one command of a logged-in operator; what it printed.
    ///
    /// # Errors
    /// When no prompt follows.
    pub fn run(&mut self, id: BoxId, command: &str) -> Result<String> {
        self.vm(id).serial.skip();
        self.vm(id).serial.send(&format!("{command}\r"))?;
        let said = self.expect(id, PROMPT, ANSWER_LIMIT).with_context(|| format!("run {command:?}"))?;
        Ok(output_of_command(&said, PROMPT))
    }

    /// Gives a logged-in operator's new site file to the box; what it said.
    ///
    /// # Errors
    /// When no prompt follows.
    pub fn load_site(&mut self, id: BoxId, site: &str) -> Result<String> {
        self.vm(id).serial.skip();
        self.vm(id).serial.send("site load\r")?;
        self.expect(id, "It is not shown.\n", ANSWER_LIMIT).context("load a site file")?;
        self.vm(id).serial.send(&format!("{}\r.\r", site.trim_end().replace('\n', "\r")))?;
        let output = self.expect(id, PROMPT, ANSWER_LIMIT).context("load a site file")?;
        Ok(output.trim_end_matches(PROMPT).to_owned())
    }

    /// Opens the root shell of a logged-in operator; [`Self::shell`] uses it.
    ///
    /// # Errors
    /// When it does not open.
    pub fn open_shell(&mut self, id: BoxId) -> Result<()> {
        self.vm(id).serial.skip();
        self.vm(id).serial.send("shell\r")?;
        self.expect(id, ROOT_PROMPT, ANSWER_LIMIT).context("open the root shell").map(drop)
    }

    /// Runs one line in the root shell; what it printed.
    ///
    /// # Errors
    /// When no prompt follows.
    pub fn shell(&mut self, id: BoxId, line: &str) -> Result<String> {
        self.shell_within(id, line, ANSWER_LIMIT)
    }

    /// The same of a line that takes its time; one that takes more than `limit` is interrupted.
    ///
    /// # Errors
    /// When it does not end within `limit`.
    pub fn shell_within(&mut self, id: BoxId, line: &str, limit: Duration) -> Result<String> {
        self.vm(id).serial.skip();
        self.vm(id).serial.send(&format!("{line}\r"))?;
        match self.expect(id, ROOT_PROMPT, limit) {
            Ok(said) => Ok(output_of_command(&said, ROOT_PROMPT)),
            Err(error) => {
                self.vm(id).serial.send(INTERRUPT)?;
                self.expect(id, ROOT_PROMPT, ANSWER_LIMIT)
                    .context("interrupt it")
                    .map_or_else(Err, |_| Err(error))
                    .with_context(|| format!("run {line:?}"))
            }
        }
    }
}

/// What a command printed, of everything from its echo to the next prompt.
fn output_of_command(said: &str, prompt: &str) -> String {
    let said = without_kernel_messages(said);
    let output = said.strip_suffix(prompt).unwrap_or(&said);
    // The first line is the echo of the command.
    output.split_once('\n').map_or("", |(_, rest)| rest).to_owned()
}

/// The kernel writes each message in one piece, wherever another program's line has got to.
fn without_kernel_messages(said: &str) -> String {
    let mut kept = String::with_capacity(said.len());
    let mut rest = said;
    while let Some(start) = rest.find('[') {
        let (before, from_bracket) = rest.split_at(start);
        kept.push_str(before);
        rest = match kernel_message(from_bracket) {
            Some(message) => &from_bracket[message.len()..],
            None => {
                kept.push('[');
                &from_bracket[1..]
            }
        };
    }
    kept + rest
}

/// The whole line when it begins like `[  284.928525] `: seconds since the boot in at least five places.
fn kernel_message(text: &str) -> Option<&str> {
    let (stamp, _) = text.strip_prefix('[')?.split_once("] ")?;
    let (seconds, micros) = stamp.split_once('.')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_stamp =
        seconds.len() >= 5 && is_number(seconds.trim_start()) && micros.len() == 6 && is_number(micros);
    is_stamp.then(|| text.split_inclusive('\n').next()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_s_message_anywhere_is_no_output() {
        let said = "echo $((1[    1.000001] a\n+2))\n[  284.928525] kontor: b\n150 1[12345.000000] [x] c\n49 [1.5] [\nroot# ";
        assert_eq!(output_of_command(said, ROOT_PROMPT), "150 149 [1.5] [\n");
    }
}

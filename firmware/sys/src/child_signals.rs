//! Children that can be stopped: they begin with no signal blocked.
//!
//! A process that reads its signals from a file descriptor has them blocked, a child inherits that, and
//! a program that knows nothing of it then never sees SIGTERM.

use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::SigSet;

/// Makes the child of `command` begin with an empty signal mask.
pub fn unblock_in_child(command: &mut Command) -> &mut Command {
    let none = SigSet::empty();
    // SAFETY: between fork and exec only pthread_sigmask is called, which is async-signal-safe, on a value
    // made before the fork; an error becomes a plain number.
    unsafe { command.pre_exec(move || none.thread_set_mask().map_err(std::io::Error::from)) }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::Signal;

    use super::*;
    use crate::signal::Signals;

    #[test]
    fn blocked_here_is_not_blocked_there() {
        let _signals = Signals::new(&[Signal::SIGTERM]).unwrap();
        let output = unblock_in_child(Command::new("cat").arg("/proc/self/status")).output().unwrap();
        let status = String::from_utf8(output.stdout).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap().trim();
        assert_eq!(mask, "0000000000000000");
    }
}

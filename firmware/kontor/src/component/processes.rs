//! Who belongs to a service: every service is the leader of a session, and children stay in it.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Parent and session of a process (proc_pid_stat(5), fields 4 and 6).
fn parent_and_session(pid: i32) -> Option<(i32, i32)> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse(stat: &str) -> Option<(i32, i32)> {
    // The name may hold spaces and parentheses; the last one closes it.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(1);
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some((parent, session))
}

/// The session's leader.
pub(super) fn leader_of(pid: i32) -> Option<u32> {
    u32::try_from(parent_and_session(pid)?.1).ok()
}

/// Kills every process of a session, and those that a daemon of it has sent into sessions of their own while it lived.
pub(super) fn kill_session(leader: u32) {
    let Ok(leader) = i32::try_from(leader) else { return };
    let Ok(entries) = fs::read_dir("/proc") else { return };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    for pid in pids.filter(|pid| *pid > 1) {
        if parent_and_session(pid).is_some_and(|(parent, session)| session == leader || parent == leader) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_confuse_the_fields() {
        assert_eq!(parse("12 (a b) ) S 7 12 9 0 -1 4194560"), Some((7, 9)));
        assert_eq!(parse("12 (sh) S 7"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn our_own_session_is_found() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(leader_of(own).is_some());
    }
}

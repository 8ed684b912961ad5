//! Who belongs to a service: its session, of which it is the leader, and when it has ended the orphans it left.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::wait;
use nix::unistd::Pid;

/// Killed ones are seen again until they have died; somebody who still forks has lost against this many looks.
const MAX_LOOKS: usize = 8;
/// On a busy machine a killed process takes its time to die, and only then are its children orphans. One that a dead disk keeps is
/// not waited for any longer.
const DYING: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(5);

/// Parent and session of a living process (proc_pid_stat(5), fields 4 and 6).
fn parent_and_session(pid: i32) -> Option<(i32, i32)> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse(stat: &str) -> Option<(i32, i32)> {
    // The name may hold spaces and parentheses; the last one closes it.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    // A zombie is beyond being killed.
    fields.next().filter(|state| *state != "Z")?;
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some((parent, session))
}

/// The session's leader.
pub(super) fn leader_of(pid: i32) -> Option<u32> {
    u32::try_from(parent_and_session(pid)?.1).ok()
}

/// Kills every process of a session.
pub(super) fn kill_session(leader: u32) {
    kill_all(Duration::ZERO, |_, session| session == leader);
}

/// Kills what a service that has ended left behind: its session, and the orphans, which are process 1's now, but those
/// in the session of a service that lives. What an operator runs has its parent outside and is spared.
pub(super) fn kill_leftovers(leader: u32, living: &[u32]) {
    kill_all(DYING, |parent, session| session == leader || parent == 1 && !living.contains(&session));
}

/// Before process 1 ends by itself: the lock on the state directory must outlive whoever works in it.
pub(super) fn end_everybody() {
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    while wait().is_ok() {}
}

/// Until a look finds nobody: one that forks meanwhile has its child found by the next, and so has one that dies.
fn kill_all(patience: Duration, is_meant: impl Fn(u32, u32) -> bool) {
    let (own, start) = (std::process::id(), Instant::now());
    for look in 1.. {
        let Ok(entries) = fs::read_dir("/proc") else { return };
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let meant = |pid: &i32| {
            let (parent, session) = parent_and_session(*pid)?;
            Some(is_meant(parent.try_into().ok()?, session.try_into().ok()?))
        };
        let found: Vec<i32> =
            pids.filter(|pid| pid.unsigned_abs() != own && meant(pid) == Some(true)).collect();
        let killed = found.iter().filter(|pid| kill(Pid::from_raw(**pid), Signal::SIGKILL).is_ok()).count();
        if killed == 0 || look >= MAX_LOOKS && start.elapsed() >= patience {
            return;
        }
        if look >= MAX_LOOKS {
            std::thread::sleep(PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_confuse_the_fields() {
        assert_eq!(parse("12 (a b) ) S 7 12 9 0 -1 4194560"), Some((7, 9)));
        assert_eq!(parse("12 (sh) Z 7 12 9 0"), None);
        assert_eq!(parse("12 (sh) S 7"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn our_own_session_is_found() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(leader_of(own).is_some());
    }
}

//! The services' control groups, watched: who was killed for want of memory, and who forks without end.

use kontor_supervise::{Exit, Id};
use kontor_sys::cgroup::{Cgroup, Events, Limits};
use nix::sys::signal::Signal;

use super::services::{SHELL, SHELL_LIMITS, Service};

/// What each group had met when it was last looked at.
#[derive(Debug)]
pub(super) struct Groups {
    groups: Vec<(Cgroup, Limits, Events)>,
    /// Services for which one process too many is no fault.
    growing: Vec<Id>,
    shell: (Cgroup, Events),
    /// Whether root shells were killed when they were last looked at: what the dying were refused since is no news.
    shells_killed: bool,
}

impl Groups {
    /// Of these services; nothing has happened in them yet.
    pub(super) fn new(services: &[Service]) -> Self {
        let group = |service: &Service| (Cgroup::of(service.spec.name), service.limits, Events::default());
        Self {
            groups: services.iter().map(group).collect(),
            growing: (0..services.len()).filter(|id| services[*id].grows).collect(),
            shell: (Cgroup::of(SHELL), Events::default()),
            shells_killed: false,
        }
    }

    /// How a service's process really ended: SIGKILL may be the kernel's answer to its greed.
    pub(super) fn explain(&mut self, id: Id, exit: Exit) -> Exit {
        if exit != Exit::Signal(Signal::SIGKILL as i32) {
            return exit;
        }
        let (group, limits, before) = &mut self.groups[id];
        let now = group.events();
        let was = std::mem::replace(before, now);
        if now.memory_kills == was.memory_kills {
            exit
        } else if now.out_of_memory > was.out_of_memory {
            Exit::MemoryLimit { mib: limits.memory_mib }
        } else {
            Exit::OutOfMemory
        }
    }

    /// Services that wanted more processes than they may have since this was asked last, and why that is
    /// their end: each has a fixed number of threads, so this one has lost control of itself.
    pub(super) fn runaways(&mut self) -> Vec<(Id, String)> {
        let mut found = Vec::new();
        for (id, (group, limits, before)) in self.groups.iter_mut().enumerate() {
            let refused = group.events().refused_processes;
            let more = refused > std::mem::replace(&mut before.refused_processes, refused);
            if more && !self.growing.contains(&id) {
                found.push((id, format!("more than {} processes", limits.pids)));
            }
        }
        found
    }

    /// Ends an operator's root shell that forks without end; what to report then.
    pub(super) fn stop_runaway_shell(&mut self) -> Option<String> {
        let (group, before) = &mut self.shell;
        let now = group.events();
        let was = std::mem::replace(before, now);
        let killed_before = std::mem::take(&mut self.shells_killed);
        if now.refused_processes > was.refused_processes && !killed_before {
            self.shells_killed = true;
            // Fails when the group is empty by now.
            let _ = group.kill();
            return Some(format!("root shell: more than {} processes, killed", SHELL_LIMITS.pids));
        }
        (now.memory_kills > was.memory_kills).then(|| "root shell: killed, out of memory".to_owned())
    }
}

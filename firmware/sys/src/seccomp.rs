//! System calls that confined services do not need, and that have let programs out of their confinement before
//! (seccomp(2), `linux/seccomp.h`).
//!
//! A filter of what is denied, not of what is allowed: Samba and Python use what they like, and a new release of the C library
//! must not stop an office. What is denied either needs a capability that no such service has, or is a part of the kernel
//! that none of them uses. It is no wall between services of the same user: those see each other by /proc. The kernel remembers which calls pass always, so that these cost nothing.

use std::io;

/// Refused as one that the user may not make.
const DENIED: [libc::c_long; 38] = [
    // Other views of the system, and other roots.
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    // The kernel itself.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_vhangup,
    // Keys of the kernel, which are not divided by name spaces.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Other processes' memory and files.
    libc::SYS_pidfd_getfd,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_lookup_dcookie,
];

/// Refused as one that the kernel does not know, so that programs use the older way: a filter cannot see what
/// the first of them is asked for, and the others do files and sockets past every filter.
const UNKNOWN: [libc::c_long; 4] =
    [libc::SYS_clone3, libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

/// Every flag of clone(2) and unshare(2) that asks for a name space.
const NEW_SPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;

/// `AUDIT_ARCH_X86_64` (`linux/audit.h`).
const X86_64: u32 = 0xC000_003E;
/// The bit of x32's system calls, another set of numbers for the same calls.
const X32: u32 = 0x4000_0000;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const IF_ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Instructions before the lists, and after them.
const HEAD: usize = 6;
const TAIL: usize = 7;
const LENGTH: usize = HEAD + DENIED.len() + UNKNOWN.len() + TAIL;
/// Where the tail's parts begin.
const ALLOW: usize = LENGTH - TAIL;
const CLONE: usize = ALLOW + 1;
const DENY: usize = LENGTH - 3;
const NOT_KNOWN: usize = LENGTH - 2;
const KILL: usize = LENGTH - 1;

static PROGRAM: [libc::sock_filter; LENGTH] = program();

/// Denies them to this process and all it starts, for good. It must have given up gaining privileges.
///
/// Async-signal-safe: one system call on constants.
///
/// # Errors
/// When the kernel has no such filters, or privileges may still be gained.
pub(crate) fn install() -> io::Result<()> {
    let program = libc::sock_fprog { len: LENGTH as u16, filter: PROGRAM.as_ptr().cast_mut() };
    // SAFETY: the kernel copies the program, which is static, and writes nothing.
    let result =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

const fn program() -> [libc::sock_filter; LENGTH] {
    let mut code = [returning(libc::SECCOMP_RET_ALLOW); LENGTH];
    code[0] = instruction(LOAD, ARCHITECTURE);
    code[1] = unless(1, IF_EQUAL, X86_64, KILL);
    code[2] = instruction(LOAD, NUMBER);
    code[3] = when(3, IF_AT_LEAST, X32, NOT_KNOWN);
    code[4] = when(4, IF_EQUAL, libc::SYS_clone as u32, CLONE);
    // Samba's threads have working directories of their own by this one.
    code[5] = when(5, IF_EQUAL, libc::SYS_unshare as u32, CLONE);
    let mut at = HEAD;
    while at < ALLOW {
        let index = at - HEAD;
        code[at] = if index < DENIED.len() {
            when(at, IF_EQUAL, DENIED[index] as u32, DENY)
        } else {
            when(at, IF_EQUAL, UNKNOWN[index - DENIED.len()] as u32, NOT_KNOWN)
        };
        at += 1;
    }
    code[CLONE] = instruction(LOAD, FIRST_ARGUMENT);
    // What follows allows it.
    code[CLONE + 1] = when(CLONE + 1, IF_ANY_BIT, NEW_SPACES, DENY);
    code[DENY] = returning(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
    code[NOT_KNOWN] = returning(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);
    code[KILL] = returning(libc::SECCOMP_RET_KILL_PROCESS);
    code
}

const fn instruction(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: 0, k }
}

const fn returning(action: u32) -> libc::sock_filter {
    instruction(RETURN, action)
}

/// Goes to `target` when the test holds, else on.
const fn when(at: usize, test: u16, k: u32, target: usize) -> libc::sock_filter {
    libc::sock_filter { code: test, jt: distance(at, target), jf: 0, k }
}

/// Goes to `target` unless the test holds.
const fn unless(at: usize, test: u16, k: u32, target: usize) -> libc::sock_filter {
    libc::sock_filter { code: test, jt: 0, jf: distance(at, target), k }
}

const fn distance(at: usize, target: usize) -> u8 {
    let distance = target - at - 1;
    assert!(distance <= u8::MAX as usize, "a jump has eight bits");
    distance as u8
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::*;

    /// What a child, with the filter, finds `call` to answer.
    fn answer(call: fn() -> libc::c_long) -> io::Result<()> {
        let mut command = Command::new("/bin/true");
        let filtered = move || {
            // SAFETY: a plain system call on integers.
            unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
            install()?;
            if call() < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
        };
        // SAFETY: between fork and exec only system calls are made.
        unsafe { command.pre_exec(filtered) };
        let status = command.spawn()?.wait()?;
        assert!(status.success(), "{status}");
        Ok(())
    }

    #[test]
    fn what_everybody_needs_passes_and_a_program_starts() {
        // SAFETY: system calls on integers.
        answer(|| unsafe { libc::syscall(libc::SYS_getpid) }).unwrap();
        // SAFETY: the same.
        answer(|| unsafe { libc::syscall(libc::SYS_unshare, libc::CLONE_FS) }).unwrap();
    }

    #[test]
    fn what_nobody_needs_is_denied_or_not_known() {
        // SAFETY: system calls on integers, which are denied before they do anything.
        let calls: [(fn() -> libc::c_long, i32); 5] = unsafe {
            [
                (|| libc::syscall(libc::SYS_unshare, libc::CLONE_NEWUSER), libc::EPERM),
                (|| libc::syscall(libc::SYS_clone, libc::CLONE_NEWUSER, 0, 0, 0, 0), libc::EPERM),
                (|| libc::syscall(libc::SYS_lookup_dcookie, 0, 0, 0), libc::EPERM),
                (|| libc::syscall(libc::SYS_clone3, 0, 0), libc::ENOSYS),
                (|| libc::syscall(X32 as libc::c_long | libc::SYS_getpid), libc::ENOSYS),
            ]
        };
        for (call, expected) in calls {
            assert_eq!(answer(call).unwrap_err().raw_os_error(), Some(expected));
        }
    }

    #[test]
    fn every_jump_ends_inside() {
        assert!(
            PROGRAM
                .iter()
                .enumerate()
                .all(|(at, one)| at + 1 + usize::from(one.jt.max(one.jf)) < LENGTH || one.code == RETURN)
        );
        assert_eq!(PROGRAM[ALLOW].k, libc::SECCOMP_RET_ALLOW);
        assert_eq!(PROGRAM[CLONE + 2].k, libc::SECCOMP_RET_ALLOW);
    }
}

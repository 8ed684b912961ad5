//! Stage 2, before the services: the mounts, settings and directories they all expect.
//!
//! Every step is on its own: one that fails is reported, and the boot goes on.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kontor_status::paths;
use kontor_sys::cgroup::Cgroup;
use nix::mount::{MsFlags, mount};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};

use super::{kmsg, services};

const RELEASE: &str = "/usr/share/kontor/release.toml";

/// What the base says about itself.
#[derive(Debug, Default)]
pub(super) struct Release {
    /// Firmware version.
    pub(super) version: String,
    /// When it was built; the clock is never before it.
    pub(super) built_at: Duration,
}

/// What was tried in vain, for the error list.
#[derive(Debug, Default)]
struct Attempts(Vec<String>);

impl Attempts {
    fn attempt(&mut self, what: &str, result: io::Result<()>) {
        self.0.extend(result.err().map(|error| format!("{what}: {error}")));
    }
}

/// Brings the machine to where the services can run that bring up the office; returns the problems for the error list.
pub(super) fn prepare() -> Vec<String> {
    let mut steps = Attempts::default();
    // Bounded like those of [`complete`].
    steps.attempt("cannot mount /run", mount_tmpfs("/run", "mode=0755,size=8%,nr_inodes=4k"));
    steps.attempt(paths::RUN, fs::create_dir_all(paths::RUN));
    // Otherwise each process that enters its group waits until all processors have passed through the scheduler; the price
    // is an atomic operation at each start and end of a process.
    let groups = mount_new("cgroup2", kontor_sys::cgroup::ROOT, Some("favordynmods"));
    steps.attempt("cannot mount control groups", groups);
    steps.attempt("cannot prepare control groups", kontor_sys::cgroup::prepare(memory_mib() / 8 * 7));
    // The box's own programs ask its DNS service there, and components speak with each other.
    steps.attempt("cannot set the loopback up", kontor_sys::interface::loopback_up());
    // What services log early must not be lost to the kernel's rate limit.
    steps.attempt("cannot set kernel.printk_devkmsg", fs::write("/proc/sys/kernel/printk_devkmsg", "on\n"));
    // A kernel that has lost its way is started again (and GRUB counts the try), not trusted any further.
    steps.attempt("cannot set kernel.panic", fs::write("/proc/sys/kernel/panic", "10"));
    steps.attempt("cannot set kernel.panic_on_oops", fs::write("/proc/sys/kernel/panic_on_oops", "1"));
    // A break on the serial line, or a cat on the keyboard, must not reboot the office.
    steps.attempt("cannot set kernel.sysrq", fs::write("/proc/sys/kernel/sysrq", "0"));
    // Nobody on the box needs one, and in there a process has every capability.
    steps.attempt("cannot forbid user name spaces", fs::write("/proc/sys/user/max_user_namespaces", "0"));
    // Ctrl-Alt-Del becomes a signal to PID 1 instead of an instant reboot.
    steps.attempt("cannot take Ctrl-Alt-Del", nix::sys::reboot::set_cad_enabled(false).map_err(Into::into));
    steps.attempt("cannot open /dev/null", use_null_streams());
    steps.0
}

/// The rest, which nobody needs before the late services.
pub(super) fn complete() -> Vec<String> {
    let mut steps = Attempts::default();
    // Bounded, in bytes and in files: whoever fills one of them, or all, leaves the box most of its memory.
    for (target, options) in [
        ("/tmp", "mode=1777,size=8%,nr_inodes=4k"),
        ("/var", "mode=0755,size=4%,nr_inodes=4k"),
        ("/dev/shm", "mode=1777,size=4%,nr_inodes=1k"),
    ] {
        steps.attempt(&format!("cannot mount {target}"), mount_tmpfs(target, options));
    }
    steps.attempt("cannot mount /dev/pts", mount_new("devpts", "/dev/pts", Some("mode=0620,ptmxmode=0666")));
    steps.attempt("cannot limit the root shell", limit_shell());
    for directory in ["/var/lib", "/var/log", "/var/cache", "/var/tmp"] {
        steps.attempt(directory, fs::create_dir_all(directory));
    }
    steps.attempt("/var/run", std::os::unix::fs::symlink("/run", "/var/run"));
    steps.attempt("/var/tmp", fs::set_permissions("/var/tmp", fs::Permissions::from_mode(0o1777)));
    // Want of memory costs one service, which comes back.
    steps.attempt("cannot set vm.panic_on_oom", fs::write("/proc/sys/vm/panic_on_oom", "0"));
    steps.attempt("cannot set the host name", nix::unistd::sethostname("kontor").map_err(Into::into));
    steps.0
}

/// The kernel asks for modules by running this program (see `modules::request`): before the first driver is inserted.
pub(super) fn be_modprobe() {
    if let Err(error) = fs::write("/proc/sys/kernel/modprobe", "/usr/sbin/kontor") {
        kmsg::error(&format!("cannot set kernel.modprobe: {error}"));
    }
}

/// RAM the kernel has left for all of us, in MiB; a small guess when it does not say.
pub(super) fn memory_mib() -> u32 {
    const GUESS: u64 = 192;
    let bytes = nix::sys::sysinfo::sysinfo().map_or(GUESS << 20, |info| info.ram_total());
    u32::try_from(bytes >> 20).unwrap_or(u32::MAX)
}

/// The group the console puts an operator's root shell into.
fn limit_shell() -> io::Result<()> {
    let limits = services::bounded(services::SHELL_LIMITS, memory_mib());
    Cgroup::of(services::SHELL).open(limits).map(drop)
}

pub(super) fn mount_tmpfs(target: &str, options: &str) -> io::Result<()> {
    mount_new("tmpfs", target, Some(options))
}

fn mount_new(kind: &str, target: &str, options: Option<&str>) -> io::Result<()> {
    // The root is read-only: mount points below it exist already.
    let _ = fs::create_dir(target);
    let flags = MsFlags::MS_NOSUID | if kind == "devpts" { MsFlags::empty() } else { MsFlags::MS_NODEV };
    Ok(mount(Some(kind), target, Some(kind), flags, options)?)
}

/// A blocking console (flow control on a serial line) must never block PID 1.
fn use_null_streams() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    Ok(())
}

/// Reads the release file; a damaged one costs its values, not the boot.
pub(super) fn release() -> Release {
    let text = fs::read_to_string(RELEASE).unwrap_or_default();
    let table: toml::Table = toml::from_str(&text).unwrap_or_default();
    let version = table.get("version").and_then(toml::Value::as_str).unwrap_or("unknown").to_owned();
    let built = table.get("epoch-s").and_then(toml::Value::as_integer).unwrap_or(0);
    Release { version, built_at: Duration::from_secs(u64::try_from(built).unwrap_or(0)) }
}

/// A clock that is further ahead of the release than this is wrong: no box runs a release of that age, and
/// believing 2099 would make every certificate an expired one.
const BELIEVABLE_YEARS: u32 = 15;
const YEAR: Duration = Duration::from_secs(365 * 86_400 + 86_400 / 4);

/// Whether a box with a release of `built_at` can live at `time`.
pub(crate) fn is_believable(time: Duration, built_at: Duration) -> bool {
    time >= built_at && time < built_at + BELIEVABLE_YEARS * YEAR
}

/// No certificate and no signature is valid before the day this release was built; a clock chip that claims
/// that, or a far future, is ignored until a time server has spoken.
pub(super) fn bound_clock(built_at: Duration) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    if !is_believable(now, built_at) {
        kmsg::info(&format!("the clock says {} s since 1970: set to the day of the build", now.as_secs()));
        if let Err(error) = clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from(built_at)) {
            kmsg::error(&format!("cannot set the clock: {error}"));
        }
    }
}

/// When the release that runs was built.
pub(crate) fn built_at() -> Duration {
    release().built_at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_1970_nor_2099_is_believed() {
        let built = Duration::from_secs(1_795_284_245); // 2026
        for (seconds, expect) in [
            (0, false),
            (1_795_284_244, false),
            (1_795_284_245, true),
            (2_051_222_400, true),  // 2035
            (4_070_908_800, false), // 2099
        ] {
            assert_eq!(is_believable(Duration::from_secs(seconds), built), expect, "{seconds}");
        }
    }
}

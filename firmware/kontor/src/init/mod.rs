//! The `init` applet: PID 1.
//!
//! Stage 1 goes from the initial RAM file system to the sealed base; stage 2 mounts what services need and
//! supervises them for ever. PID 1 parses nothing that comes from outside the sealed base, waits for nothing
//! but `poll`, and never ends: a panic in its loop is reported and the loop goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use kontor_component::{SHIPPED_DIRECTORY, Shipped};

mod board;
mod command;
mod control;
mod groups;
mod hardware;
mod kmsg;
mod logs;
pub(crate) mod modules;
pub(crate) mod office;
mod process;
mod runner;
mod services;
mod shutdown;
mod stage1;
mod stage2;

use runner::Runner;
pub(crate) use runner::{next_exit, now, send};
pub(crate) use services::SHELL;
pub(crate) use stage2::{built_at, is_believable};

/// After a panic, so that one that repeats does not take the whole processor.
const PANIC_PAUSE: Duration = Duration::from_millis(200);
/// PID 1 without its sockets tries again at this pace.
const RETRY: Duration = Duration::from_secs(5);

pub(crate) fn pid1(args: &[String]) -> ExitCode {
    if std::process::id() != 1 {
        eprintln!("kontor init: only the kernel starts this, as process 1");
        return ExitCode::from(2);
    }
    std::panic::set_hook(Box::new(|info| kmsg::error(&format!("PID 1 panicked: {info}"))));
    // Only stage 1 passes exactly this; what the kernel passes on from its command line is ignored.
    if args == ["init"] { stage2() } else { stage1::run() }
}

fn stage2() -> ! {
    guarded(stage2::be_modprobe);
    guarded(stage1::start_urgent);
    let mut problems = guarded(stage2::prepare).unwrap_or_default();
    let release = guarded(stage2::release).unwrap_or_default();
    let board = guarded(board::choose).unwrap_or_default();
    guarded(|| stage2::bound_clock(release.built_at));
    let components = || Shipped::load_all(Path::new(SHIPPED_DIRECTORY));
    let (components, damaged) = guarded(components).unwrap_or_default();
    problems.extend(damaged);
    let services = services::all(&board.console_devices, &components, stage2::memory_mib());
    for service in &services {
        let name = service.spec.name;
        problems.extend(process::prepare(service).err().map(|error| format!("{name}: {error}")));
    }
    let mut runner = loop {
        let services = services.clone();
        match guarded(|| Runner::new(release.version.clone(), board.name.clone(), services)) {
            Some(Ok(runner)) => break runner,
            Some(Err(error)) => kmsg::error(&format!("cannot start the supervisor: {error:#}")),
            None => {}
        }
        std::thread::sleep(RETRY);
    };
    problems.iter().for_each(|problem| runner.report(problem));
    loop {
        if guarded(|| runner.turn()).is_none() {
            std::thread::sleep(PANIC_PAUSE);
        }
    }
}

/// Runs `work`; nothing when it panicked (the hook has reported it).
fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}

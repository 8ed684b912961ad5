//! What makes a release a bad one, in tests: it stands in the place of `/init`, starts a script as root in the running system, and
//! lets the real process 1 go on. Compiled by the tests themselves, without any crate.
//!
//! `/sabotage` is the script, or `exit`: then process 1 ends; or `no modules`: then the kernel loads none. `/program` is the
//! real process 1.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

/// Looked for this often: stage 1 lasts some hundredths of a second.
const EVERY: Duration = Duration::from_millis(1);

fn main() {
    let script = fs::read_to_string("/sabotage").unwrap_or_default();
    if std::process::id() != 1 {
        return sabotage(&script);
    }
    if script.trim() == "exit" {
        return;
    }
    // Not to be there is no fault of the test's that it could repair: the release is then a good one, and the test fails.
    let _ = Command::new("/init").spawn();
    let _ = fs::rename("/init", "/saboteur");
    let _ = fs::rename("/program", "/init");
    let error = Command::new("/init").args(env::args().skip(1)).exec();
    println!("saboteur: {error}");
}

/// Follows process 1 into the new root. /proc moves there, too, and whoever is in it moves along.
fn sabotage(script: &str) {
    wait_for("/proc/mounts");
    let _ = env::set_current_dir("/proc");
    wait_for("1/root/usr/bin/busybox");
    if script.trim() == "no modules" {
        let done = fs::write("sys/kernel/modules_disabled", "1");
        return println!("saboteur: no modules: {done:?}");
    }
    let _ = std::os::unix::fs::chroot("1/root");
    let _ = env::set_current_dir("/");
    let error = Command::new("/usr/bin/busybox").args(["sh", "-c", script]).exec();
    println!("saboteur: {error}");
}

fn wait_for(path: &str) {
    while !Path::new(path).exists() {
        std::thread::park_timeout(EVERY);
    }
}

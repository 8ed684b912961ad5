//! The firmware's one program: PID 1, its daemons and the operator's commands.
//!
//! This file only chooses the applet. As PID 1 (or as `/init`) it is `init`; otherwise the first argument
//! names the applet. Each applet lives in its own module and holds the sockets, the clock and the files;
//! decisions are in the library crates beside this one.

use std::process::ExitCode;

mod calendar;
mod component;
mod console;
mod ctl;
mod dhcpd;
mod dnsd;
mod init;
mod install;
mod netd;
mod resolver;
mod site;
mod storage;
mod timed;
mod updated;

const USAGE: &str = "usage: kontor <applet> [arguments]

applets:
  init       PID 1: early boot, then supervision
  modules    loads drivers, now and when devices appear
  netd       links, addresses, routes, firewall, WAN DHCP client
  dhcpd      DHCPv4 server
  dnsd       DNS forwarder and local zones
  timed      clock: renders chrony's configuration and runs it
  storage    finds, grows and mounts the partitions (one-shot)
  install    puts a box that runs from a stick on the machine's disk, as its seed orders (one-shot)
  site       validates and applies site files
  updated    releases: fetches, checks and installs them, and judges a new one
  component  runs a component in name spaces of its own, and programs in it
  console    status console
  ctl        operator's commands (`kontor ctl --help`)";

fn main() -> ExitCode {
    let mut words = std::env::args();
    let called = words.next().unwrap_or_default();
    let mut args: Vec<String> = words.collect();
    if called == component::INSIDE {
        return ended("component", component::inside(&args));
    }
    if std::process::id() == 1 {
        return init::pid1(&args);
    }
    let applet = if args.is_empty() { String::new() } else { args.remove(0) };
    let result = match applet.as_str() {
        "init" => return init::pid1(&args),
        "modules" => init::modules::run(&args),
        // The kernel's call of `kernel.modprobe`: `-q -- ALIAS`.
        "-q" => init::modules::request(&args),
        "netd" => netd::run(&args),
        "dhcpd" => dhcpd::run(&args),
        "dnsd" => dnsd::run(&args),
        "timed" => timed::run(&args),
        "storage" => storage::run(&args),
        "site" => site::run(&args),
        "install" => install::run(&args),
        "component" => component::run(&args),
        "updated" => updated::run(&args),
        "console" => console::run(&args),
        "ctl" => ctl::run(&args),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    ended(&applet, result)
}

fn ended(applet: &str, result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kontor {applet}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

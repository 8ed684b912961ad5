//! `bench memory`: the RAM of a whole running gateway, idle, its leases served (`docs/benchmarks.md`).
//!
//! Both boxes are asked in the same way: by a root shell on the serial console that only reads `/proc` and starts no
//! program. What the shell itself takes counts on both sides.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use camino::Utf8Path;
use serde_json::json;

use super::boot;
use super::guest::{Guest, Setup};
use super::ours::{BOOT_LIMIT, Ours, PASSWORD, READY};
use super::report::OURS;
use super::systemd::{self, Systemd};
use super::{Report, Subject, Summary, run as run_subjects};
use crate::command::bench::Common;

/// From ready to the measurement: what a start leaves behind is over by then.
const SETTLE: Duration = Duration::from_secs(30);
/// One answer of a console.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);
const BEGIN: &str = "==BEGIN==";
const END: &str = "==END==";
/// Shell built-ins only. The marks are typed in two parts, so that their echo is not taken for them.
const QUESTION: &str = "echo ==BEGIN''==; while read k v u; do echo $k $v; done </proc/meminfo; \
    for d in /proc/[0-9]*; do while read k v u; do [ \"$k\" = Pss: ] && read n <$d/comm && read g <$d/cgroup && \
    echo PSS $v $n $g; done <$d/smaps_rollup; done 2>/dev/null; echo ==END''==\r";

/// What a box says of its memory, in KiB.
#[derive(Debug, Clone, Default, PartialEq)]
struct Memory {
    total: f64,
    free: f64,
    available: f64,
    /// Every figure of /proc/meminfo (proc(5)), in KiB.
    kernel: BTreeMap<String, f64>,
    /// Proportional set size by process: what it has alone, and its part of what it shares.
    pss: Vec<(String, f64)>,
}

impl Memory {
    fn parse(answer: &str) -> Result<Self> {
        let mut memory = Self::default();
        for line in answer.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let number = || words.get(1).and_then(|word| word.parse::<f64>().ok());
            match (words.first(), number()) {
                (Some(&"PSS"), Some(value)) => memory.pss.push((process(&words[2..]), value)),
                (Some(name), Some(value)) if name.ends_with(':') => {
                    memory.kernel.insert(name.trim_end_matches(':').to_owned(), value);
                }
                _ => {}
            }
        }
        let kernel = |name: &str| memory.kernel.get(name).copied().unwrap_or_default();
        (memory.total, memory.free) = (kernel("MemTotal"), kernel("MemFree"));
        memory.available = kernel("MemAvailable");
        ensure!(
            memory.total > 0.0 && memory.free > 0.0 && memory.available > 0.0,
            "the box's answer is not complete:\n{answer}"
        );
        Ok(memory)
    }

    fn used(&self) -> f64 {
        self.total - self.available
    }

    fn not_free(&self) -> f64 {
        self.total - self.free
    }

    fn processes(&self) -> f64 {
        self.pss.iter().map(|(_, pss)| pss).sum()
    }
}

/// `kontor (netd)` from the process's name and its control group.
fn process(words: &[&str]) -> String {
    let (group, name) =
        words.split_last().map_or(("", ""), |(group, name)| (*group, name.first().copied().unwrap_or("")));
    let service = group.rsplit('/').next().unwrap_or_default().trim_end_matches(".service");
    format!("{name} ({service})")
}

/// Measures.
///
/// # Errors
/// When a subject cannot be built, does not come up or does not answer.
pub fn run(common: &Common) -> Result<Report> {
    let (folder, _claim) = boot::folder()?;
    let folder = Utf8Path::from_path(folder.path()).context("the target folder's path is not UTF-8")?;
    let ours = Ours::prepare(folder, &common.fetch)?;
    let peer = Systemd::prepare(folder, &common.fetch)?;
    let seen = RefCell::new(BTreeMap::<&str, Vec<Memory>>::new());
    let note = |name: &'static str, memory: Memory| {
        let used = memory.used();
        seen.borrow_mut().entry(name).or_default().push(memory);
        used
    };
    let subjects = vec![
        Subject::new(OURS, |_| Ok(note(OURS, of_ours(&ours)?))),
        Subject::new("floor", |_| Ok(note("floor", of_floor(&ours, &peer.floor_setup())?))),
        Subject::new("systemd", |_| Ok(note("systemd", of_peer(&ours, &peer.direct_setup())?))),
        Subject::new("systemd_in_ram", |_| Ok(note("systemd_in_ram", of_peer(&ours, &peer.in_ram_setup())?))),
    ];
    let samples = run_subjects(common.rounds, "KiB", subjects)?;
    let mut report = Report::new("memory", "KiB", &samples)?;
    for (name, memories) in seen.into_inner() {
        report.detail.insert(name.to_owned(), detail(&memories)?);
    }
    Ok(report)
}

/// The other ways to count, and the processes of the last round, largest first.
fn detail(memories: &[Memory]) -> Result<serde_json::Value> {
    let summary = |of: fn(&Memory) -> f64| {
        Summary::of(&memories.iter().map(of).collect::<Vec<_>>()).context("there are no samples")
    };
    let last = memories.last().context("there are no samples")?;
    let mut pss = last.pss.clone();
    pss.sort_by(|a, b| b.1.total_cmp(&a.1));
    Ok(json!({
        "total_minus_available": summary(Memory::used)?,
        "total_minus_free": summary(Memory::not_free)?,
        "sum_of_pss": summary(Memory::processes)?,
        "total": summary(|memory| memory.total)?,
        "meminfo": last.kernel,
        "pss": pss,
    }))
}

fn of_ours(ours: &Ours) -> Result<Memory> {
    let mut guest = Guest::start(&ours.tools, ours.accel, &ours.direct_setup())?;
    guest.run_until("the first lease", BOOT_LIMIT, |guest| guest.leased.is_some())?;
    guest.expect(READY, BOOT_LIMIT)?;
    settle(&mut guest)?;
    guest.type_text("\r")?;
    for (question, answer) in [("login: ", "operator"), ("password: ", PASSWORD), ("kontor> ", "shell")] {
        guest.expect(question, ANSWER_LIMIT)?;
        guest.type_text(&format!("{answer}\r"))?;
    }
    guest.expect("root# ", ANSWER_LIMIT)?;
    ask(&mut guest)
}

/// It asks for no lease and serves none.
fn of_floor(ours: &Ours, setup: &Setup) -> Result<Memory> {
    let mut guest = Guest::start(&ours.tools, ours.accel, setup)?;
    guest.expect(systemd::FLOOR_PROMPT, BOOT_LIMIT)?;
    settle(&mut guest)?;
    ask(&mut guest)
}

fn of_peer(ours: &Ours, setup: &Setup) -> Result<Memory> {
    let mut guest = Guest::start(&ours.tools, ours.accel, setup)?;
    guest.run_until("the first lease", BOOT_LIMIT, |guest| guest.leased.is_some())?;
    guest.expect(systemd::PROMPT, BOOT_LIMIT)?;
    settle(&mut guest)?;
    ask(&mut guest)
}

fn settle(guest: &mut Guest) -> Result<()> {
    let until = Instant::now() + SETTLE;
    guest.run_until("rest", SETTLE * 2, |_| Instant::now() >= until)
}

fn ask(guest: &mut Guest) -> Result<Memory> {
    guest.type_text(QUESTION)?;
    guest.expect(BEGIN, ANSWER_LIMIT)?;
    Memory::parse(&guest.expect(END, ANSWER_LIMIT)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_understood() {
        let answer = "\r\nMemTotal: 450000\r\nMemFree: 300000\r\nMemAvailable: 400000\r\n\
                      PSS 1200 kontor 0::/netd\r\nPSS 800 dnsmasq 0::/system.slice/dnsmasq.service\r\n";
        let memory = Memory::parse(answer).unwrap();
        assert_eq!((memory.used(), memory.not_free(), memory.processes()), (50000.0, 150_000.0, 2000.0));
        assert_eq!(memory.pss[1].0, "dnsmasq (dnsmasq)");
        assert!(Memory::parse("MemTotal: 1\r\n").is_err());
    }
}

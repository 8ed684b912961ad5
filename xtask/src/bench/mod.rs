//! Benchmarks: ours and the peers in turn, in one run, and what came out as text and JSON.
//!
//! A [`Subject`] is one thing measured; [`run`] takes every subject's sample in each round (A B A B), so that what the
//! machine does meanwhile touches all of them alike. Nothing here asserts a time.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

pub mod boot;
pub mod build;
pub mod delta;
pub mod dhcp;
pub mod floor;
pub mod guest;
pub mod memory;
pub mod ours;
mod program;
pub mod report;
pub mod samba;
pub mod samples;
pub mod systemd;

pub use report::Report;
pub use samples::Summary;

/// Fewest rounds a result may be drawn from.
pub const LEAST_ROUNDS: u32 = 5;

/// One thing that is measured.
pub struct Subject<'a> {
    /// `ours`, or the peer's name as it stands in the report.
    pub name: String,
    /// Takes one sample, in the report's unit. The argument is the round, from 0.
    pub sample: Box<dyn FnMut(u32) -> Result<f64> + 'a>,
}

impl<'a> Subject<'a> {
    /// A subject.
    pub fn new(name: &str, sample: impl FnMut(u32) -> Result<f64> + 'a) -> Self {
        Self { name: name.to_owned(), sample: Box::new(sample) }
    }
}

/// Takes `rounds` samples of every subject, in turn. Each sample is reported on standard error.
///
/// # Errors
/// When there are fewer than [`LEAST_ROUNDS`], or a subject fails; the error names it and the round.
pub fn run(rounds: u32, unit: &str, subjects: Vec<Subject<'_>>) -> Result<BTreeMap<String, Vec<f64>>> {
    ensure!(rounds >= LEAST_ROUNDS, "--rounds {rounds} is too few to say anything: at least {LEAST_ROUNDS}");
    let mut subjects = subjects;
    let mut samples = BTreeMap::<String, Vec<f64>>::new();
    for round in 0..rounds {
        for subject in &mut subjects {
            let value =
                (subject.sample)(round).with_context(|| format!("{}, round {}", subject.name, round + 1))?;
            eprintln!("round {}/{rounds}: {:<16} {value:>12.3} {unit}", round + 1, subject.name);
            samples.entry(subject.name.clone()).or_default().push(value);
        }
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn subjects_take_turns() {
        let order = RefCell::new(String::new());
        let subject = |name: &'static str| {
            let order = &order;
            Subject::new(name, move |round| {
                order.borrow_mut().push_str(name);
                Ok(f64::from(round))
            })
        };
        let samples = run(5, "s", vec![subject("a"), subject("b")]).unwrap();
        assert_eq!(*order.borrow(), "ababababab");
        assert_eq!(samples["a"], [0.0, 1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn too_few_rounds_and_a_failure_say_so() {
        let error = run(4, "s", Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "--rounds 4 is too few to say anything: at least 5");
        let broken = Subject::new("peer", |_| anyhow::bail!("no KVM"));
        assert_eq!(format!("{:#}", run(5, "s", vec![broken]).unwrap_err()), "peer, round 1: no KVM");
    }
}

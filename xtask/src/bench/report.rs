//! The result of one benchmark, as a table for people and as JSON for machines.
//!
//! The JSON is `{"bench", "unit", "ours": {"min", "median", "max"}, "peers": {NAME: {…}}, "ratio": {NAME: ours ÷ peer}}`;
//! figures beyond that shape go below `"detail"`.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, ensure};
use camino::Utf8Path;
use serde::Serialize;

use super::Summary;

/// The name of our own series.
pub const OURS: &str = "ours";

/// The result of one benchmark.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The benchmark's name, as on the command line.
    pub bench: String,
    /// What the figures are in (`s`, `KiB`, …).
    pub unit: String,
    /// Our figures.
    pub ours: Summary,
    /// The peers' figures.
    pub peers: BTreeMap<String, Summary>,
    /// Our median divided by the peer's; below 1, ours is less.
    pub ratio: BTreeMap<String, f64>,
    /// Further figures of this benchmark.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub detail: BTreeMap<String, serde_json::Value>,
}

impl Report {
    /// Sums up the series of one run; that named [`OURS`] is ours, all others are peers.
    ///
    /// # Errors
    /// When our series or a peer's is empty, or a peer's median is not positive.
    pub fn new(bench: &str, unit: &str, samples: &BTreeMap<String, Vec<f64>>) -> Result<Self> {
        let summary = |name: &str| {
            let series = samples.get(name).and_then(|series| Summary::of(series));
            series.with_context(|| format!("bench {bench}: there are no samples of {name}"))
        };
        let ours = summary(OURS)?;
        let (mut peers, mut ratio) = (BTreeMap::new(), BTreeMap::new());
        for name in samples.keys().filter(|name| *name != OURS) {
            let peer = summary(name)?;
            ensure!(peer.median > 0.0, "bench {bench}: the median of {name} is {}", peer.median);
            ratio.insert(name.clone(), ours.median / peer.median);
            peers.insert(name.clone(), peer);
        }
        let (bench, unit) = (bench.to_owned(), unit.to_owned());
        Ok(Self { bench, unit, ours, peers, ratio, detail: BTreeMap::new() })
    }

    /// Writes the report as JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Utf8Path) -> Result<()> {
        let text = serde_json::to_string(self).context("the report as JSON")?;
        std::fs::write(path, text + "\n").with_context(|| format!("cannot write {path}"))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bench, unit, .. } = self;
        writeln!(f, "bench {bench} ({unit})")?;
        writeln!(f, "  {:<20} {:>12} {:>12} {:>12}   ours ÷ it", "", "min", "median", "max")?;
        let line = |f: &mut fmt::Formatter<'_>, name: &str, s: &Summary, ratio: String| {
            writeln!(f, "  {name:<20} {:>12.3} {:>12.3} {:>12.3}   {ratio}", s.min, s.median, s.max)
        };
        line(f, OURS, &self.ours, String::new())?;
        for (name, peer) in &self.peers {
            line(f, name, peer, self.ratio.get(name).map(|ratio| format!("{ratio:.3}")).unwrap_or_default())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let samples = [("ours", vec![1.0, 2.0, 3.0]), ("unbound", vec![4.0, 4.0, 5.0])];
        let samples = samples.into_iter().map(|(name, series)| (name.to_owned(), series)).collect();
        Report::new("dns", "cpu_s_per_1e6_queries", &samples).unwrap()
    }

    #[test]
    fn the_json_has_the_agreed_shape() {
        let expected = r#"{"bench":"dns","unit":"cpu_s_per_1e6_queries","ours":{"min":1.0,"median":2.0,"max":3.0},"peers":{"unbound":{"min":4.0,"median":4.0,"max":5.0}},"ratio":{"unbound":0.5}}"#;
        assert_eq!(serde_json::to_string(&report()).unwrap(), expected);
    }

    #[test]
    fn the_table_names_every_series() {
        let text = report().to_string();
        assert!(text.starts_with("bench dns (cpu_s_per_1e6_queries)\n"), "{text}");
        assert!(
            text.contains("  unbound                     4.000        4.000        5.000   0.500\n"),
            "{text}"
        );
    }

    #[test]
    fn a_missing_series_is_an_error() {
        let error = Report::new("dns", "s", &BTreeMap::new()).unwrap_err();
        assert_eq!(error.to_string(), "bench dns: there are no samples of ours");
    }
}

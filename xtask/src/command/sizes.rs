//! `cargo xtask sizes`: what makes up the image, and whether it keeps to its budgets.

use anyhow::Result;

use crate::archive::cache::FetchOptions;
use crate::image::budget::{self, Measured, kib};
use crate::image::{self, ImageOptions};

const EXAMPLES: &str = "\
Examples:
  cargo xtask sizes          a table, largest first
  cargo xtask sizes --json   for other programs";

/// Show what makes up an image; fail when something is over its budget
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The product: the name of a file in images/
    #[arg(default_value = "branch")]
    pub product: String,
    /// Machine-readable output
    #[arg(long)]
    pub json: bool,
    /// How packages may be had
    #[command(flatten)]
    pub fetch: FetchOptions,
}

/// Runs the command.
///
/// # Errors
/// When the release cannot be built or something is over its budget.
pub fn run(args: &Args) -> Result<()> {
    let options =
        ImageOptions { product: args.product.clone(), fetch: args.fetch.clone(), ..ImageOptions::default() };
    let measured = image::measure(&options)?;
    let text =
        if args.json { format!("{}\n", json(&measured)) } else { measured.iter().map(table).collect() };
    super::print(text)?;
    budget::check(&measured)
}

fn table(size: &Measured) -> String {
    let line = |name: &str, bytes: u64| format!("  {:>8} KiB  {name}\n", kib(bytes));
    let mut parts = size.parts.clone();
    parts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let rows: String = parts.iter().map(|(name, bytes)| line(name, *bytes)).collect();
    format!(
        "{}: {} KiB of {} KiB; made of (uncompressed)\n{rows}",
        size.name,
        kib(size.bytes),
        size.limit_kib
    )
}

fn json(measured: &[Measured]) -> serde_json::Value {
    let one = |size: &Measured| {
        serde_json::json!({
            "name": size.name,
            "bytes": size.bytes,
            "limit_kib": size.limit_kib,
            "parts": size.parts.iter().cloned().collect::<std::collections::BTreeMap<String, u64>>(),
        })
    };
    measured.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_part_comes_first() {
        let parts = vec![("small".to_owned(), 1), ("large".to_owned(), 4096)];
        let size = Measured { name: "the slot image".to_owned(), bytes: 2048, limit_kib: 3, parts };
        let expected = "the slot image: 2 KiB of 3 KiB; made of (uncompressed)\n         4 KiB  large\n         1 KiB  small\n";
        assert_eq!(table(&size), expected);
        assert_eq!(json(&[size])[0]["parts"]["large"], 4096);
    }
}

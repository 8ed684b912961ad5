//! Prints the ruleset of a site file, without ports of components: `cargo run -p kontor-firewall --example render -- SITE BOARD`.

use kontor_config::{Board, Site};
use kontor_firewall::Openings;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [site, board] = [1, 2].map(|n| std::env::args().nth(n).unwrap_or_default());
    let board = Board::parse(&board, &std::fs::read_to_string(&board)?)?;
    let site = Site::parse(&site, &std::fs::read_to_string(&site)?, &board)?;
    print!("{}", kontor_firewall::render(&site, &Openings::default()));
    Ok(())
}

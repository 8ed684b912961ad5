//! `factory-reset`: what it will do is said before it is asked for.

use kontor_boot::reset::Data;
use kontor_config::site::{Address, Zone};
use kontor_config::{Board, Site};
use kontor_status::paths::Paths;

use super::table::plain;
use super::{is_typed, print};
use crate::{site, storage};

/// What has to be typed.
const WORD: &str = "reset";

/// Asks storage for a reset at the next boot, if that is what the operator wants; whether it is.
pub(super) fn ask(paths: &Paths, data: Data, confirmed: bool) -> anyhow::Result<bool> {
    let factory = storage::reset::factory_site()?.or_else(|| site::first_seeded(paths));
    print(&consequences(data, factory.as_deref(), &site::board(paths)?))?;
    if !confirmed && !is_confirmed()? {
        return Ok(false);
    }
    storage::reset::ask(data, factory)?;
    Ok(true)
}

fn is_confirmed() -> anyhow::Result<bool> {
    is_typed(
        WORD,
        &format!("Type `{WORD}` to go on; anything else changes nothing: "),
        "there is nobody to ask: with --yes it is done without asking",
    )
}

/// With the site file that the box was flashed with, if there was one.
fn consequences(data: Data, factory: Option<&[u8]>, board: &Board) -> String {
    let parsed = factory.map(|bytes| Site::parse_bytes("the seed's site.toml", bytes, board));
    let (from, site) = match parsed {
        Some(Ok(site)) => ("the site file it was flashed with", Some(site)),
        Some(Err(_)) => (
            "the built-in site: the file it was flashed with has mistakes for this release",
            Site::default_site(board).ok(),
        ),
        None => ("the built-in site: it was flashed without a site file", Site::default_site(board).ok()),
    };
    let mut text = "The box becomes what it was when it was flashed, and restarts.\n".to_owned();
    let mut line = |label: &str, value: &str| text.push_str(&format!("  {label:<8}{}\n", plain(value)));
    line("Comes", from);
    line("", &site.as_ref().map(office).unwrap_or_default());
    line("Goes", "the site file in force and earlier ones, leases, numbers of ports, secrets");
    line(
        if data == Data::Wipe { "Goes" } else { "Stays" },
        "everything on the data partition: shares, and the state of components (a domain)",
    );
    line("Stays", "the releases on the box, and what it remembers of others");
    if site.is_none_or(|site| site.console.operator_password_hash.is_none()) {
        text.push_str(
            "WARNING: that site has no operator's password. Nobody can log in afterwards, and another site file can only come \
             with a new flash.\n",
        );
    }
    text
}

fn office(site: &Site) -> String {
    let internal = site.networks.iter().filter(|network| network.zone == Zone::Internal);
    let addresses = internal.filter_map(|network| match &network.address {
        Address::Static { address, .. } => Some(format!("{} {address}", network.name)),
        Address::Dhcp => None,
    });
    let addresses: Vec<String> = addresses.collect();
    format!("{}; {}", site.office.name, addresses.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board() -> Board {
        let text = include_str!("../../../../board/generic-x86-64.toml");
        // The builder's own table does not reach the box.
        Board::parse("board.toml", text.split("[machine]").next().unwrap_or_default()).unwrap()
    }

    #[test]
    fn what_goes_and_what_stays_is_said_before() {
        let hash = "operator-password-hash = \"$argon2id$v=19$m=64,t=1,p=1$a29udG9yLXFlbXUtdGVzdA$vpPGeifGrt8kuFhOc+vNqTnkuwpEhIjqQfEnmXs9vI4\"";
        let login = format!("{}{hash}\n", Site::default_text());
        insta::assert_snapshot!(consequences(Data::Keep, Some(login.as_bytes()), &board()));
        insta::assert_snapshot!(consequences(Data::Wipe, None, &board()));
        let wrong = consequences(Data::Wipe, Some(b"schema = 99\x1b[2J"), &board());
        assert!(
            wrong.contains("has mistakes") && wrong.contains("WARNING") && !wrong.contains('\x1b'),
            "{wrong}"
        );
    }
}

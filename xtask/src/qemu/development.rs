//! The site of a development machine: the default one, with an operator who can log in.

use anyhow::{Result, anyhow};
use argon2::Argon2;
use argon2::password_hash::PasswordHasher;
use kontor_config::Site;

/// Where the default site's `[console]` section takes the operator's hash.
const ANCHOR: &str = "[console]\n";

/// The default site with this argon2id hash as the operator's.
#[must_use]
pub fn development_site(operator_password_hash: &str) -> String {
    let line = format!("{ANCHOR}operator-password-hash = \"{operator_password_hash}\"\n");
    Site::default_text().replace(ANCHOR, &line)
}

/// The argon2id hash of a password, with a fresh salt.
///
/// # Errors
/// When there is no randomness.
pub fn hash_password(password: &str) -> Result<String> {
    let hash: argon2::password_hash::phc::PasswordHash = Argon2::default()
        .hash_password(password.as_bytes())
        .map_err(|error| anyhow!("hash a password: {error}"))?;
    Ok(hash.to_string())
}

#[cfg(test)]
mod tests {
    use kontor_config::board::{Board, BoardPort};

    use super::*;

    #[test]
    fn it_is_a_valid_site_for_the_qemu_board() {
        let port = |name: &str| BoardPort { name: name.into(), pci: None };
        let board = Board { ports: vec![port("port1"), port("port2")], ..Board::default() };
        let hash = hash_password("secret").unwrap();
        let site = Site::parse("site.toml", &development_site(&hash), &board).unwrap();
        assert_eq!(site.console.operator_password_hash, Some(hash));
    }
}

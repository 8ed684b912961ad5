//! Random octets.

use std::fs::File;
use std::io::{self, Read as _};

/// Draws so many octets as the kernel has them for keys (random(4)).
///
/// # Errors
/// When `/dev/urandom` cannot be read.
pub fn octets<const COUNT: usize>() -> io::Result<[u8; COUNT]> {
    let mut octets = [0; COUNT];
    File::open("/dev/urandom")?.read_exact(&mut octets)?;
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_draw_is_like_another() {
        assert_ne!(octets::<32>().unwrap(), octets::<32>().unwrap());
    }
}

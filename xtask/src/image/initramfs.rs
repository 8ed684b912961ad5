//! The initramfs: the one program as `/init`, the sealed base, and the modules needed to mount it.
//!
//! Not compressed: the base inside is, and the program is needed at once.

use super::cpio::Writer;

/// Directories stage 1 of init mounts on.
const MOUNT_POINTS: [&str; 4] = ["dev", "proc", "root", "sys"];

/// The archive's bytes. `early` are file names and contents of modules in load order.
#[must_use]
pub fn initramfs(program: &[u8], base: &[u8], early: &[(String, Vec<u8>)], mtime: u32) -> Vec<u8> {
    let mut archive = Writer::new(mtime);
    for directory in MOUNT_POINTS {
        archive.dir(directory, 0o755);
    }
    // The kernel opens it before it starts init; without it init's first messages are lost.
    archive.char_device("dev/console", 0o600, 5, 1);
    archive.file("init", 0o755, program);
    archive.dir("modules", 0o755);
    let order: String = early.iter().map(|(name, _)| format!("{name}\n")).collect();
    archive.file("modules/order", 0o644, order.as_bytes());
    for (name, bytes) in early {
        archive.file(&format!("modules/{name}"), 0o644, bytes);
    }
    archive.file("base.erofs", 0o644, base);
    archive.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_modules_is_written_down() {
        let early = [("crc32c_generic.ko".to_owned(), vec![1]), ("erofs.ko".to_owned(), vec![2])];
        let bytes = initramfs(b"program", b"base", &early, 0);
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("modules/order\0"));
        assert!(text.contains("crc32c_generic.ko\nerofs.ko\n"));
        for name in ["init\0", "base.erofs\0", "root\0", "dev/console\0"] {
            assert!(text.contains(name), "{name:?}");
        }
    }
}

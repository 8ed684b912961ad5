//! The initramfs: the one program as `/init`, the sealed base, and the modules needed to mount it.
//!
//! Not compressed: the base inside is, and the program is needed at once.

use std::collections::BTreeSet;

use super::cpio::Writer;

/// Directories stage 1 of init mounts on.
const MOUNT_POINTS: [&str; 4] = ["dev", "proc", "root", "sys"];

/// File names and contents of modules, in load order.
pub type Modules = [(String, Vec<u8>)];

/// The archive's bytes. `early` modules are needed to mount the base, `background` ones soon after.
#[must_use]
pub fn initramfs(program: &[u8], base: &[u8], early: &Modules, background: &Modules, mtime: u32) -> Vec<u8> {
    let mut archive = Writer::new(mtime);
    for directory in MOUNT_POINTS {
        archive.dir(directory, 0o755);
    }
    // The kernel opens it before it starts init; without it init's first messages are lost.
    archive.char_device("dev/console", 0o600, 5, 1);
    archive.file("init", 0o755, program);
    archive.dir("modules", 0o755);
    let mut written = BTreeSet::new();
    for (list, modules) in [("order", early), ("background", background)] {
        let fresh: Vec<_> = modules.iter().filter(|(name, _)| written.insert(name)).collect();
        let names: String = fresh.iter().map(|(name, _)| format!("{name}\n")).collect();
        archive.file(&format!("modules/{list}"), 0o644, names.as_bytes());
        for (name, bytes) in fresh {
            archive.file(&format!("modules/{name}"), 0o644, bytes);
        }
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
        let background = [early[0].clone(), ("btrfs.ko".to_owned(), vec![3])];
        let bytes = initramfs(b"program", b"base", &early, &background, 0);
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("modules/crc32c_generic.ko\0").count(), 1, "no file comes twice");
        assert!(text.contains("modules/order\0"));
        assert!(text.contains("crc32c_generic.ko\nerofs.ko\n"));
        for name in ["init\0", "base.erofs\0", "root\0", "dev/console\0"] {
            assert!(text.contains(name), "{name:?}");
        }
    }
}

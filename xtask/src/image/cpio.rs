//! The initramfs container: cpio `newc`, as `Documentation/driver-api/early-userspace/buffer-format.rst` of
//! the kernel describes it.
//!
//! Uncompressed and fully determined by its entries: inode numbers count up, times are one given instant.

/// Writes one archive.
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
    inode: u32,
    mtime: u32,
}

const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFCHR: u32 = 0o020_000;

impl Writer {
    /// An empty archive whose entries carry this time (seconds since 1970).
    #[must_use]
    pub fn new(mtime: u32) -> Self {
        Self { bytes: Vec::new(), inode: 0, mtime }
    }

    /// A directory; its parent must come before it.
    pub fn dir(&mut self, name: &str, mode: u32) {
        self.entry(name, S_IFDIR | mode, (0, 0), 2, &[]);
    }

    /// A regular file.
    pub fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entry(name, S_IFREG | mode, (0, 0), 1, content);
    }

    /// A character device.
    pub fn char_device(&mut self, name: &str, mode: u32, major: u32, minor: u32) {
        self.entry(name, S_IFCHR | mode, (major, minor), 1, &[]);
    }

    /// The finished archive, padded to whole 512-byte blocks.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.mtime = 0;
        self.inode = u32::MAX; // The trailer's inode number is 0.
        self.entry("TRAILER!!!", 0, (0, 0), 1, &[]);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), links: u32, content: &[u8]) {
        self.inode = self.inode.wrapping_add(1);
        self.bytes.extend_from_slice(b"070701");
        let fields = [
            self.inode,
            mode,
            0, // uid
            0, // gid
            links,
            self.mtime,
            u32::try_from(content.len()).unwrap_or(u32::MAX),
            0, // device of the file, major
            0, // and minor
            device.0,
            device.1,
            u32::try_from(name.len() + 1).unwrap_or(u32::MAX),
            0, // check sum, unused in this format
        ];
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Vec<u8> {
        let mut writer = Writer::new(0x6000_0000);
        writer.dir("dev", 0o755);
        writer.char_device("dev/console", 0o600, 5, 1);
        writer.file("init", 0o755, b"hello");
        writer.finish()
    }

    #[test]
    fn headers_follow_the_format() {
        let bytes = example();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("07070100000001000041ED000000000000000000000002600000000000000000000000"));
        let device = &text[text.find("dev/console").unwrap() - 110..];
        assert!(device.starts_with("0707010000000200002180"), "{device}");
        assert_eq!(&device[78..94], "0000000500000001");
        assert!(text.contains("TRAILER!!!"));
    }

    #[test]
    fn names_and_contents_are_padded_to_four_bytes() {
        let bytes = example();
        assert_eq!(bytes.len() % 512, 0);
        let at = bytes.windows(5).position(|window| window == b"hello").unwrap();
        assert_eq!(at % 4, 0);
        assert_eq!(&bytes[at + 5..at + 14], b"\0\0\x00070701");
    }
}

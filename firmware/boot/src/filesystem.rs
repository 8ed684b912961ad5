//! What a partition holds, by its magic numbers: enough to decide whether it may be formatted.

/// How many bytes from the start decide: an area that any earlier use of the partition would have written.
pub const PROBE_LENGTH: usize = 1 << 20;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// All zero: as the builder leaves it. Only this and an unfinished one may be formatted.
    Empty,
    /// A btrfs whose making was cut short: mkfs.btrfs writes the real magic last, and nothing was in it.
    Unfinished,
    /// btrfs.
    Btrfs,
    /// ext2, ext3 or ext4.
    Ext(Ext),
    /// Something else, or too little was read to know.
    Unknown,
}

/// What the start of an ext file system says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ext {
    /// It begins with [`STATE_MARK`].
    pub marked: bool,
    /// The kernel has met an error in it (`s_state`, ext4(5): bit 1).
    pub flawed: bool,
}

/// The start of a finished `state` partition. ext4 leaves the first 1024 bytes alone.
pub const STATE_MARK: &[u8; 16] = b"Kontor state 1\r\n";

/// Looks at the first [`PROBE_LENGTH`] bytes of a partition.
#[must_use]
pub fn identify(start: &[u8]) -> Content {
    // btrfs: superblock at 64 KiB, magic at 0x40 in it. ext: superblock at 1 KiB, magic at 0x38.
    if start.get(0x1_0040..0x1_0048) == Some(b"_BHRfS_M") {
        Content::Btrfs
    } else if start.get(0x1_0040..0x1_0048) == Some(b"!BHRfS_M") {
        Content::Unfinished
    } else if start.get(0x438..0x43A) == Some(&[0x53, 0xEF]) {
        let flawed = start.get(0x43A).is_some_and(|state| state & 2 != 0);
        Content::Ext(Ext { marked: start.starts_with(STATE_MARK), flawed })
    } else if start.len() >= PROBE_LENGTH && start.iter().all(|byte| *byte == 0) {
        Content::Empty
    } else {
        Content::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_mebibyte_of_zeros_is_empty() {
        let mut start = vec![0; PROBE_LENGTH];
        assert_eq!(identify(&start), Content::Empty);
        assert_eq!(identify(&start[1..]), Content::Unknown);
        start[PROBE_LENGTH - 1] = 1;
        assert_eq!(identify(&start), Content::Unknown);
        start[0x438..0x43A].copy_from_slice(&[0x53, 0xEF]);
        assert_eq!(identify(&start), Content::Ext(Ext { marked: false, flawed: false }));
        start[..16].copy_from_slice(STATE_MARK);
        start[0x43A] = 3;
        assert_eq!(identify(&start), Content::Ext(Ext { marked: true, flawed: true }));
        start[0x1_0040..0x1_0048].copy_from_slice(b"_BHRfS_M");
        assert_eq!(identify(&start), Content::Btrfs);
        start[0x1_0040] = b'!';
        assert_eq!(identify(&start), Content::Unfinished);
        assert_eq!(identify(&[]), Content::Unknown);
    }
}

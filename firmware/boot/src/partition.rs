//! The partitions of a Kontor disk: names, type GUIDs and order.
//!
//! Owns the numbers that are on every disk in the field; they are never changed or reused. The box finds its
//! partitions by type GUID (the name is for people), so that a foreign disk with a partition called `data`
//! is never touched.

use std::fmt;

/// A GUID as text defines it (RFC 9562 order), 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// The all-zero GUID: an unused partition entry.
    pub const UNUSED: Self = Self([0; 16]);

    /// From its 32 hexadecimal digits, as `u128`.
    #[must_use]
    pub const fn from_u128(value: u128) -> Self {
        Self(value.to_be_bytes())
    }

    /// From its text, in capitals or not.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let places = text.bytes().enumerate().filter(|(_, byte)| *byte == b'-').map(|(at, _)| at);
        if text.len() != 36 || !places.eq([8, 13, 18, 23]) {
            return None;
        }
        u128::from_str_radix(&text.replace('-', ""), 16).ok().map(Self::from_u128)
    }

    /// From the bytes of a GPT (UEFI 2.10, appendix A: the first three fields are little-endian).
    #[must_use]
    pub const fn from_disk(bytes: [u8; 16]) -> Self {
        Self(swap_fields(bytes))
    }

    /// As the bytes of a GPT.
    #[must_use]
    pub const fn to_disk(self) -> [u8; 16] {
        swap_fields(self.0)
    }
}

const fn swap_fields(b: [u8; 16]) -> [u8; 16] {
    [b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex: String = self.0.iter().map(|byte| format!("{byte:02X}")).collect();
        write!(f, "{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a partition of a Kontor disk is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PartitionKind {
    /// GRUB's core image for BIOS machines.
    Bios,
    /// FAT with one file, `EFI/BOOT/BOOTX64.EFI`.
    Esp,
    /// Sector 0: the boot state; from 64 KiB: two copies of the good site file.
    BootState,
    /// A raw tar with the site file and first-boot secrets; all zero when empty.
    Seed,
    /// File-system image of slot a.
    SlotA,
    /// File-system image of slot b.
    SlotB,
    /// ext4 with verity: component images by hash.
    System,
    /// ext4: what the gateway itself keeps (site, leases, port pins).
    State,
    /// btrfs: components' data; the last partition, grown to the disk.
    Data,
}

/// All partitions, in the order they have on the disk.
pub const LAYOUT: [PartitionKind; 9] = [
    PartitionKind::Bios,
    PartitionKind::Esp,
    PartitionKind::BootState,
    PartitionKind::Seed,
    PartitionKind::SlotA,
    PartitionKind::SlotB,
    PartitionKind::System,
    PartitionKind::State,
    PartitionKind::Data,
];

impl PartitionKind {
    /// The GPT partition name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bios => "bios",
            Self::Esp => "esp",
            Self::BootState => "bootstate",
            Self::Seed => "seed",
            Self::SlotA => "slot-a",
            Self::SlotB => "slot-b",
            Self::System => "system",
            Self::State => "state",
            Self::Data => "data",
        }
    }

    /// The GPT partition type. The first two are UEFI's and GRUB's own, the others Kontor's.
    #[must_use]
    pub const fn type_guid(self) -> Guid {
        Guid::from_u128(match self {
            Self::Bios => 0x21686148_6449_6E6F_744E_656564454649,
            Self::Esp => 0xC12A7328_F81F_11D2_BA4B_00A0C93EC93B,
            Self::BootState => 0x4B6F6E74_6F72_4001_9B1E_7A3D5C2E8F10,
            Self::Seed => 0x4B6F6E74_6F72_4002_9B1E_7A3D5C2E8F10,
            Self::SlotA => 0x4B6F6E74_6F72_4003_9B1E_7A3D5C2E8F10,
            Self::SlotB => 0x4B6F6E74_6F72_4004_9B1E_7A3D5C2E8F10,
            Self::System => 0x4B6F6E74_6F72_4005_9B1E_7A3D5C2E8F10,
            Self::Data => 0x4B6F6E74_6F72_4006_9B1E_7A3D5C2E8F10,
            Self::State => 0x4B6F6E74_6F72_4007_9B1E_7A3D5C2E8F10,
        })
    }

    /// The kind with this type GUID.
    #[must_use]
    pub fn from_type(guid: Guid) -> Option<Self> {
        LAYOUT.into_iter().find(|kind| kind.type_guid() == guid)
    }
}

/// Size of the `bootstate` partition.
pub const BOOTSTATE_SIZE: u64 = 4 << 20;
/// Size of the `seed` partition, and so the bound of a seed tar.
pub const SEED_SIZE: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guids_print_as_their_standards_do() {
        assert_eq!(PartitionKind::Esp.type_guid().to_string(), "C12A7328-F81F-11D2-BA4B-00A0C93EC93B");
        assert_eq!(PartitionKind::Bios.type_guid().to_string(), "21686148-6449-6E6F-744E-656564454649");
    }

    #[test]
    fn a_guid_comes_back_from_its_text_and_from_nothing_else() {
        let guid = PartitionKind::State.type_guid();
        let text = guid.to_string();
        assert_eq!([Guid::parse(&text), Guid::parse(&text.to_lowercase())], [Some(guid); 2]);
        let long = format!("{text}0");
        for wrong in ["", "4B6F6E74", &text[1..], &long, &text.replace('-', "0"), &text.replace('B', "x")] {
            assert_eq!(Guid::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn disk_order_swaps_the_first_three_fields() {
        let disk = PartitionKind::Bios.type_guid().to_disk();
        assert_eq!(&disk, b"Hah!IdontNeedEFI");
        assert_eq!(Guid::from_disk(disk), PartitionKind::Bios.type_guid());
    }

    #[test]
    fn every_kind_is_found_by_its_own_type_only() {
        for kind in LAYOUT {
            assert_eq!(PartitionKind::from_type(kind.type_guid()), Some(kind));
        }
        assert_eq!(PartitionKind::from_type(Guid::UNUSED), None);
    }
}

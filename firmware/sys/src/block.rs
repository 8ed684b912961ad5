//! Block devices: their size, telling the kernel about a grown partition, and the disk about blocks that hold nothing.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

const BLKPG_RESIZE_PARTITION: libc::c_int = 3;

#[repr(C)]
struct BlkpgPartition {
    start: i64,
    length: i64,
    number: libc::c_int,
    devname: [u8; 64],
    volname: [u8; 64],
}

#[repr(C)]
struct BlkpgArg {
    op: libc::c_int,
    flags: libc::c_int,
    datalen: libc::c_int,
    data: *mut BlkpgPartition,
}

#[repr(C)]
struct FstrimRange {
    start: u64,
    length: u64,
    least: u64,
}

// The functions these macros make are public to this file only; their names are the kernel's.
#[allow(missing_docs, unreachable_pub)]
mod ioctl {
    use super::{BlkpgArg, FstrimRange};

    nix::ioctl_read!(blkgetsize64, 0x12, 114, u64);
    nix::ioctl_write_ptr_bad!(blkdiscard, 0x1277, [u64; 2]);
    nix::ioctl_readwrite!(fitrim, b'X', 121, FstrimRange);
    nix::ioctl_read_bad!(blkpg, 0x1269, BlkpgArg);
    nix::ioctl_none_bad!(blkrrpart, 0x125F);
}

/// Size of a block device, or of a file standing in for one, in bytes.
///
/// # Errors
/// The kernel's.
pub fn size(device: &File) -> io::Result<u64> {
    let metadata = device.metadata()?;
    if metadata.is_file() {
        return Ok(metadata.len());
    }
    let mut bytes = 0;
    // SAFETY: the kernel writes one u64.
    unsafe { ioctl::blkgetsize64(raw(device), &raw mut bytes)? };
    Ok(bytes)
}

/// Tells the kernel that partition `number` of `disk` now has this place, while others of it are in use.
///
/// # Errors
/// The kernel's.
pub fn resize_partition(disk: &File, number: u32, start: u64, length: u64) -> io::Result<()> {
    let signed = |value: u64| i64::try_from(value).map_err(io::Error::other);
    let mut partition = BlkpgPartition {
        start: signed(start)?,
        length: signed(length)?,
        number: i32::try_from(number).map_err(io::Error::other)?,
        devname: [0; 64],
        volname: [0; 64],
    };
    let datalen = size_of::<BlkpgPartition>() as libc::c_int;
    let mut arg = BlkpgArg { op: BLKPG_RESIZE_PARTITION, flags: 0, datalen, data: &raw mut partition };
    // SAFETY: the kernel reads the argument and the partition it points to; both live until it returns.
    unsafe { ioctl::blkpg(raw(disk), &raw mut arg)? };
    Ok(())
}

/// Has the kernel read the partition table again; fails while a partition is in use.
///
/// # Errors
/// The kernel's.
pub fn reread_partitions(disk: &File) -> io::Result<()> {
    // SAFETY: takes no argument.
    unsafe { ioctl::blkrrpart(raw(disk))? };
    Ok(())
}

/// Tells the disk that nothing on this device is needed any more; what is read afterwards is undefined.
///
/// # Errors
/// The kernel's: `EOPNOTSUPP` of a disk that cannot do it, `EBUSY` while it is mounted.
pub fn discard(device: &File) -> io::Result<()> {
    let range = [0, size(device)?];
    // SAFETY: the kernel reads two u64, offset and length.
    unsafe { ioctl::blkdiscard(raw(device), &raw const range)? };
    Ok(())
}

/// Tells the disk which blocks of a mounted file system are free; `directory` is one of its directories.
///
/// # Errors
/// The kernel's: `EOPNOTSUPP` of a disk that cannot do it.
pub fn trim(directory: &File) -> io::Result<()> {
    let mut range = FstrimRange { start: 0, length: u64::MAX, least: 0 };
    // SAFETY: the kernel reads and writes the structure, which lives until it returns.
    unsafe { ioctl::fitrim(raw(directory), &raw mut range)? };
    Ok(())
}

fn raw(file: &File) -> RawFd {
    file.as_raw_fd()
}

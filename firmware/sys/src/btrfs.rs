//! btrfs beyond what every file system has: growing, subvolumes, snapshots and quotas (btrfs-ioctl(2)).

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::statfs::{BTRFS_SUPER_MAGIC, fstatfs};

/// `struct btrfs_ioctl_vol_args`: a name of at most 4087 bytes, and a zero.
#[repr(C)]
struct VolArgs {
    fd: i64,
    name: [u8; 4088],
}

/// `struct btrfs_ioctl_vol_args_v2`.
#[repr(C)]
struct VolArgsV2 {
    fd: i64,
    transid: u64,
    flags: u64,
    unused: [u64; 4],
    name: [u8; 4040],
}

/// `struct btrfs_ioctl_quota_ctl_args`.
#[repr(C)]
struct QuotaCtlArgs {
    command: u64,
    status: u64,
}

/// `struct btrfs_ioctl_qgroup_limit_args`.
#[repr(C)]
struct QgroupLimitArgs {
    /// Zero: that of the subvolume that the call is made on.
    group: u64,
    flags: u64,
    max_referenced: u64,
    max_exclusive: u64,
    reserved_referenced: u64,
    reserved_exclusive: u64,
}

/// `BTRFS_QUOTA_CTL_ENABLE_SIMPLE_QUOTA`, since Linux 6.7.
const ENABLE_SIMPLE_QUOTA: u64 = 4;
/// `BTRFS_QGROUP_LIMIT_MAX_RFER`: of the limits, only this one is set.
const MAX_REFERENCED: u64 = 1;
/// Inode of every subvolume's root (`BTRFS_FIRST_FREE_OBJECTID`), and of nothing else.
const SUBVOLUME_ROOT: u64 = 256;
/// Takes a limit away (`CLEAR_VALUE` in the kernel's `qgroup.c`).
const NO_LIMIT: u64 = u64::MAX;
const SUBVOL_RDONLY: u64 = 1 << 1;

// The functions these macros make are public to this file only; their names are the kernel's.
#[allow(missing_docs, unreachable_pub)]
mod ioctl {
    use super::{QgroupLimitArgs, QuotaCtlArgs, VolArgs, VolArgsV2};

    nix::ioctl_write_ptr!(resize, 0x94, 3, VolArgs);
    nix::ioctl_write_ptr!(subvol_create, 0x94, 14, VolArgs);
    nix::ioctl_write_ptr!(snap_destroy, 0x94, 15, VolArgs);
    nix::ioctl_write_ptr!(snap_create_v2, 0x94, 23, VolArgsV2);
    nix::ioctl_readwrite!(quota_ctl, 0x94, 40, QuotaCtlArgs);
    // It reads its argument, whatever its number says.
    nix::ioctl_read!(qgroup_limit, 0x94, 43, QgroupLimitArgs);
}

/// Grows the file system mounted at `mount_point` to its device.
///
/// # Errors
/// The kernel's.
pub fn grow(mount_point: &Path) -> io::Result<()> {
    let directory = File::open(mount_point)?;
    let args = VolArgs { fd: 0, name: name(OsStr::new("max"))? };
    // SAFETY: the kernel reads the 4096 bytes of the argument, which lives until it returns.
    unsafe { ioctl::resize(directory.as_raw_fd(), &raw const args)? };
    Ok(())
}

/// Whether a file or directory lies on btrfs.
///
/// # Errors
/// The kernel's.
pub fn is_btrfs(file: impl AsFd) -> io::Result<bool> {
    Ok(fstatfs(file)?.filesystem_type() == BTRFS_SUPER_MAGIC)
}

/// Makes the subvolume `child` in `parent`: a directory that snapshots can be taken of.
///
/// # Errors
/// The kernel's; also when `parent` is on another file system.
pub fn create_subvolume(parent: &File, child: &OsStr) -> io::Result<()> {
    let args = VolArgs { fd: 0, name: name(child)? };
    // SAFETY: the kernel reads the 4096 bytes of the argument, which lives until it returns.
    unsafe { ioctl::subvol_create(parent.as_raw_fd(), &raw const args)? };
    Ok(())
}

/// Makes `child` in `parent` a read-only snapshot of `subvolume`.
///
/// # Errors
/// The kernel's; also when `subvolume` is an ordinary directory.
pub fn snapshot(subvolume: &File, parent: &File, child: &OsStr) -> io::Result<()> {
    let args = VolArgsV2 {
        fd: subvolume.as_raw_fd().into(),
        transid: 0,
        flags: SUBVOL_RDONLY,
        unused: [0; 4],
        name: name(child)?,
    };
    // SAFETY: the kernel reads the 4096 bytes of the argument, which lives until it returns.
    unsafe { ioctl::snap_create_v2(parent.as_raw_fd(), &raw const args)? };
    Ok(())
}

/// Removes the subvolume `child` of `parent` with all that is in it.
///
/// # Errors
/// The kernel's.
pub fn remove_subvolume(parent: &File, child: &OsStr) -> io::Result<()> {
    let args = VolArgs { fd: 0, name: name(child)? };
    // SAFETY: the kernel reads the 4096 bytes of the argument, which lives until it returns.
    unsafe { ioctl::snap_destroy(parent.as_raw_fd(), &raw const args)? };
    Ok(())
}

/// Has the file system of `directory` count what each subvolume takes, from now on; does nothing where it does.
///
/// # Errors
/// The kernel's.
pub fn enable_quotas(directory: &File) -> io::Result<()> {
    let mut args = QuotaCtlArgs { command: ENABLE_SIMPLE_QUOTA, status: 0 };
    // SAFETY: the kernel reads and writes the argument, which lives until it returns.
    unsafe { ioctl::quota_ctl(directory.as_raw_fd(), &raw mut args)? };
    Ok(())
}

/// Sets how many bytes `subvolume` may take; without a number, any.
///
/// # Errors
/// The kernel's; `ENOTCONN` when nothing is counted on this file system. Also when it is no subvolume, but a directory in one: the
/// kernel would limit all of that.
pub fn limit(subvolume: &File, bytes: Option<u64>) -> io::Result<()> {
    if subvolume.metadata()?.ino() != SUBVOLUME_ROOT {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is an ordinary directory, not a subvolume",
        ));
    }
    let max_referenced = bytes.unwrap_or(NO_LIMIT);
    let mut args = QgroupLimitArgs {
        group: 0,
        flags: MAX_REFERENCED,
        max_referenced,
        max_exclusive: 0,
        reserved_referenced: 0,
        reserved_exclusive: 0,
    };
    // SAFETY: the kernel reads the argument, which lives until it returns.
    unsafe { ioctl::qgroup_limit(subvolume.as_raw_fd(), &raw mut args)? };
    Ok(())
}

/// As the kernel wants it: one component of a path, and zeros.
fn name<const LENGTH: usize>(text: &OsStr) -> io::Result<[u8; LENGTH]> {
    let bytes = text.as_bytes();
    let plain = !bytes.is_empty() && !bytes.contains(&b'/') && !bytes.contains(&0) && bytes.len() < LENGTH;
    if !plain {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the name of one file"));
    }
    let mut name = [0; LENGTH];
    name[..bytes.len()].copy_from_slice(bytes);
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_have_the_kernel_s_size() {
        assert_eq!((size_of::<VolArgs>(), size_of::<VolArgsV2>()), (4096, 4096));
        assert_eq!((size_of::<QuotaCtlArgs>(), size_of::<QgroupLimitArgs>()), (16, 48));
    }

    #[test]
    fn a_name_is_one_component() {
        assert_eq!(name::<8>(OsStr::new("max")).unwrap(), *b"max\0\0\0\0\0");
        for wrong in ["", "a/b", "a\0b", "12345678"] {
            assert!(name::<8>(OsStr::new(wrong)).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn another_file_system_makes_no_subvolumes() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = File::open(scratch.path()).unwrap();
        if !is_btrfs(&directory).unwrap() {
            assert!(create_subvolume(&directory, OsStr::new("a")).is_err());
        }
    }
}

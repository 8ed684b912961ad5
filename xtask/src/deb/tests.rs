//! Packages made by code, good and bad.

use std::io::Write;

use super::*;

fn tar(fill: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    fill(&mut builder);
    builder.into_inner().unwrap()
}

fn header(kind: tar::EntryType, size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(7);
    header.set_gid(8);
    header.set_mtime(9);
    header
}

/// Writes a path as it is, without the checks of the tar crate.
fn raw_path(mut header: tar::Header, path: &str) -> tar::Header {
    let field = &mut header.as_old_mut().name;
    field.fill(0);
    field[..path.len()].copy_from_slice(path.as_bytes());
    header.set_cksum();
    header
}

pub(super) fn deb(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = ar::Builder::new(Vec::new());
    for (name, bytes) in members {
        builder.append(&ar::Header::new(name.as_bytes().to_vec(), bytes.len() as u64), *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn list(deb: &[u8]) -> Result<Vec<Entry>> {
    let mut all = Vec::new();
    read(deb, &mut |entry| {
        all.push(entry);
        Ok(())
    })?;
    Ok(all)
}

pub(super) fn sample() -> Vec<u8> {
    tar(|builder| {
        builder
            .append_data(&mut header(tar::EntryType::Directory, 0, 0o755), "./usr/", std::io::empty())
            .unwrap();
        builder.append_data(&mut header(tar::EntryType::Regular, 2, 0o4755), "./usr/su", &b"hi"[..]).unwrap();
        builder.append_link(&mut header(tar::EntryType::Symlink, 0, 0o777), "./usr/ln", "/etc/x").unwrap();
        builder.append_link(&mut header(tar::EntryType::Link, 0, 0o4755), "./usr/hard", "./usr/su").unwrap();
        let mut device = header(tar::EntryType::Char, 0, 0o600);
        device.set_device_major(5).unwrap();
        device.set_device_minor(1).unwrap();
        builder.append_data(&mut device, "./dev/console", std::io::empty()).unwrap();
        builder.append_pax_extensions([("SCHILY.xattr.security.capability", &b"\x01\0"[..])]).unwrap();
        builder
            .append_data(&mut header(tar::EntryType::Regular, 0, 0o644), "./cap", std::io::empty())
            .unwrap();
    })
}

#[test]
fn every_compression_gives_the_same_entries() {
    let tar = sample();
    let xz = {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
        encoder.write_all(&tar).unwrap();
        encoder.finish().unwrap()
    };
    let gz = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&tar).unwrap();
        encoder.finish().unwrap()
    };
    let zst = zstd::encode_all(tar.as_slice(), 1).unwrap();
    let plain = list(&deb(&[("debian-binary", b"2.0\n"), ("data.tar", &tar)])).unwrap();
    for (name, bytes) in [("data.tar.xz", &xz), ("data.tar.gz", &gz), ("data.tar.zst", &zst)] {
        let members: [(&str, &[u8]); 3] =
            [("debian-binary", b"2.0\n"), ("control.tar.xz", b"junk"), (name, bytes)];
        assert_eq!(list(&deb(&members)).unwrap(), plain, "{name}");
    }
}

#[test]
fn owners_modes_links_devices_and_attributes_are_kept() {
    let entries = list(&deb(&[("debian-binary", b"2.0\n"), ("data.tar", &sample())])).unwrap();
    let kinds: Vec<(&str, &Kind)> = entries.iter().map(|entry| (entry.path.as_str(), &entry.kind)).collect();
    assert_eq!(
        kinds,
        [
            ("usr", &Kind::Dir),
            ("usr/su", &Kind::File { bytes: b"hi".to_vec() }),
            ("usr/ln", &Kind::Symlink { target: "/etc/x".to_owned() }),
            ("usr/hard", &Kind::Hardlink { target: "usr/su".to_owned() }),
            ("dev/console", &Kind::CharDevice { major: 5, minor: 1 }),
            ("cap", &Kind::File { bytes: Vec::new() }),
        ]
    );
    let Entry { mode, uid, gid, mtime, .. } = entries[1];
    assert_eq!((mode, uid, gid, mtime), (0o4755, 7, 8, 9));
    assert_eq!(entries[5].xattrs, [("security.capability".to_owned(), b"\x01\0".to_vec())]);
}

#[track_caller]
fn check_error(deb: &[u8], expect: &str) {
    let error = format!("{:#}", list(deb).unwrap_err());
    assert!(error.contains(expect), "{expect:?} is not in {error:?}");
}

#[test]
fn paths_that_leave_the_root_are_refused() {
    for path in ["../etc/passwd", "./usr/../../x"] {
        let tar = tar(|builder| {
            let header = raw_path(header(tar::EntryType::Regular, 0, 0o644), path);
            builder.append(&header, std::io::empty()).unwrap();
        });
        check_error(&deb(&[("debian-binary", b"2.0\n"), ("data.tar", &tar)]), "leaves the package's root");
    }
}

#[test]
fn an_absolute_path_is_taken_below_the_root() {
    let tar = tar(|builder| {
        let header = raw_path(header(tar::EntryType::Directory, 0, 0o755), "/usr//./bin/");
        builder.append(&header, std::io::empty()).unwrap();
    });
    assert_eq!(list(&deb(&[("debian-binary", b"2.0\n"), ("data.tar", &tar)])).unwrap()[0].path, "usr/bin");
}

/// A few bytes of a sparse file stand for as many zeros as it pleases; dpkg takes none either (deb(5)).
#[test]
fn sparse_files_are_refused() {
    let tar = tar(|builder| {
        let mut header = header(tar::EntryType::GNUSparse, 0, 0o644);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.set_real_size(1 << 20);
        gnu.sparse[0].set_offset(1 << 20);
        gnu.sparse[0].set_length(0);
        let header = raw_path(header, "hole");
        builder.append(&header, std::io::empty()).unwrap();
    });
    check_error(&deb(&[("debian-binary", b"2.0\n"), ("data.tar", &tar)]), "unknown kind of tar entry 'S'");
}

#[test]
fn a_bomb_is_read_to_the_limit_only() {
    let bytes = [7; 100];
    let mut read = Vec::new();
    Bounded { inner: &bytes[..], left: 100 }.read_to_end(&mut read).unwrap();
    assert_eq!(read, bytes);
    let error = Bounded { inner: std::io::repeat(7), left: 100 }.read_to_end(&mut read).unwrap_err();
    assert!(error.to_string().contains("unpacks to more than"), "{error}");
    assert!(read.len() <= 200);
}

#[test]
fn broken_packages_are_refused() {
    let good = deb(&[("debian-binary", b"2.0\n"), ("data.tar", &sample())]);
    check_error(b"", "truncated");
    check_error(&deb(&[("debian-binary", b"2.0\n")]), "no data.tar member");
    check_error(b"<html>not here</html>", "not an ar archive");
    check_error(&good[..good.len() - 1024 - 600], "data.tar");
    check_error(&deb(&[("data.tar", &sample())]), "format 2.x");
    check_error(&deb(&[("debian-binary", b"3.0\n"), ("data.tar", &sample())]), "format 2.x");
    check_error(&deb(&[("debian-binary", b"2.0\n"), ("data.tar.lz", b"")]), "unknown compression");
    check_error(&deb(&[("debian-binary", b"2.0\n"), ("data.tar.xz", b"no xz at all")]), "data.tar.xz");
}

#[test]
fn any_cut_of_a_package_is_an_error_or_whole_entries_never_a_panic() {
    let good = deb(&[("debian-binary", b"2.0\n"), ("data.tar", &sample())]);
    let whole = list(&good).unwrap();
    for end in 0..good.len() {
        if let Ok(entries) = list(&good[..end]) {
            assert!(whole.starts_with(&entries), "cut at {end}");
        }
    }
}

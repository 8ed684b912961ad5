//! A `.deb`, and the copyright file in it.
//!
//! The first octet chooses: a package as it is, a data member in one of its compressions, a control member, or a copyright
//! file. In plain tars the check sums are put right, so that the fuzzer gets behind them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xtask::deb::{self, Entry, Kind};
use xtask::sbom::component::Licence;
use xtask::sbom::{copyright, spdx};

/// A package whose last member is this.
fn package(name: &str, member: &[u8]) -> Vec<u8> {
    let mut deb = b"!<arch>\n".to_vec();
    for (name, bytes) in [("debian-binary", &b"2.0\n"[..]), (name, member)] {
        deb.extend(
            format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, bytes.len()).bytes(),
        );
        deb.extend(bytes);
        deb.extend(&b"\n"[..bytes.len() % 2]);
    }
    deb
}

/// Every block that looks like a header gets the check sum of one.
fn with_check_sums(tar: &[u8]) -> Vec<u8> {
    let mut tar = tar.to_vec();
    for block in tar.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    tar
}

/// Bytes of the files in it.
fn read(deb: &[u8]) -> usize {
    let mut bytes = 0;
    let is_below = |path: &str| {
        let parts = || path.split('/');
        path.is_empty() || parts().all(|part| !["", ".", ".."].contains(&part) && !part.contains('\0'))
    };
    let _ = deb::read(deb, &mut |entry: Entry| {
        assert!(is_below(&entry.path), "{:?}", entry.path);
        assert!(entry.mode <= 0o7777);
        match entry.kind {
            Kind::File { bytes: file } => bytes += file.len(),
            Kind::Hardlink { target } => assert!(is_below(&target), "{target:?}"),
            _ => {}
        }
        Ok(())
    });
    bytes
}

fn fuzz_copyright(bytes: &[u8]) {
    let licences = copyright::licences(bytes);
    assert!(!licences.is_empty() && licences.is_sorted());
    for licence in licences {
        let (Licence::Id(text) | Licence::Expression(text) | Licence::Name(text)) = licence;
        assert!(!text.is_empty() && !text.contains('\n'));
    }
    let _ = copyright::is_machine_readable(bytes);
    let _ = spdx::expression(&String::from_utf8_lossy(bytes));
}

fuzz_target!(|input: (u8, &[u8])| {
    let (kind, bytes) = input;
    match kind % 8 {
        0 => {
            let _ = read(bytes);
            let _ = deb::read_control(bytes);
        }
        1 | 2 => {
            let deb = package("data.tar", &with_check_sums(bytes));
            assert!(read(&deb) <= bytes.len(), "more than there was");
        }
        3 => drop(deb::read_control(&*package("control.tar", &with_check_sums(bytes)))),
        4 => drop(read(&package("data.tar.gz", bytes))),
        5 => drop(read(&package("data.tar.xz", bytes))),
        6 => drop(read(&package("data.tar.zst", bytes))),
        _ => fuzz_copyright(bytes),
    }
});

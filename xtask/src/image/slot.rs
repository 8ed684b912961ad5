//! A slot: a small ext4 image with the kernel, the initramfs and the manifest that binds them.
//!
//! GRUB reads it, and nothing ever mounts it writable: no journal, and only features GRUB has always known.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write;

use anyhow::{Context, Result};
use camino::Utf8Path;
use kontor_component::Seal;
use sha2::{Digest, Sha256};

use super::disk::named_guid;
use super::process::run_fed;
use super::step::hex;
use crate::component::Sealed;
use crate::tools::Tools;

/// What a release calls itself.
#[derive(Debug, Clone)]
pub struct Release {
    /// Product's name.
    pub product: String,
    /// Machine types it serves.
    pub boards: Vec<String>,
    /// Version of the firmware.
    pub version: String,
    /// Day of the release.
    pub date: String,
    /// That day in seconds since 1970.
    pub epoch_s: u32,
    /// Grows when releases before it must never run again.
    pub security_epoch: u32,
    /// Whether it trusts keys that were made for trying things.
    pub development: bool,
}

impl Release {
    /// `release.toml` of the base, which the manifest repeats.
    #[must_use]
    pub fn to_toml(&self, kernel: &str) -> String {
        let Self { product, boards, version, date, epoch_s, security_epoch, development } = self;
        let development = if *development { "development = true\n" } else { "" };
        format!(
            "schema = 1\nproduct = \"{product}\"\nboard = {boards:?}\nversion = \"{version}\"\ndate = \"{date}\"\n\
             epoch-s = {epoch_s}\nsecurity-epoch = {security_epoch}\n{development}kernel = \"{kernel}\"\n"
        )
    }

    /// `os-release(5)`.
    #[must_use]
    pub fn os_release(&self) -> String {
        let Self { product, version, .. } = self;
        format!(
            "NAME=Kontor\nID=kontor\nID_LIKE=debian\nVERSION_ID={version}\nVARIANT_ID={product}\n\
             PRETTY_NAME=\"Kontor {version} ({product})\"\n"
        )
    }
}

/// The manifest of a slot with these files, which runs these components.
#[must_use]
pub fn manifest(release: &Release, kernel: &str, files: &[(&str, &[u8])], components: &[Sealed]) -> String {
    let mut text = release.to_toml(kernel);
    for (name, bytes) in files {
        let hash = hex(&Sha256::digest(bytes));
        // Writing into a string cannot fail.
        let _ = write!(text, "\n[[file]]\nname = \"{name}\"\nsize = {}\nsha256 = \"{hash}\"\n", bytes.len());
    }
    for Sealed { name, seal: Seal { bytes, sha256, verity }, .. } in components {
        let _ = write!(
            text,
            "\n[[component]]\nname = \"{name}\"\nsize = {bytes}\nsha256 = \"{sha256}\"\nverity = \"{verity}\"\n"
        );
    }
    text
}

/// Makes `slot.img` in `out`.
///
/// # Errors
/// When the files do not fit or a tool fails.
pub fn make(
    out: &Utf8Path,
    size_mib: u64,
    files: &[(&str, &[u8])],
    epoch_s: u32,
    tools: &Tools,
) -> Result<()> {
    let mut command = ext4(tools, "none,extents,filetype,sparse_super,large_file", "slot", epoch_s)?;
    command.args(["-N", "64", "-d", "-", out.join("slot.img").as_str(), &format!("{size_mib}M")]);
    run_fed(command, |input| write_tar(files, epoch_s, input))
        .with_context(|| format!("the slot's files do not fit {size_mib} MiB, or mke2fs failed"))
        .map(drop)
}

fn write_tar(files: &[(&str, &[u8])], epoch_s: u32, output: impl Write) -> Result<()> {
    let mut tar = tar::Builder::new(output);
    let mut folders = BTreeSet::new();
    for (name, bytes) in files {
        if let Some((folder, _)) = name.split_once('/')
            && folders.insert(folder)
        {
            let mut header = header(tar::EntryType::Directory, 0, 0o755, epoch_s);
            tar.append_data(&mut header, format!("{folder}/"), std::io::empty())?;
        }
        let mut header = header(tar::EntryType::Regular, bytes.len() as u64, 0o644, epoch_s);
        tar.append_data(&mut header, name, *bytes)?;
    }
    Ok(tar.into_inner()?.flush()?)
}

fn header(kind: tar::EntryType, size: u64, mode: u32, epoch_s: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(epoch_s.into());
    header
}

/// Makes `system.img` in `out`, with the components' images. The box seals them with fs-verity when it first mounts the
/// partition: no tool can do so here.
///
/// # Errors
/// When the images do not fit or mke2fs fails.
pub fn make_system(
    out: &Utf8Path,
    size_mib: u64,
    images: &[(&str, &[u8])],
    epoch_s: u32,
    tools: &Tools,
) -> Result<()> {
    // fs-verity needs blocks of the page size.
    let mut command = ext4(tools, "verity", "system", epoch_s)?;
    command.args(["-t", "ext4", "-d", "-", out.join("system.img").as_str(), &format!("{size_mib}M")]);
    run_fed(command, |input| write_tar(images, epoch_s, input))
        .with_context(|| format!("the components do not fit {size_mib} MiB, or mke2fs failed"))
        .map(drop)
}

/// `mke2fs` with everything fixed that would be random or taken from the clock.
fn ext4(tools: &Tools, features: &str, name: &str, epoch_s: u32) -> Result<std::process::Command> {
    let mut command = tools.command("mke2fs")?;
    let epoch = epoch_s.to_string();
    command.env("SOURCE_DATE_EPOCH", &epoch).env("E2FSPROGS_FAKE_TIME", &epoch);
    let uuid = named_guid(&format!("file system {name}")).to_string().to_lowercase();
    let seed = named_guid(&format!("directory hash {name}")).to_string().to_lowercase();
    command.args(["-q", "-F", "-b", "4096", "-I", "256", "-m", "0", "-O", features, "-L", name, "-U", &uuid]);
    command.args([
        "-E",
        &format!("hash_seed={seed},root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0,nodiscard"),
    ]);
    Ok(command)
}

/// Bytes of a slot's files as they would travel. The file system around them, some dozen KiB of mostly zeros, comes to
/// less than one more.
///
/// # Errors
/// When the compressor fails.
pub fn compressed_size(files: &[(&str, &[u8])]) -> Result<u64> {
    // Higher levels gain little: the base inside is compressed, the kernel too. It is measured at every edit.
    const LEVEL: i32 = 3;
    let mut encoder = zstd::Encoder::new(Counter(0), LEVEL)?;
    files.iter().try_for_each(|(_, bytes)| encoder.write_all(bytes))?;
    Ok(encoder.finish()?.0)
}

/// Counts what is written.
#[derive(Debug)]
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_binds_every_file_by_its_hash() {
        let release = Release {
            product: "branch".to_owned(),
            boards: vec!["generic-x86-64".to_owned(), "qemu".to_owned()],
            version: "0.1.0".to_owned(),
            date: "2026-11-21".to_owned(),
            epoch_s: 1_795_219_200,
            security_epoch: 1,
            development: false,
        };
        insta::assert_snapshot!(manifest(
            &release,
            "6.12.1",
            &[("vmlinuz", b"kernel"), ("initrd", b"")],
            &[]
        ));
        insta::assert_snapshot!(release.os_release());
    }
}

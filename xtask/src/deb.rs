//! What is inside a `.deb`: its control file, and the entries of its data member, streamed, with owners, modes,
//! devices and attributes.
//!
//! Nothing is unpacked here and no maintainer script is read. Paths that leave the package's root are refused.

use std::fs::File;
use std::io::{BufReader, Read, Seek};

use anyhow::{Context, Result, bail, ensure};
use camino::Utf8Path;

mod kept;
mod xz;

pub use kept::Deb;

/// How the name of the member with the files begins.
const DATA: &str = "data.tar";
/// What a member may unpack to. The largest packages of the archive that a box could need (firmware, kernels) have a
/// quarter of it; a few bytes of a compressed file can stand for anything.
const UNPACKED: u64 = 2 << 30;
/// What decompressing may take: `xz -9` needs 65 MiB, and packages are made with less.
const XZ_MEMORY: u64 = 1 << 30;
/// And what it may take before fewer blocks are decompressed at the same time.
const XZ_MEMORY_AT_ONCE: u64 = 512 << 20;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File {
        /// Its content.
        bytes: Vec<u8>,
    },
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink {
        /// Its text, as in the package: relative or absolute.
        target: String,
    },
    /// Another name of a file that came earlier.
    Hardlink {
        /// Path of that file, like [`Entry::path`].
        target: String,
    },
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// One entry of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path below the root, without a leading `./` or `/`; empty for the root itself.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Seconds since 1970.
    pub mtime: u64,
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

/// Calls `each` with every entry of the package's data member, in its order; nothing is kept, see [`Deb`].
pub fn entries(deb: impl AsRef<Utf8Path>, mut each: impl FnMut(Entry) -> Result<()>) -> Result<()> {
    let deb = deb.as_ref();
    let file = File::open(deb).with_context(|| format!("opening {deb}"))?;
    read(BufReader::with_capacity(1 << 17, file), &mut each).with_context(|| format!("package {deb}"))
}

/// The data member of a package whose hash has been checked, decompressed by all processors.
pub fn data(deb: impl AsRef<Utf8Path>) -> Result<Vec<u8>> {
    let deb = deb.as_ref();
    let file = File::open(deb).with_context(|| format!("opening {deb}"))?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut bytes = Vec::new();
    // Not buffered: the member begins where the file stands.
    find_member(&file, DATA, |suffix, member| {
        if suffix == ".xz" {
            let start = (&file).stream_position()?;
            bytes = xz::decompress(&file, start..start + member.header().size(), threads)?;
        } else {
            decompress(suffix, member)?.read_to_end(&mut bytes)?;
        }
        Ok(())
    })
    .with_context(|| format!("package {deb}"))?;
    Ok(bytes)
}

/// The package's control file: name, relations, home page.
pub fn control(deb: impl AsRef<Utf8Path>) -> Result<String> {
    let deb = deb.as_ref();
    let file = File::open(deb).with_context(|| format!("opening {deb}"))?;
    read_control(BufReader::new(file)).with_context(|| format!("package {deb}"))
}

/// As [`control`], of a package that is already open.
pub fn read_control(reader: impl Read) -> Result<String> {
    let mut control = None;
    let mut each = |entry: Entry| {
        if let ("control", Kind::File { bytes }) = (entry.path.as_str(), entry.kind) {
            control = Some(String::from_utf8(bytes).context("the control file is not UTF-8")?);
        }
        Ok(())
    };
    find_member(reader, "control.tar", |suffix, member| read_tar(decompress(suffix, member)?, &mut each))?;
    control.context("a package without a control file")
}

/// As [`entries`], of a package that is already open.
pub fn read(reader: impl Read, each: &mut impl FnMut(Entry) -> Result<()>) -> Result<()> {
    find_member(reader, DATA, |suffix, member| read_tar(decompress(suffix, member)?, each))
}

/// Calls `then` with the member whose name begins so, and with how the name ends.
fn find_member<R: Read>(
    reader: R,
    wanted: &str,
    then: impl FnOnce(&str, ar::Entry<'_, R>) -> Result<()>,
) -> Result<()> {
    let mut archive = ar::Archive::new(reader);
    let mut first = true;
    while let Some(member) = archive.next_entry() {
        let mut member = member.context("not an ar archive, or truncated")?;
        let name = String::from_utf8_lossy(member.header().identifier()).trim_end_matches('/').to_owned();
        if std::mem::take(&mut first) {
            check_format(&name, &mut member)?;
        }
        if let Some(suffix) = name.strip_prefix(wanted) {
            return then(suffix, member).with_context(|| format!("member {name}"));
        }
    }
    bail!("no {wanted} member: not a Debian package, or truncated")
}

/// The first member says the format's version (deb(5)); only major 2 exists.
fn check_format(name: &str, member: &mut impl Read) -> Result<()> {
    let mut version = String::new();
    member.take(16).read_to_string(&mut version).context("member debian-binary")?;
    ensure!(name == "debian-binary" && version.starts_with("2."), "not a Debian package of format 2.x");
    Ok(())
}

fn decompress<'a>(suffix: &str, member: impl Read + 'a) -> Result<Box<dyn Read + 'a>> {
    let inner: Box<dyn Read + 'a> = match suffix {
        "" => Box::new(member),
        ".gz" => Box::new(flate2::read::GzDecoder::new(member)),
        // Large packages are compressed in blocks, which are decompressed at the same time.
        ".xz" => {
            let member = BufReader::with_capacity(1 << 17, member);
            Box::new(liblzma::bufread::XzDecoder::new_stream(member, xz_stream()?))
        }
        ".zst" => Box::new(zstd::Decoder::new(member)?),
        other => bail!("unknown compression {other:?}"),
    };
    Ok(Box::new(Bounded { inner, left: UNPACKED }))
}

/// Several blocks at a time need memory of their own: the library's `new_parallel` grants none, and so takes one block
/// after the other.
fn xz_stream() -> Result<liblzma::stream::Stream> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut builder = liblzma::stream::MtStreamBuilder::new();
    builder.threads(u32::try_from(threads)?).memlimit_threading(XZ_MEMORY_AT_ONCE).memlimit_stop(XZ_MEMORY);
    builder.decoder().context("preparing to decompress xz")
}

/// What comes out of a compressed member, up to the limit.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 && !buffer.is_empty() {
            // Exactly at the limit there may be an end.
            return match self.inner.read(&mut [0])? {
                0 => Ok(0),
                _ => Err(std::io::Error::other(format!("it unpacks to more than {UNPACKED} bytes"))),
            };
        }
        let count = self.inner.read(&mut buffer[..most])?;
        self.left -= count as u64;
        Ok(count)
    }
}

fn read_tar(data: impl Read, each: &mut impl FnMut(Entry) -> Result<()>) -> Result<()> {
    let mut tar = tar::Archive::new(data);
    for entry in tar.entries()? {
        each(convert(entry?)?)?;
    }
    Ok(())
}

fn convert(mut entry: tar::Entry<'_, impl Read>) -> Result<Entry> {
    let path = clean(&text(&entry.path_bytes())?)?;
    let xattrs = read_xattrs(&mut entry)?;
    let header = entry.header();
    let (mode, uid, gid, mtime) = (header.mode()? & 0o7777, header.uid()?, header.gid()?, header.mtime()?);
    let device = || -> Result<(u32, u32)> {
        Ok((header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0)))
    };
    let link = || -> Result<String> {
        let bytes = entry.link_name_bytes().with_context(|| format!("{path}: a link without a target"))?;
        text(&bytes)
    };
    let kind = match header.entry_type() {
        tar::EntryType::Directory => Kind::Dir,
        tar::EntryType::Symlink => Kind::Symlink { target: link()? },
        tar::EntryType::Link => Kind::Hardlink { target: clean(&link()?)? },
        tar::EntryType::Char => device().map(|(major, minor)| Kind::CharDevice { major, minor })?,
        tar::EntryType::Block => device().map(|(major, minor)| Kind::BlockDevice { major, minor })?,
        tar::EntryType::Fifo => Kind::Fifo,
        tar::EntryType::Regular | tar::EntryType::Continuous => {
            let mut bytes = Vec::new();
            let size = entry.size();
            entry.read_to_end(&mut bytes).with_context(|| format!("{path}: unreadable or truncated"))?;
            ensure!(bytes.len() as u64 == size, "{path}: truncated");
            Kind::File { bytes }
        }
        other => bail!("{path}: unknown kind of tar entry {:?}", other.as_byte() as char),
    };
    ensure!(!path.is_empty() || kind == Kind::Dir, "the package's root is no directory");
    Ok(Entry { path, kind, mode, uid, gid, mtime, xattrs })
}

fn read_xattrs(entry: &mut tar::Entry<'_, impl Read>) -> Result<Vec<(String, Vec<u8>)>> {
    let mut xattrs = Vec::new();
    if let Some(extensions) = entry.pax_extensions()? {
        for extension in extensions {
            let extension = extension?;
            if let Some(name) = extension.key().ok().and_then(|key| key.strip_prefix("SCHILY.xattr.")) {
                xattrs.push((name.to_owned(), extension.value_bytes().to_vec()));
            }
        }
    }
    xattrs.sort();
    Ok(xattrs)
}

fn text(bytes: &[u8]) -> Result<String> {
    let lossy = || String::from_utf8_lossy(bytes).into_owned();
    String::from_utf8(bytes.to_vec()).map_err(|_| anyhow::anyhow!("{:?} is not UTF-8", lossy()))
}

/// A path below the root; one with `..` would leave it.
fn clean(path: &str) -> Result<String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    ensure!(!parts.contains(&".."), "{path:?} leaves the package's root");
    ensure!(!path.contains('\0'), "{path:?} holds a zero byte");
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests;

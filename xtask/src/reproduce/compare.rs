//! Where two images differ: partition, file in it, file in that, and the first byte.

use std::fmt;
use std::fs::{self, File};
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};

use anyhow::{Context, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};
use kontor_boot::PartitionKind;
use kontor_boot::gpt::{Entry, Header, SECTOR, Table};

use super::trees::{self, How};
use super::{checkout, cpio};
use crate::image::process::run;
use crate::scratch;
use crate::tools::Tools;

/// Bytes shown from the first that differs.
const SHOWN: usize = 16;
/// Bytes compared at a time.
const BLOCK: usize = 1 << 20;
/// How folders with unpacked images begin.
const UNPACKED: &str = ".compare-";

/// The first difference of two images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// From the partition to the innermost file.
    pub place: Vec<String>,
    /// What differs there.
    pub what: What,
}

/// What differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Bytes, from this offset in the innermost place.
    Bytes {
        /// Of the first that differs.
        offset: u64,
        /// From there on, in the first image; empty where it has ended.
        first: Vec<u8>,
        /// And in the second.
        second: Vec<u8>,
    },
    /// Something else, in words.
    Said(String),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.place.join(" > "))?;
        match &self.what {
            What::Said(text) => write!(f, " {text}"),
            What::Bytes { offset, first, second } => {
                writeln!(f, ", byte {offset} ({offset:#x}):")?;
                writeln!(f, "  first   {}", shown(first))?;
                write!(f, "  second  {}", shown(second))
            }
        }
    }
}

/// `41 00 …  "A.…"`.
fn shown(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "has ended".to_owned();
    }
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x} ")).collect();
    let text = bytes.iter().map(|byte| if (32..127).contains(byte) { char::from(*byte) } else { '.' });
    format!("{hex:<48} {}", text.collect::<String>())
}

/// The first difference of two disk images; `scratch` is a folder with room to unpack them.
///
/// # Errors
/// When an image cannot be read or unpacked.
pub fn images(
    first: &Utf8Path,
    second: &Utf8Path,
    tools: &Tools,
    scratch: &Utf8Path,
) -> Result<Option<Difference>> {
    let Some(offset) = first_byte(first, second)? else { return Ok(None) };
    let table = table(first)?;
    let entry = table
        .entries
        .iter()
        .find(|entry| (entry.offset()..entry.offset() + entry.length()).contains(&offset));
    let Some(entry) = entry else {
        let place = if offset < table.first_usable_lba * SECTOR || offset > table.last_usable_lba * SECTOR {
            "partition table"
        } else {
            "between the partitions"
        };
        return bytes(first, second, vec![place.to_owned()]).map(Some);
    };
    let place =
        entry.kind().map_or_else(|| format!("partition {}", entry.number), |kind| kind.name().to_owned());
    let (folder, _claim) = scratch::directory(scratch, UNPACKED)?;
    let walk = Walk { tools, folder: super::utf8(folder.path())? };
    let (a, b) = (walk.folder.join("first.part"), walk.folder.join("second.part"));
    carve(first, entry, &a)?;
    carve(second, entry, &b)?;
    walk.partition(entry.kind(), &a, &b, place).map(Some)
}

/// Unpacks and compares, level by level.
struct Walk<'a> {
    tools: &'a Tools,
    folder: &'a Utf8Path,
}

impl Walk<'_> {
    fn partition(
        &self,
        kind: Option<PartitionKind>,
        a: &Utf8Path,
        b: &Utf8Path,
        place: String,
    ) -> Result<Difference> {
        use PartitionKind::{Esp, SlotA, SlotB, System};
        let place = vec![place];
        match kind {
            Some(SlotA | SlotB | System) => {
                self.files(a, b, place, "ext4", |image, to| self.unpack_ext4(image, to))
            }
            Some(Esp) => self.files(a, b, place, "esp", unpack_fat),
            _ => bytes(a, b, place),
        }
    }

    /// Compares the files in two file systems; when all are the same, the file systems' own bytes.
    fn files(
        &self,
        a: &Utf8Path,
        b: &Utf8Path,
        mut place: Vec<String>,
        level: &str,
        unpack: impl Fn(&Utf8Path, &Utf8Path) -> Result<()>,
    ) -> Result<Difference> {
        let (first, second) =
            (self.folder.join(format!("{level}-first")), self.folder.join(format!("{level}-second")));
        for (image, to) in [(a, &first), (b, &second)] {
            fs::create_dir_all(to).with_context(|| format!("making {to}"))?;
            if let Err(error) = unpack(image, to) {
                let mut difference = bytes(a, b, place)?;
                difference.place.push(format!("(cannot be unpacked: {error:#})"));
                return Ok(difference);
            }
        }
        match trees::first_difference(&first, &second)? {
            None => self.metadata(a, b, place, level),
            Some((path, How::Said(text))) => {
                place.push(path.into_string());
                Ok(Difference { place, what: What::Said(text) })
            }
            Some((path, How::Content)) => {
                place.push(path.to_string());
                let (first, second) = (first.join(&path), second.join(&path));
                match path.file_name() {
                    Some("initrd") => self.initrd(&first, &second, place),
                    _ => bytes(&first, &second, place),
                }
            }
        }
    }

    /// Every file has the same name, mode and content: what the file systems say of themselves, else their bytes.
    fn metadata(
        &self,
        a: &Utf8Path,
        b: &Utf8Path,
        mut place: Vec<String>,
        level: &str,
    ) -> Result<Difference> {
        place.push("(metadata: every file has the same name, mode and content)".to_owned());
        let (ours, theirs) = (self.described(a, level)?, self.described(b, level)?);
        let differing = ours.lines().zip(theirs.lines()).find(|(x, y)| x != y);
        match differing {
            Some((x, y)) => {
                let [x, y] = [x, y].map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
                Ok(Difference {
                    place,
                    what: What::Said(format!("says {x:?} in the first, {y:?} in the second")),
                })
            }
            None => bytes(a, b, place),
        }
    }

    /// The superblock in words, without its check sum, which only says that something differs.
    fn described(&self, image: &Utf8Path, level: &str) -> Result<String> {
        let mut command = match level {
            "ext4" => self.tools.command("dumpe2fs")?,
            "erofs" => self.tools.command("dump.erofs")?,
            _ => return Ok(String::new()),
        };
        let summary = if level == "ext4" { "-h" } else { "-s" };
        command.arg(summary).arg(image);
        let text = String::from_utf8_lossy(&run(command)?).into_owned();
        Ok(text
            .lines()
            .filter(|line| !line.to_lowercase().contains("checksum:"))
            .map(|line| format!("{line}\n"))
            .collect())
    }

    fn initrd(&self, first: &Utf8Path, second: &Utf8Path, mut place: Vec<String>) -> Result<Difference> {
        let (a, b) = (fs::read(first)?, fs::read(second)?);
        let (Ok(ours), Ok(theirs)) = (cpio::entries(&a), cpio::entries(&b)) else {
            return bytes(first, second, place);
        };
        let differing = ours.iter().zip(&theirs).find(|(x, y)| x != y);
        let Some((x, y)) = differing else {
            if ours.len() != theirs.len() {
                let what = What::Said(format!(
                    "has {} entries in the first, {} in the second",
                    ours.len(),
                    theirs.len()
                ));
                return Ok(Difference { place, what });
            }
            return bytes(first, second, place);
        };
        place.push(x.name.clone());
        if x.name != y.name {
            let what = What::Said(format!("has the place of {} in the second", y.name));
            return Ok(Difference { place, what });
        }
        if x.content == y.content {
            let [x, y] = [x.header, y.header].map(String::from_utf8_lossy);
            return Ok(Difference {
                place,
                what: What::Said(format!("has the header {x} in the first, {y} in the second")),
            });
        }
        let (first, second) = (self.folder.join("first.entry"), self.folder.join("second.entry"));
        fs::write(&first, x.content).with_context(|| format!("writing {first}"))?;
        fs::write(&second, y.content).with_context(|| format!("writing {second}"))?;
        match x.name.as_str() {
            "base.erofs" => {
                self.files(&first, &second, place, "erofs", |image, to| self.unpack_erofs(image, to))
            }
            _ => bytes(&first, &second, place),
        }
    }

    fn unpack_ext4(&self, image: &Utf8Path, to: &Utf8Path) -> Result<()> {
        let mut command = self.tools.command("debugfs")?;
        // Names with blanks would end the argument: the image is named by us, and lies where we are.
        command.current_dir(to).args(["-R", "rdump / ."]).arg(image);
        run(command).map(drop)
    }

    fn unpack_erofs(&self, image: &Utf8Path, to: &Utf8Path) -> Result<()> {
        let mut command = self.tools.command("fsck.erofs")?;
        command.args(["-d1", "--overwrite", "--no-preserve-owner", "--preserve-perms"]);
        command.arg(format!("--extract={to}")).arg(image);
        run(command).map(drop)
    }
}

fn unpack_fat(image: &Utf8Path, to: &Utf8Path) -> Result<()> {
    let volume = fs::read(image).with_context(|| format!("reading {image}"))?;
    let volume = fatfs::FileSystem::new(Cursor::new(volume), fatfs::FsOptions::new())?;
    let mut pending = vec![(volume.root_dir(), to.to_owned())];
    while let Some((folder, to)) = pending.pop() {
        for entry in folder.iter() {
            let entry = entry?;
            let name = entry.file_name();
            if name == "." || name == ".." {
                continue;
            }
            // A damaged name must not lead out of the folder.
            if name.contains('/') {
                bail!("a file is called {name:?}");
            }
            let path = to.join(&name);
            if entry.is_dir() {
                fs::create_dir(&path)?;
                pending.push((entry.to_dir(), path));
            } else {
                std::io::copy(&mut entry.to_file(), &mut File::create(&path)?)?;
            }
        }
    }
    Ok(())
}

/// The partition table that begins in the second sector.
fn table(image: &Utf8Path) -> Result<Table> {
    let mut file = File::open(image).with_context(|| format!("opening {image}"))?;
    let mut read = |offset: u64, length: usize| -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    };
    let mut parsed = || -> Result<Table> {
        let header = Header::decode(&read(SECTOR, 512)?, 1)?;
        let (at, length) = header.entries_range();
        Ok(header.with_entries(&read(at, length)?)?)
    };
    parsed().with_context(|| format!("the partition table of {image}"))
}

/// Copies one partition into a file of its own.
fn carve(image: &Utf8Path, entry: &Entry, to: &Utf8Path) -> Result<()> {
    checkout::copy_range(image, entry.offset(), entry.length(), to)
}

/// Two files from the first byte that differs.
fn bytes(first: &Utf8Path, second: &Utf8Path, place: Vec<String>) -> Result<Difference> {
    let Some(offset) = first_byte(first, second)? else {
        bail!("{first} and {second} are the same, but what holds them is not");
    };
    let at = |path: &Utf8PathBuf| -> Result<Vec<u8>> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(SHOWN as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let (first, second) = (at(&first.to_owned())?, at(&second.to_owned())?);
    Ok(Difference { place, what: What::Bytes { offset, first, second } })
}

/// Offset of the first byte that differs; the shorter file's end, when the other goes on.
fn first_byte(first: &Utf8Path, second: &Utf8Path) -> Result<Option<u64>> {
    let open = |path: &Utf8Path| File::open(path).with_context(|| format!("opening {path}"));
    let (mut first, mut second) = (BufReader::new(open(first)?), BufReader::new(open(second)?));
    let (mut a, mut b) = (Vec::with_capacity(BLOCK), Vec::with_capacity(BLOCK));
    let mut offset = 0;
    loop {
        a.clear();
        b.clear();
        first.by_ref().take(BLOCK as u64).read_to_end(&mut a)?;
        second.by_ref().take(BLOCK as u64).read_to_end(&mut b)?;
        if a != b {
            let common = a.len().min(b.len());
            let at = a.iter().zip(&b).position(|(x, y)| x != y).unwrap_or(common);
            return Ok(Some(offset + at as u64));
        }
        if a.is_empty() {
            return Ok(None);
        }
        offset += a.len() as u64;
    }
}

//! ELF64 files in little-endian order, as far as the builder looks into them: sections and symbols.
//!
//! Files come from packages and the linker. One that is damaged, or of another kind, is refused as a whole; no number
//! in it leads out of it.

use std::ops::Range;

/// Size of a section header, and places in it (`Elf64_Shdr` in elf(5)).
const SECTION: usize = 64;
const SH_TYPE: usize = 4;
const SH_FLAGS: usize = 8;
const SH_ADDRESS: usize = 16;
const SH_OFFSET: usize = 24;
/// Where a section header says how long the section is.
pub const SH_SIZE: usize = 32;
const SH_LINK: usize = 40;
/// Values of a section's type and flags.
const SHT_SYMTAB: u32 = 2;
const SHT_NOBITS: u32 = 8;
const SHF_ALLOC: u64 = 2;
/// Size of a symbol (`Elf64_Sym`), and the kinds that have bytes.
const SYMBOL: usize = 24;
const STT_OBJECT: u8 = 1;
const STT_FUNC: u8 = 2;
/// Longer names are cut. Without a limit a file of a few megabytes could make its reader look through it once per name.
const NAME: usize = 1 << 14;

/// A file that was understood.
#[derive(Debug)]
pub struct Elf<'a> {
    bytes: &'a [u8],
    /// In the order of the file's table, which begins with an empty one.
    pub sections: Vec<Section<'a>>,
}

/// One section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section<'a> {
    /// Its name; not necessarily UTF-8.
    pub name: &'a [u8],
    /// Where its header is in the file.
    pub header: usize,
    /// Where its content is in the file; empty when it has none there.
    pub content: Range<usize>,
    /// Where it is in memory.
    pub address: u64,
    /// Whether it is part of the running program.
    pub loaded: bool,
    kind: u32,
    link: usize,
}

/// A function or variable with a place of its own in a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// As the compiler mangled it.
    pub name: &'a str,
    /// Number of the section it is in.
    pub section: usize,
    /// Where it begins in memory.
    pub address: u64,
    /// Its length, never zero.
    pub size: u64,
}

impl<'a> Elf<'a> {
    /// `None` when the file is no ELF64 file in little-endian order, or damaged.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        if bytes.get(..6)? != b"\x7fELF\x02\x01" {
            return None;
        }
        let table = place(long(bytes, 40)?)?;
        let (count, names) = (half(bytes, 60)?, half(bytes, 62)?);
        let header = |index: usize| {
            let at = table.checked_add(index.checked_mul(SECTION)?)?;
            bytes.get(at..at.checked_add(SECTION)?).map(|header| (at, header))
        };
        let names = bytes.get(content(header(names)?.1, bytes.len())?)?;
        let section = |index: usize| {
            let (at, header) = header(index)?;
            Some(Section {
                name: name(names, header)?,
                header: at,
                content: content(header, bytes.len())?,
                address: long(header, SH_ADDRESS)?,
                loaded: long(header, SH_FLAGS)? & SHF_ALLOC != 0,
                kind: word(header, SH_TYPE)?,
                link: place(word(header, SH_LINK)?.into())?,
            })
        };
        let sections = (0..count).map(section).collect::<Option<_>>()?;
        Some(Self { bytes, sections })
    }

    /// The content of the first section of this name.
    #[must_use]
    pub fn section(&self, name: &[u8]) -> Option<&'a [u8]> {
        let section = self.sections.iter().find(|section| section.name == name)?;
        self.bytes.get(section.content.clone())
    }

    /// Functions and variables, in the order of the file; none when it was stripped.
    pub fn symbols(&self) -> impl Iterator<Item = Symbol<'a>> {
        // There may be one at most.
        let table = self.sections.iter().find(|section| section.kind == SHT_SYMTAB);
        table.into_iter().flat_map(|table| {
            let names = self.sections.get(table.link).and_then(|names| self.bytes.get(names.content.clone()));
            let records = self.bytes.get(table.content.clone()).unwrap_or_default().chunks_exact(SYMBOL);
            records.filter_map(move |record| symbol(record, names?))
        })
    }
}

/// Where a section's bytes are; a section without any claims a length all the same.
fn content(header: &[u8], length: usize) -> Option<Range<usize>> {
    if word(header, SH_TYPE)? == SHT_NOBITS {
        return Some(0..0);
    }
    let start = place(long(header, SH_OFFSET)?)?;
    let end = start.checked_add(place(long(header, SH_SIZE)?)?)?;
    (end <= length).then_some(start..end)
}

fn symbol<'a>(record: &[u8], names: &'a [u8]) -> Option<Symbol<'a>> {
    let name = name(names, record)?;
    let kind = record.get(4)? & 0xf;
    let (address, size) = (long(record, 8)?, long(record, 16)?);
    // Section 0 and the reserved numbers at the end are no place: undefined, absolute, common.
    let section = usize::from(u16::from_le_bytes(record.get(6..8)?.try_into().ok()?));
    let placed = (1..0xff00).contains(&section);
    let has_bytes = size > 0 && (kind == STT_FUNC || kind == STT_OBJECT);
    let name = std::str::from_utf8(name).ok()?;
    (placed && has_bytes).then_some(Symbol { name, section, address, size })
}

/// The name whose place in `names` begins a header or a symbol.
fn name<'a>(names: &'a [u8], record: &[u8]) -> Option<&'a [u8]> {
    let rest = names.get(place(word(record, 0)?.into())?..)?;
    rest.get(..rest.len().min(NAME))?.split(|byte| *byte == 0).next()
}

fn place(number: u64) -> Option<usize> {
    usize::try_from(number).ok()
}

fn half(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?).into())
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
#[path = "elf/tests.rs"]
pub(super) mod tests;

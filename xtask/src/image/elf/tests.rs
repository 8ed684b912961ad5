//! Files made by code, good and bad.

use super::*;

/// The flag of a section that is part of the running program.
pub(in crate::image) const LOADED: u64 = SHF_ALLOC;

/// Sections and symbols from which a file is made.
pub(in crate::image) struct File {
    sections: Vec<(Vec<u8>, u32, u64, Vec<u8>)>,
    symbols: Vec<u8>,
    names: Vec<u8>,
}

impl File {
    /// Where every section claims to be in memory.
    pub(in crate::image) const ADDRESS: u64 = 0x1000;

    /// Sections (from number 1 on) by name, flags and content.
    pub(in crate::image) fn new(sections: &[(&[u8], u64, &[u8])]) -> Self {
        let section =
            |(name, flags, content): &(&[u8], u64, &[u8])| (name.to_vec(), 1, *flags, content.to_vec());
        let all = std::iter::once((Vec::new(), 0, 0, Vec::new())).chain(sections.iter().map(section));
        Self { sections: all.collect(), symbols: vec![0; SYMBOL], names: vec![0] }
    }

    /// With a function in a section.
    pub(in crate::image) fn symbol(mut self, name: &str, section: u16, address: u64, size: u64) -> Self {
        self.symbols.extend(u32::try_from(self.names.len()).unwrap().to_le_bytes());
        self.symbols.extend([STT_FUNC, 0]);
        self.symbols.extend(section.to_le_bytes());
        self.symbols.extend(address.to_le_bytes());
        self.symbols.extend(size.to_le_bytes());
        self.names.extend(name.as_bytes());
        self.names.push(0);
        self
    }

    /// The file. Behind the given sections come the symbols, their names, and the sections' names.
    pub(in crate::image) fn bytes(&self) -> Vec<u8> {
        let mut sections = self.sections.clone();
        if self.names.len() > 1 {
            sections.push((b".symtab".to_vec(), SHT_SYMTAB, 0, self.symbols.clone()));
            sections.push((b".strtab".to_vec(), 3, 0, self.names.clone()));
        }
        sections.push((b".shstrtab".to_vec(), 3, 0, Vec::new()));
        let (mut names, mut places) = (Vec::new(), Vec::new());
        for (name, ..) in &sections {
            places.push(u32::try_from(names.len()).unwrap());
            names.extend(name);
            names.push(0);
        }
        sections.last_mut().unwrap().3 = names;
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(64, 0);
        let mut table = Vec::new();
        for (number, ((_, kind, flags, content), name)) in sections.iter().zip(places).enumerate() {
            table.extend(name.to_le_bytes());
            table.extend(kind.to_le_bytes());
            for field in [*flags, Self::ADDRESS, elf.len() as u64, content.len() as u64] {
                table.extend(field.to_le_bytes());
            }
            table.extend(u32::try_from(number + 1).unwrap().to_le_bytes());
            table.resize(table.len().next_multiple_of(SECTION), 0);
            elf.extend(content);
        }
        let (at, count) = (elf.len() as u64, u16::try_from(sections.len()).unwrap());
        elf[40..48].copy_from_slice(&at.to_le_bytes());
        elf[60..62].copy_from_slice(&count.to_le_bytes());
        elf[62..64].copy_from_slice(&(count - 1).to_le_bytes());
        elf.extend(table);
        elf
    }
}

fn file() -> File {
    File::new(&[(b".text", LOADED, b"code"), (b".data", LOADED, b"things")])
}

#[test]
fn sections_and_symbols_are_found() {
    let bytes =
        file().symbol("f", 1, 0x1000, 3).symbol("nowhere", 0, 0, 3).symbol("empty", 1, 0x1000, 0).bytes();
    let elf = Elf::parse(&bytes).unwrap();
    assert_eq!(elf.section(b".text"), Some(&b"code"[..]));
    assert_eq!(elf.section(b".bss"), None);
    assert!(elf.sections[2].loaded && !elf.sections[3].loaded);
    let symbols: Vec<_> = elf.symbols().collect();
    assert_eq!(symbols, [Symbol { name: "f", section: 1, address: 0x1000, size: 3 }]);
    assert_eq!(Elf::parse(&file().bytes()).unwrap().symbols().count(), 0);
}

#[test]
fn cut_files_are_refused_at_every_length() {
    let bytes = file().symbol("f", 1, 0x1000, 3).bytes();
    for length in 0..bytes.len() {
        assert!(Elf::parse(&bytes[..length]).is_none(), "{length}");
    }
}

/// Numbers at the end of what a machine word holds, in each place of both headers.
#[test]
fn no_number_leads_out_of_the_file() {
    let bytes = file().symbol("f", 1, 0x1000, 3).bytes();
    for at in 0..bytes.len() {
        for length in [2, 4, 8].into_iter().filter(|length| at + length <= bytes.len()) {
            for last in [0xff, 0xc0] {
                let mut damaged = bytes.clone();
                damaged[at..at + length].fill(0xff);
                damaged[at] = last;
                if let Some(elf) = Elf::parse(&damaged) {
                    assert!(elf.symbols().count() <= 2);
                }
            }
        }
    }
}

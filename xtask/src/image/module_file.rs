//! A kernel module's file without what only costs time and RAM on the box.
//!
//! - The appended signature: checking it is an ECDSA verification per module, as long as all the rest of a boot
//!   together on a slow processor. Modules come from the initramfs, which is bound by the release's manifest, so it
//!   proves nothing that is not proved already. Only under Secure Boot, where the kernel is locked down and takes
//!   signed modules alone, is it needed; a product asks for it with `module-signatures` ([`Form::Signed`]).
//! - `__mcount_loc`, by which ftrace finds every function of the module, at each insertion, to be able to trace it.
//!   The calls themselves are no-operations since the kernel was compiled.
//! - `.BTF`, type information for BPF programs; the first module with one makes the kernel take up its own, too.
//!
//! Sections keep their place in the table and become empty, so that no index changes; their bytes become zeros, which
//! compress to nothing. A file that is not understood stays as it is.

/// Ends a signed module (`include/linux/module_signature.h`).
const SIGNATURE_MARK: &[u8] = b"~Module signature appended~\n";
/// `struct module_signature`: five bytes, three of padding, the signature's length in big-endian order.
const SIGNATURE_INFO: usize = 12;
/// Sections nobody on the box reads.
const USELESS: [&[u8]; 4] = [b"__mcount_loc", b".rela__mcount_loc", b".BTF", b".BTF.base"];
/// Size of an ELF64 section header, and places in it.
const SECTION: usize = 64;
const SH_OFFSET: usize = 24;
const SH_SIZE: usize = 32;

/// How modules go onto the box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Without what is said above.
    Slim,
    /// As Debian signed them. A signature is for every byte before it, so nothing else can be left out either.
    Signed,
}

impl Form {
    /// What a product asks for.
    #[must_use]
    pub fn new(signatures: bool) -> Self {
        if signatures { Self::Signed } else { Self::Slim }
    }

    /// For the key of a step.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Slim => "slim",
            Self::Signed => "signed",
        }
    }

    /// A module in this form.
    #[must_use]
    pub fn of(self, bytes: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Slim => slimmed(bytes),
            Self::Signed => bytes,
        }
    }
}

fn slimmed(mut bytes: Vec<u8>) -> Vec<u8> {
    let unsigned = unsigned_length(&bytes);
    bytes.truncate(unsigned);
    for section in useless_sections(&bytes).unwrap_or_default() {
        bytes[section.content].fill(0);
        bytes[section.header + SH_SIZE..section.header + SH_SIZE + 8].fill(0);
    }
    bytes
}

fn unsigned_length(bytes: &[u8]) -> usize {
    let length = || {
        let signed = bytes.strip_suffix(SIGNATURE_MARK)?;
        let (rest, info) = signed.split_at_checked(signed.len().checked_sub(SIGNATURE_INFO)?)?;
        let signature = u32::from_be_bytes(info[8..12].try_into().ok()?);
        // Key identifiers as in `extract-cert`'s days; PKCS#7 has none.
        let names = usize::from(info[3]) + usize::from(info[4]);
        rest.len().checked_sub(usize::try_from(signature).ok()? + names)
    };
    length().unwrap_or(bytes.len())
}

/// The content of a section, if the file is understood and has it.
#[must_use]
pub fn section<'a>(bytes: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let found = sections(bytes, &[name])?;
    bytes.get(found.first()?.content.clone())
}

fn useless_sections(bytes: &[u8]) -> Option<Vec<Section>> {
    sections(bytes, &USELESS)
}

/// Where a section's header and its content are.
struct Section {
    header: usize,
    content: std::ops::Range<usize>,
}

/// The sections of these names. `None` when the file is no ELF64 file in little-endian order, or damaged.
fn sections(bytes: &[u8], wanted: &[&[u8]]) -> Option<Vec<Section>> {
    if bytes.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let table = usize::try_from(long(bytes, 40)?).ok()?;
    let (count, names) = (half(bytes, 60)?, half(bytes, 62)?);
    let header = |index: usize| table.checked_add(index.checked_mul(SECTION)?);
    let content = |header: usize| {
        let start = usize::try_from(long(bytes, header + SH_OFFSET)?).ok()?;
        let end = start.checked_add(usize::try_from(long(bytes, header + SH_SIZE)?).ok()?)?;
        (end <= bytes.len()).then_some(start..end)
    };
    let names = bytes.get(content(header(names)?)?)?;
    let mut found = Vec::new();
    for index in 0..count {
        let header = header(index)?;
        let at = usize::try_from(word(bytes, header)?).ok()?;
        let name = names.get(at..)?.split(|byte| *byte == 0).next()?;
        if wanted.contains(&name) {
            found.push(Section { header, content: content(header)? });
        }
    }
    Some(found)
}

fn half(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?).into())
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with the sections "" (index 0), names, `.text` and `.BTF`.
    fn module() -> Vec<u8> {
        let names = b"\0.shstrtab\0.text\0.BTF\0";
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(64, 0);
        let mut place = |content: &[u8]| {
            let at = elf.len() as u64;
            elf.extend(content);
            (at, content.len() as u64)
        };
        let places = [(0, (0, 0)), (1, place(names)), (11, place(b"code")), (17, place(b"types"))];
        let table = elf.len() as u64;
        for (name, (at, size)) in places {
            let mut header = [0; SECTION];
            header[..4].copy_from_slice(&u32::to_le_bytes(name));
            header[SH_OFFSET..SH_OFFSET + 8].copy_from_slice(&at.to_le_bytes());
            header[SH_SIZE..SH_SIZE + 8].copy_from_slice(&size.to_le_bytes());
            elf.extend(header);
        }
        elf[40..48].copy_from_slice(&table.to_le_bytes());
        elf[60..62].copy_from_slice(&4_u16.to_le_bytes());
        elf[62..64].copy_from_slice(&1_u16.to_le_bytes());
        elf
    }

    fn signed(mut module: Vec<u8>) -> Vec<u8> {
        module.extend(b"signature");
        module.extend([0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
        module.extend(SIGNATURE_MARK);
        module
    }

    fn contains(bytes: &[u8], part: &[u8]) -> bool {
        bytes.windows(part.len()).any(|window| window == part)
    }

    #[test]
    fn signature_and_types_go_and_code_stays() {
        let slim = slimmed(signed(module()));
        assert_eq!(slim.len(), module().len());
        assert!(contains(&slim, b"code") && !contains(&slim, b"types"));
        let sections = useless_sections(&slim).unwrap();
        assert!(sections.iter().all(|section| section.content.is_empty()));
        assert_eq!(slimmed(slim.clone()), slim);
        assert_eq!(section(&module(), b".text"), Some(&b"code"[..]));
        assert_eq!(section(&module(), b".data"), None);
    }

    #[test]
    fn a_product_can_keep_signatures() {
        let debians = signed(module());
        assert_eq!(Form::new(true).of(debians.clone()), debians, "a changed byte would void the signature");
        assert_eq!(Form::new(false).of(debians.clone()), slimmed(debians));
    }

    #[test]
    fn what_is_not_understood_stays() {
        for odd in [b"".to_vec(), b"\x7fELF".to_vec(), module()[..70].to_vec(), SIGNATURE_MARK.to_vec()] {
            assert_eq!(slimmed(odd.clone()), odd);
        }
        let mut short = module();
        short.truncate(short.len() - SECTION);
        assert_eq!(slimmed(short.clone()), short);
    }
}

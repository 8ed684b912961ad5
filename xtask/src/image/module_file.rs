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

use std::ops::Range;

use super::elf::{Elf, SH_SIZE};

/// Ends a signed module (`include/linux/module_signature.h`).
const SIGNATURE_MARK: &[u8] = b"~Module signature appended~\n";
/// `struct module_signature`: five bytes, three of padding, the signature's length in big-endian order.
const SIGNATURE_INFO: usize = 12;
/// Sections nobody on the box reads.
const USELESS: [&[u8]; 4] = [b"__mcount_loc", b".rela__mcount_loc", b".BTF", b".BTF.base"];

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
    for (header, content) in useless_sections(&bytes) {
        bytes[content].fill(0);
        bytes[header + SH_SIZE..header + SH_SIZE + 8].fill(0);
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
    Elf::parse(bytes)?.section(name)
}

/// Where the headers of these sections are, and their contents.
fn useless_sections(bytes: &[u8]) -> Vec<(usize, Range<usize>)> {
    let sections = Elf::parse(bytes).map(|elf| elf.sections).unwrap_or_default();
    let useless = sections.into_iter().filter(|section| USELESS.contains(&section.name));
    useless.map(|section| (section.header, section.content)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::elf::tests::{File, LOADED};

    fn module() -> Vec<u8> {
        File::new(&[(b".text", LOADED, b"code"), (b".BTF", 0, b"types")]).bytes()
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
        assert!(useless_sections(&slim).iter().all(|(_, content)| content.is_empty()));
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
        short.truncate(short.len() - 64);
        assert_eq!(slimmed(short.clone()), short);
    }
}

//! What makes up a program: how many bytes each crate has in it, and each section what no crate is known for.
//!
//! Read from the symbols, of which a shipped program has none: a second link keeps them (`firmware.rs`). The
//! compiler's names say which crate a function is of; one that was inlined counts for whom it was inlined into. A
//! program without symbols is told by its sections. Only what is loaded into memory counts, so the parts of a program with
//! symbols are those of the one without.

use std::collections::BTreeMap;

use super::elf::{Elf, Section, Symbol};

/// The language's own crates. A generic function of theirs that names another crate is there because of that one.
const OWN: [&str; 3] = ["core", "alloc", "std"];
/// Whose functions and variables the others are: nothing else is linked into the firmware.
const C_LIBRARY: &str = "the C library";

/// The parts of a program and their sizes, in any order; none when it is not understood.
#[must_use]
pub fn of(program: &[u8]) -> Vec<(String, u64)> {
    let Some(elf) = Elf::parse(program) else { return Vec::new() };
    let mut symbols: Vec<Vec<Symbol>> = vec![Vec::new(); elf.sections.len()];
    for symbol in elf.symbols() {
        if let Some(of_section) = symbols.get_mut(symbol.section) {
            of_section.push(symbol);
        }
    }
    let mut sizes = BTreeMap::new();
    for (section, symbols) in elf.sections.iter().zip(symbols).filter(|(section, _)| section.loaded) {
        add(section, symbols, &mut sizes);
    }
    sizes.into_iter().filter(|(_, bytes)| *bytes > 0).collect()
}

/// Every byte once: functions that are the same to the last bit share their place.
fn add(section: &Section, mut symbols: Vec<Symbol>, sizes: &mut BTreeMap<String, u64>) {
    symbols.sort_by(|a, b| (a.address, a.name).cmp(&(b.address, b.name)));
    let length = section.content.len() as u64;
    let (mut counted_to, mut named) = (section.address, 0);
    let end = section.address.saturating_add(length);
    for symbol in symbols {
        let stop = symbol.address.saturating_add(symbol.size).min(end);
        let bytes = stop.saturating_sub(symbol.address.max(counted_to));
        if let Some(whose) = whose(symbol.name).filter(|_| bytes > 0) {
            *sizes.entry(whose).or_insert(0) += bytes;
            named += bytes;
            counted_to = stop;
        }
    }
    let name = String::from_utf8_lossy(section.name);
    let rest = if named > 0 { format!("{name}, what has no name") } else { name.into_owned() };
    *sizes.entry(rest).or_insert(0) += length - named;
}

/// The crate of a symbol; `None` for a constant without a name, which the compiler numbers.
fn whose(symbol: &str) -> Option<String> {
    if symbol.starts_with("anon.") {
        return None;
    }
    let Ok(path) = rustc_demangle::try_demangle(symbol) else { return Some(C_LIBRARY.to_owned()) };
    // Without the hash.
    let path = format!("{path:#}");
    let crates = || crates(&path);
    let crate_name = crates().find(|name| !OWN.contains(name)).or_else(|| crates().next());
    Some(format!("crate {}", crate_name.unwrap_or("of no name")))
}

/// The first words of every path in a demangled name, such as `a` and `b` of `<a::X as b::Y>::f`.
fn crates(path: &str) -> impl Iterator<Item = &str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let rest = path.get(at..)?;
            let start = at + rest.find(is_word)?;
            let word = path.get(start..)?;
            let end = start + word.find(|c| !is_word(c)).unwrap_or(word.len());
            at = end;
            let begins = !path.get(..start)?.ends_with("::");
            if begins && path.get(end..)?.starts_with("::") {
                return path.get(start..end);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::elf::tests::{File, LOADED};

    #[track_caller]
    fn check_whose(symbol: &str, expect: Option<&str>) {
        assert_eq!(whose(symbol).as_deref(), expect, "{symbol}");
    }

    #[test]
    fn names_of_both_kinds_tell_the_crate() {
        check_whose("_ZN6kontor4dnsd6daemon6Daemon4turn17h40708f47f07bfcb3E", Some("crate kontor"));
        check_whose(
            "_RNvMs_NtNtNtCsjrHSEGnQ3l9_3std12backtrace_rs9symbolize5gimliNtB4_7Context3new",
            Some("crate std"),
        );
        let of_a_trait = "_ZN103_$LT$netlink_proto..connection..Connection$LT$T$C$S$C$C$GT$$u20$as$u20$core..future..\
                          future..Future$GT$4poll17h4a6174de1d9ba5f8E.llvm.18274550678002580180";
        check_whose(of_a_trait, Some("crate netlink_proto"));
        let of_ours = "_ZN4core3ptr46drop_in_place$LT$kontor_config..site..Site$GT$17h0123456789abcdefE";
        check_whose(of_ours, Some("crate kontor_config"));
        check_whose("__printf_fp_l", Some(C_LIBRARY));
        check_whose("anon.58baeeae7d5fe476157d296c9f08f803.214.llvm.5844774155465566772", None);
        check_whose("", Some(C_LIBRARY));
    }

    fn program() -> File {
        File::new(&[
            (b".text", LOADED, &[0x90; 100]),
            (b".eh_frame", LOADED, &[1; 30]),
            (b".comment", 0, b"rustc"),
        ])
    }

    #[track_caller]
    fn check(program: &File, expect: &[(&str, u64)]) {
        let expect: Vec<_> = expect.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect();
        assert_eq!(of(&program.bytes()), expect);
    }

    #[test]
    fn every_loaded_byte_counts_once() {
        let (ours, tokio) = ("_ZN6kontor4main17h0123456789abcdefE", "_ZN5tokio3run17h0123456789abcdefE");
        let text = File::ADDRESS;
        let named = program()
            .symbol(tokio, 1, text + 40, 20)
            .symbol(ours, 1, text, 50)
            .symbol("memcpy", 1, text + 90, 1000)
            .symbol("memmove", 1, text + 90, 10)
            .symbol("of_a_section_that_is_not_there", 9, text, 10);
        let (rest, unwinding) = ((".text, what has no name", 30), (".eh_frame", 30));
        check(&named, &[unwinding, rest, ("crate kontor", 50), ("crate tokio", 10), ("the C library", 10)]);
    }

    #[test]
    fn a_stripped_program_is_told_by_its_sections() {
        check(&program(), &[(".eh_frame", 30), (".text", 100)]);
        assert!(of(b"#!/bin/sh\n").is_empty());
    }
}

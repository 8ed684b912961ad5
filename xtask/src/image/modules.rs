//! Kernel modules: which of the kernel package's thousands go into the image, and in which order early ones load.
//!
//! Follows modules.dep, modules.softdep and the aliases softdeps use. A name no module and no builtin has is an
//! error: a driver that silently went missing is a dead network card in the field.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};

use super::glob::name_matches;

/// What depmod found out about a kernel's modules.
#[derive(Debug, Default)]
pub struct ModuleIndex {
    /// Module name → path below the module directory, without `.xz`.
    paths: BTreeMap<String, String>,
    /// Module name → modules it links against.
    needs: BTreeMap<String, Vec<String>>,
    /// Module name → names that must be loaded before or after.
    soft: BTreeMap<String, SoftDependencies>,
    /// Alias pattern → module.
    aliases: Vec<(String, String)>,
    /// Part of the kernel itself.
    builtin: BTreeSet<String>,
}

#[derive(Debug, Default, Clone)]
struct SoftDependencies {
    before: Vec<String>,
    after: Vec<String>,
}

/// A chosen module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Its name, with underscores.
    pub name: String,
    /// Path below the module directory, without `.xz`.
    pub path: String,
}

impl ModuleIndex {
    /// From the texts of modules.dep, modules.softdep, modules.alias and modules.builtin.
    #[must_use]
    pub fn parse(dep: &str, softdep: &str, alias: &str, builtin: &str) -> Self {
        let mut index = Self::default();
        for (path, needs) in dep.lines().filter_map(|line| line.split_once(':')) {
            let name = module_name(path);
            index.needs.insert(name.clone(), needs.split_whitespace().map(module_name).collect());
            index.paths.insert(name, path.strip_suffix(".xz").unwrap_or(path).to_owned());
        }
        for line in softdep.lines() {
            let mut words = line.split_whitespace();
            if let (Some("softdep"), Some(name)) = (words.next(), words.next()) {
                index.soft.entry(underscored(name)).or_default().extend(words);
            }
        }
        for line in alias.lines() {
            let mut words = line.split_whitespace();
            if let (Some("alias"), Some(pattern), Some(name)) = (words.next(), words.next(), words.next()) {
                index.aliases.push((underscored(pattern), underscored(name)));
            }
        }
        index.builtin = builtin.lines().map(module_name).collect();
        index
    }

    /// The wanted modules and everything they need, in path order.
    ///
    /// # Errors
    /// When a wanted name is neither a module nor built into the kernel.
    pub fn closure(&self, wanted: &[String]) -> Result<Vec<Module>> {
        let mut chosen: Vec<Module> = self.load_order(wanted)?;
        chosen.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(chosen)
    }

    /// The wanted modules and everything they need, each after what it needs.
    ///
    /// # Errors
    /// When a wanted name is neither a module nor built into the kernel.
    pub fn load_order(&self, wanted: &[String]) -> Result<Vec<Module>> {
        let missing: Vec<&String> = wanted.iter().filter(|name| !self.exists(&underscored(name))).collect();
        if !missing.is_empty() {
            bail!("the kernel has no such modules: {missing:?}");
        }
        let mut seen = BTreeSet::new();
        let mut order = Vec::new();
        for name in wanted {
            self.visit(&underscored(name), &mut seen, &mut order);
        }
        Ok(order)
    }

    fn exists(&self, name: &str) -> bool {
        self.paths.contains_key(name) || self.builtin.contains(name)
    }

    fn visit(&self, name: &str, seen: &mut BTreeSet<String>, order: &mut Vec<Module>) {
        let Some(path) = self.paths.get(name) else { return };
        if !seen.insert(name.to_owned()) {
            return;
        }
        let soft = self.soft.get(name).cloned().unwrap_or_default();
        for before in soft.before.iter().flat_map(|wish| self.resolve(wish)) {
            self.visit(&before, seen, order);
        }
        for need in &self.needs[name] {
            self.visit(need, seen, order);
        }
        order.push(Module { name: name.to_owned(), path: path.clone() });
        for after in soft.after.iter().flat_map(|wish| self.resolve(wish)) {
            self.visit(&after, seen, order);
        }
    }

    /// The modules a soft dependency means: one of that name, else all that have it as an alias.
    fn resolve(&self, wish: &str) -> Vec<String> {
        let wish = underscored(wish);
        if self.exists(&wish) {
            return vec![wish];
        }
        let matching =
            self.aliases.iter().filter(|(pattern, _)| name_matches(pattern.as_bytes(), wish.as_bytes()));
        matching.map(|(_, name)| name.clone()).collect()
    }
}

impl SoftDependencies {
    /// Words of a softdep line after the module's name; words before any section count for `pre:`.
    fn extend<'a>(&mut self, words: impl Iterator<Item = &'a str>) {
        let mut after = false;
        for word in words {
            match word {
                "pre:" => after = false,
                "post:" => after = true,
                name if after => self.after.push(name.to_owned()),
                name => self.before.push(name.to_owned()),
            }
        }
    }
}

/// `kernel/drivers/net/usb-net.ko.xz` → `usb_net`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    underscored(file.split(".ko").next().unwrap_or(file))
}

fn underscored(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "\
kernel/fs/erofs/erofs.ko.xz: kernel/lib/libcrc32c.ko.xz
kernel/lib/libcrc32c.ko.xz:
kernel/crypto/crc32c_generic.ko.xz:
kernel/arch/x86/crypto/crc32c-intel.ko.xz:
kernel/drivers/usb/storage/uas.ko.xz: kernel/drivers/usb/storage/usb-storage.ko.xz kernel/drivers/scsi/scsi_mod.ko.xz
kernel/drivers/usb/storage/usb-storage.ko.xz: kernel/drivers/scsi/scsi_mod.ko.xz
kernel/drivers/scsi/scsi_mod.ko.xz:
kernel/drivers/net/ethernet/realtek/r8169.ko.xz:
kernel/drivers/net/phy/realtek.ko.xz:
kernel/drivers/char/ipmi/ipmi_msghandler.ko.xz:
kernel/drivers/char/ipmi/ipmi_devintf.ko.xz: kernel/drivers/char/ipmi/ipmi_msghandler.ko.xz
";
    const SOFTDEP: &str = "\
# Soft dependencies
softdep libcrc32c pre: crc32c
softdep r8169 pre: realtek
softdep ipmi_msghandler post: ipmi_devintf
";
    const ALIAS: &str = "\
alias crc32c crc32c_generic
alias crypto-crc32c crc32c_generic
alias crc32c crc32c_intel
";
    const BUILTIN: &str = "kernel/drivers/input/keyboard/atkbd.ko\n";

    #[track_caller]
    fn check(wanted: &[&str], expected: &[&str]) {
        let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        let order = ModuleIndex::parse(DEP, SOFTDEP, ALIAS, BUILTIN).load_order(&wanted).unwrap();
        assert_eq!(order.iter().map(|module| module.name.as_str()).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn dependencies_load_first() {
        check(&["uas"], &["scsi_mod", "usb_storage", "uas"]);
        check(&["usb-storage", "uas"], &["scsi_mod", "usb_storage", "uas"]);
    }

    #[test]
    fn soft_dependencies_follow_names_and_aliases() {
        check(&["r8169"], &["realtek", "r8169"]);
        check(&["erofs"], &["crc32c_generic", "crc32c_intel", "libcrc32c", "erofs"]);
        check(&["ipmi_msghandler"], &["ipmi_msghandler", "ipmi_devintf"]);
    }

    #[test]
    fn builtins_need_nothing() {
        check(&["atkbd"], &[]);
    }

    #[test]
    fn an_unknown_module_is_an_error() {
        let wanted = ["r8169".to_owned(), "e1001e".to_owned()];
        let error = ModuleIndex::parse(DEP, SOFTDEP, ALIAS, BUILTIN).closure(&wanted).unwrap_err();
        assert_eq!(error.to_string(), "the kernel has no such modules: [\"e1001e\"]");
    }

    #[test]
    fn the_closure_is_sorted_by_path_and_uncompressed() {
        let closure =
            ModuleIndex::parse(DEP, SOFTDEP, ALIAS, BUILTIN).closure(&["erofs".to_owned()]).unwrap();
        let paths: Vec<&str> = closure.iter().map(|module| module.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "kernel/arch/x86/crypto/crc32c-intel.ko",
                "kernel/crypto/crc32c_generic.ko",
                "kernel/fs/erofs/erofs.ko",
                "kernel/lib/libcrc32c.ko"
            ]
        );
    }
}

//! Kernel modules: which of the kernel package's thousands go into the image, and in which order early ones load.
//!
//! Follows dependencies, soft dependencies and the aliases those use, as depmod's indexes or the modules themselves say. A name no module and no builtin has is an
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

/// What a module says of itself (its `.modinfo` section).
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ModuleInfo {
    needs: Vec<String>,
    soft: SoftDependencies,
    aliases: Vec<String>,
}

impl ModuleInfo {
    /// From the section: `key=value`, each ended by a zero byte.
    #[must_use]
    pub fn parse(section: &[u8]) -> Self {
        let mut info = Self::default();
        for field in section.split(|byte| *byte == 0) {
            let field = String::from_utf8_lossy(field);
            match field.split_once('=') {
                Some(("depends", names)) => {
                    info.needs.extend(names.split(',').filter(|name| !name.is_empty()).map(underscored));
                }
                Some(("softdep", wishes)) => info.soft.extend(wishes.split_whitespace()),
                Some(("alias", pattern)) => info.aliases.push(underscored(pattern)),
                _ => {}
            }
        }
        info
    }
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
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

/// What is still to be done to put modules in order.
enum Step {
    /// Everything a module needs, and itself.
    Visit(String),
    /// The module itself.
    Take(Module),
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

    /// Only what must be known about the wanted modules; `read` says what modules at some paths say of themselves.
    /// `paths` and `builtin` are as in [`Self::parse`].
    ///
    /// # Errors
    /// When a wanted name is neither a module nor built into the kernel, and those of `read`.
    pub fn explore<'a>(
        paths: impl Iterator<Item = &'a str>,
        builtin: &str,
        wanted: &[String],
        read: impl Fn(&[String]) -> Result<Vec<ModuleInfo>>,
    ) -> Result<Self> {
        let paths = paths.map(|path| (module_name(path), path.to_owned())).collect();
        let builtin = builtin.lines().map(module_name).collect();
        let mut index = Self { paths, builtin, ..Self::default() };
        loop {
            let order = index.load_order(wanted)?;
            let unknown: Vec<String> = index.unknown(&order).into_iter().collect();
            if unknown.is_empty() {
                return Ok(index);
            }
            let paths: Vec<String> = unknown.iter().map(|name| index.paths[name].clone()).collect();
            for (name, info) in unknown.into_iter().zip(read(&paths)?) {
                index.aliases.extend(info.aliases.into_iter().map(|alias| (alias, name.clone())));
                index.soft.insert(name.clone(), info.soft);
                index.needs.insert(name, info.needs);
            }
        }
    }

    /// Modules that must be read before this order can be trusted.
    fn unknown(&self, order: &[Module]) -> BTreeSet<String> {
        let is_unknown = |name: &String| self.paths.contains_key(name) && !self.needs.contains_key(name);
        let mut unknown: BTreeSet<String> =
            order.iter().map(|module| module.name.clone()).filter(is_unknown).collect();
        let soft = order.iter().filter_map(|module| self.soft.get(&module.name));
        for wish in soft.flat_map(|soft| soft.before.iter().chain(&soft.after)) {
            if self.resolve(wish).is_empty() {
                let likely: Vec<String> = self.likely(wish).into_iter().filter(is_unknown).collect();
                let all = || self.paths.keys().filter(|name| is_unknown(name)).cloned().collect();
                unknown.extend(if likely.is_empty() { all() } else { likely });
            }
        }
        unknown
    }

    /// Modules that may have this alias. In the kernel's softdeps aliases are names of algorithms, of which there may
    /// be several implementations, or `bus:name` for the driver of that name.
    fn likely(&self, wish: &str) -> Vec<String> {
        let wish = underscored(wish);
        if let Some((_, name)) = wish.split_once(':') {
            return vec![name.to_owned()];
        }
        let is_algorithm = |path: &str| path.contains("/crypto/") || path.starts_with("kernel/lib/");
        self.paths.iter().filter(|(_, path)| is_algorithm(path)).map(|(name, _)| name.clone()).collect()
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
            self.visit(underscored(name), &mut seen, &mut order);
        }
        Ok(order)
    }

    fn exists(&self, name: &str) -> bool {
        self.paths.contains_key(name) || self.builtin.contains(name)
    }

    /// Depth first, with what is still to be done on a heap: chains may be as long as a package likes.
    fn visit(&self, name: String, seen: &mut BTreeSet<String>, order: &mut Vec<Module>) {
        let mut pending = vec![Step::Visit(name)];
        while let Some(step) = pending.pop() {
            let name = match step {
                Step::Take(module) => {
                    order.push(module);
                    continue;
                }
                Step::Visit(name) => name,
            };
            let Some(path) = self.paths.get(&name).filter(|_| seen.insert(name.clone())) else { continue };
            let soft = self.soft.get(&name).cloned().unwrap_or_default();
            let mut steps: Vec<Step> = self.resolved(&soft.before).map(Step::Visit).collect();
            steps.extend(self.needs.get(&name).into_iter().flatten().cloned().map(Step::Visit));
            steps.push(Step::Take(Module { name, path: path.clone() }));
            steps.extend(self.resolved(&soft.after).map(Step::Visit));
            // What is to be done first goes on top.
            pending.extend(steps.into_iter().rev());
        }
    }

    fn resolved<'a>(&'a self, wishes: &'a [String]) -> impl Iterator<Item = String> + 'a {
        wishes.iter().flat_map(|wish| self.resolve(wish))
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

    /// As long as no kernel has them: following them must not cost the stack.
    #[test]
    fn long_chains_are_followed_to_their_end() {
        let length = 200_000;
        let dep: String = (0..length).map(|n| format!("m{n}.ko: m{}.ko\n", n + 1)).collect();
        let index = ModuleIndex::parse(&dep, "", "", "");
        let order = index.load_order(&["m0".to_owned()]).unwrap();
        assert_eq!(order.len(), length);
        assert_eq!(order[0].name, format!("m{}", length - 1));
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

    /// What the modules of the same kernel say of themselves.
    fn info(path: &str) -> ModuleInfo {
        let text: &[u8] = match module_name(path).as_str() {
            "erofs" => b"license=GPL\0depends=libcrc32c\0",
            "libcrc32c" => b"softdep=pre: crc32c\0depends=\0",
            "crc32c_generic" => b"alias=crypto-crc32c-generic\0alias=crc32c\0depends=\0",
            "crc32c_intel" => b"alias=crc32c\0depends=\0",
            "uas" => b"depends=usb-storage,scsi_mod\0",
            "usb_storage" => b"depends=scsi_mod\0",
            "r8169" => b"softdep=pre: realtek\0depends=\0",
            "ipmi_msghandler" => b"softdep=post: ipmi_devintf\0",
            "ipmi_devintf" => b"depends=ipmi_msghandler\0softdep=pre: platform:nobody\0",
            _ => b"",
        };
        ModuleInfo::parse(text)
    }

    #[test]
    fn modules_themselves_say_the_same_as_the_indexes() {
        let paths = || DEP.lines().map(|line| line.split(".xz").next().unwrap());
        for wanted in ["erofs", "uas", "usb-storage", "r8169", "ipmi_msghandler", "atkbd"] {
            let wanted = [wanted.to_owned()];
            let read = |paths: &[String]| Ok(paths.iter().map(|path| info(path)).collect());
            let explored = ModuleIndex::explore(paths(), BUILTIN, &wanted, read).unwrap();
            let parsed = ModuleIndex::parse(DEP, SOFTDEP, ALIAS, BUILTIN);
            assert_eq!(explored.load_order(&wanted).unwrap(), parsed.load_order(&wanted).unwrap());
        }
    }

    #[test]
    fn only_what_is_needed_is_read() {
        let paths = DEP.lines().map(|line| line.split(".xz").next().unwrap());
        let read = |paths: &[String]| {
            assert!(paths.iter().all(|path| path.contains("scsi") || path.contains("usb")), "{paths:?}");
            Ok(paths.iter().map(|path| info(path)).collect())
        };
        ModuleIndex::explore(paths, BUILTIN, &["uas".to_owned()], read).unwrap();
    }
}

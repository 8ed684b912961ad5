//! depmod's indexes: which module drives a device, and what must be loaded before it.

use std::collections::{HashMap, HashSet};

use super::pattern;

/// Group of the patterns whose bus has a wildcard itself (`acpi*:PNP0C0C:*`, `dmi*:…`): always looked at.
const ANY_BUS: &str = "*";

/// The text indexes of one kernel version.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Module name to its file (relative to the modules directory) and its dependencies' names.
    files: HashMap<String, Module>,
    /// Alias patterns by what stands before their first wildcard's separator (`pci:`, `usb:`, `fs-ext4`).
    aliases: HashMap<String, Vec<(String, String)>>,
    /// Modules to load before, if they exist.
    soft: HashMap<String, Vec<String>>,
}

#[derive(Debug)]
struct Module {
    path: String,
    needs: Vec<String>,
}

impl Index {
    /// From modules.dep, modules.alias and modules.softdep.
    pub(super) fn parse(dep: &str, alias: &str, softdep: &str) -> Self {
        let mut index = Self::default();
        for line in dep.lines() {
            if let Some((path, needs)) = line.split_once(':') {
                let needs = needs.split_whitespace().map(module_name).collect();
                index.files.insert(module_name(path), Module { path: path.to_owned(), needs });
            }
        }
        for line in alias.lines() {
            if let ["alias", pattern, module] = line.split_whitespace().collect::<Vec<_>>()[..] {
                let entry = (pattern.to_owned(), canonical(module));
                index.aliases.entry(pattern_group(pattern).to_owned()).or_default().push(entry);
            }
        }
        for line in softdep.lines() {
            index.add_soft(line);
        }
        index
    }

    fn add_soft(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let (Some("softdep"), Some(module)) = (words.next(), words.next()) else { return };
        let mut before = false;
        for word in words {
            match word {
                "pre:" => before = true,
                "post:" => before = false,
                name if before => self.soft.entry(canonical(module)).or_default().push(name.to_owned()),
                _ => {}
            }
        }
    }

    /// Modules for a modalias, or for a name as the kernel or a board file asks for it.
    pub(super) fn resolve(&self, wanted: &str) -> Vec<&str> {
        let name = canonical(wanted);
        if let Some((name, _)) = self.files.get_key_value(&name) {
            return vec![name];
        }
        let mut found: Vec<&str> = Vec::new();
        for (pattern, module) in
            [bus(wanted), ANY_BUS].iter().filter_map(|group| self.aliases.get(*group)).flatten()
        {
            if pattern::matches(pattern, wanted) && !found.contains(&module.as_str()) {
                found.push(module);
            }
        }
        found
    }

    /// The files to insert for a module, in order: soft dependencies first, then hard ones, then itself.
    pub(super) fn load_order(&self, module: &str) -> Vec<(&str, &str)> {
        let mut order = Vec::new();
        self.visit(module, &mut HashSet::new(), &mut order);
        order
    }

    fn visit<'a>(&'a self, name: &str, seen: &mut HashSet<&'a str>, order: &mut Vec<(&'a str, &'a str)>) {
        let Some((name, module)) = self.files.get_key_value(name) else { return };
        if !seen.insert(name) {
            return;
        }
        for soft in self.soft.get(name).into_iter().flatten() {
            for resolved in self.resolve(soft) {
                self.visit(resolved, seen, order);
            }
        }
        for need in &module.needs {
            self.visit(need, seen, order);
        }
        order.push((name, &module.path));
    }
}

/// `kernel/drivers/net/e1000-x.ko` is the module `e1000_x`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    canonical(file.split(".ko").next().unwrap_or(file))
}

/// The kernel treats `-` and `_` in module names as one.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// What aliases are grouped by: everything to the first colon, or the whole word when there is none.
fn bus(alias: &str) -> &str {
    alias.split_once(':').map_or(alias, |(bus, _)| bus)
}

fn pattern_group(pattern: &str) -> &str {
    let bus = bus(pattern);
    if bus.contains(['*', '?', '[']) { ANY_BUS } else { bus }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Index {
        Index::parse(
            "kernel/fs/btrfs/btrfs.ko: kernel/lib/raid6/raid6_pq.ko kernel/lib/libcrc32c.ko\n\
             kernel/lib/raid6/raid6_pq.ko:\n\
             kernel/lib/libcrc32c.ko:\n\
             kernel/arch/crc32c-intel.ko:\n\
             kernel/drivers/net/virtio_net.ko: kernel/net/failover.ko\n\
             kernel/net/failover.ko:\n",
            "# comment\nalias virtio:d00000001v* virtio_net\nalias fs-btrfs btrfs\nalias acpi*:PNP0C0C:* button\n\
             alias crypto-crc32c crc32c-intel\nalias crypto-x missing\n",
            "softdep btrfs pre: crypto-crc32c post: failover\nsoftdep libcrc32c pre: crypto-crc32c btrfs\n",
        )
    }

    fn names(module: &str) -> Vec<String> {
        index().load_order(module).iter().map(|(name, _)| (*name).to_owned()).collect()
    }

    #[test]
    fn devices_aliases_and_names_resolve() {
        assert_eq!(index().resolve("virtio:d00000001v00001AF4"), ["virtio_net"]);
        assert_eq!(index().resolve("fs-btrfs"), ["btrfs"]);
        assert_eq!(index().resolve("crc32c-intel"), ["crc32c_intel"]);
        assert_eq!(index().resolve("acpi:PNP0C0C:"), ["button"]);
        assert!(index().resolve("pci:v1d2").is_empty());
    }

    #[test]
    fn what_is_needed_comes_first_even_in_a_circle() {
        assert_eq!(names("btrfs"), ["crc32c_intel", "raid6_pq", "libcrc32c", "btrfs"]);
        assert_eq!(names("virtio_net"), ["failover", "virtio_net"]);
        assert!(names("missing").is_empty());
    }

    #[test]
    fn paths_are_kept() {
        assert_eq!(index().load_order("crc32c_intel"), [("crc32c_intel", "kernel/arch/crc32c-intel.ko")]);
    }
}

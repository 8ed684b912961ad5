//! What the TOML files say: the product, the machine type and the base, validated and merged.
//!
//! Reading only; nothing is built here. A mistyped key is an error with its place in the file.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use camino::Utf8Path;
use kontor_config::Board;
use serde::Deserialize;

use crate::archive::release::format_date;
use crate::qemu::mimic::Mimic;
use crate::workspace::Workspace;

/// `images/NAME.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Product {
    /// Version of this file's layout.
    pub schema: u32,
    /// The file's stem.
    pub name: String,
    /// Day of the release, `YYYY-MM-DD`.
    pub date: String,
    /// Grows when releases before it must never run again; boxes take no release with a lower one.
    pub security_epoch: u32,
    /// Machine types that one image serves.
    pub board: Vec<String>,
    /// Components whose images are on the `system` partition.
    #[serde(default)]
    pub component: Vec<String>,
    /// Kernel modules and command line of every board.
    pub kernel: Kernel,
    /// Sizes of the partitions that are not fixed by the box.
    pub partition_mib: PartitionSizes,
    /// What must not be exceeded.
    pub budget_kib: Budgets,
}

/// The kernel's part of a product.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Kernel {
    /// Modules that go into the image, with what they need.
    pub modules: Vec<String>,
    /// Modules loaded at every boot.
    pub load: Vec<String>,
    /// Words of the command line.
    pub cmdline: Vec<String>,
    /// Whether modules keep their signatures, for Secure Boot.
    #[serde(default)]
    pub module_signatures: bool,
}

/// Sizes in MiB.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PartitionSizes {
    /// GRUB's core for BIOS.
    pub bios: u64,
    /// EFI system partition.
    pub esp: u64,
    /// Each of the two slots.
    pub slot: u64,
    /// Component images.
    pub system: u64,
    /// What the gateway itself keeps.
    pub state: u64,
    /// At least; the box grows it.
    pub data: u64,
}

/// Limits in KiB.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Budgets {
    /// A slot image as it would travel.
    pub slot_compressed: u64,
    /// The firmware's one program.
    pub kontor: u64,
    /// Each component's image.
    pub component: u64,
}

impl Product {
    /// Reads and validates a product's file.
    ///
    /// # Errors
    /// When it cannot be read or is not valid.
    pub fn load(path: &Utf8Path) -> Result<Self> {
        ensure_known("product", path)?;
        Self::parse(path, &read(path)?)
    }

    /// Validates the text of a product's file.
    ///
    /// # Errors
    /// When it is not valid.
    pub fn parse(path: &Utf8Path, text: &str) -> Result<Self> {
        let product: Self = toml::from_str(text).with_context(|| path.to_string())?;
        ensure!(product.schema == 1, "{path}: schema {} is not known, only 1 is", product.schema);
        ensure!(Some(product.name.as_str()) == path.file_stem(), "{path}: name must be that of the file");
        product.epoch_s().with_context(|| path.to_string())?;
        Ok(product)
    }

    /// Midnight (UTC) of the release day, in seconds since 1970.
    ///
    /// # Errors
    /// When the date is not one.
    pub fn epoch_s(&self) -> Result<u32> {
        let parts: Vec<i64> = self.date.split('-').filter_map(|part| part.parse().ok()).collect();
        let [year @ 1970..=2105, month @ 1..=12, day @ 1..=31] = parts[..] else {
            bail!("date {:?} is not of the form YYYY-MM-DD", self.date);
        };
        // Days from the civil calendar, years beginning in March (Howard Hinnant's algorithm).
        let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        let day_of_era = (y % 400) * 365 + (y % 400) / 4 - (y % 400) / 100 + (153 * m + 2) / 5 + day - 1;
        let days = (y / 400) * 146_097 + day_of_era - 719_468;
        let epoch_s = days * 86_400;
        ensure!(format_date(epoch_s).get(..10) == Some(&self.date), "date {:?} is no day", self.date);
        Ok(u32::try_from(epoch_s)?)
    }
}

/// A board and the text of it that the box reads.
#[derive(Debug, Clone)]
pub struct BoardFile {
    /// Validated.
    pub board: Board,
    /// Merged with what it inherits and with the product's kernel part, without what only the builder needs.
    pub text: String,
    /// How QEMU mimics it.
    pub machine: Mimic,
}

impl BoardFile {
    /// Reads `path`, merges what it inherits (one level) and the product's kernel part, and validates the result.
    ///
    /// # Errors
    /// When a file cannot be read or the merged board is not valid.
    pub fn load(path: &Utf8Path, product: &Product) -> Result<Self> {
        ensure_known("board", path)?;
        let mut merged = table(path)?;
        if let Some(parent) = merged.remove("inherit") {
            let parent = parent.as_str().with_context(|| format!("{path}: inherit must name a board"))?;
            let parent_path = path.with_file_name(format!("{parent}.toml"));
            let mut parent = table(&parent_path)?;
            // It describes one machine as a whole.
            parent.remove("machine");
            ensure!(
                !parent.contains_key("inherit"),
                "{path}: {parent_path} inherits itself; one level is allowed"
            );
            merged = merge(parent, merged);
        }
        Self::from_table(path, merged, product)
    }

    /// Adds the product's kernel part to what a board's file says with what it inherits, and validates the result.
    ///
    /// # Errors
    /// When it is not valid.
    pub fn from_table(path: &Utf8Path, merged: toml::Table, product: &Product) -> Result<Self> {
        let kernel = toml::Table::from_iter([("kernel".to_owned(), kernel_table(&product.kernel).into())]);
        let mut merged = merge(kernel, merged);
        let machine = merged.remove("machine").map_or(Ok(Mimic::default()), toml::Value::try_into::<Mimic>);
        let machine = machine.with_context(|| format!("{path}: [machine]"))?;
        let board = Board::parse(path.as_str(), &toml::to_string(&merged)?)
            .map_err(|report| anyhow::anyhow!("{path} has mistakes (with what it inherits)\n\n{report}"))?;
        ensure!(Some(board.name.as_str()) == path.file_stem(), "{path}: name must be that of the file");
        let machine = machine.identified(&board.matching);
        Ok(Self { board, text: text_for_the_box(merged)?, machine })
    }

    /// Reads every board of a product.
    ///
    /// # Errors
    /// When one is not valid, or not exactly one of them serves machines that no other is for.
    pub fn load_all(product: &Product, workspace: &Workspace) -> Result<Vec<Self>> {
        let load = |name: &String| Self::load(&workspace.board(name), product);
        let boards: Vec<Self> = product.board.iter().map(load).collect::<Result<_>>()?;
        let fallbacks: Vec<&str> =
            boards.iter().filter(|file| file.is_fallback()).map(|file| file.board.name.as_str()).collect();
        ensure!(
            fallbacks.len() == 1,
            "product {:?} needs exactly one board without [match], for every other machine; it has {fallbacks:?}",
            product.name
        );
        Ok(boards)
    }

    /// Whether it is for every machine that no other board is for.
    #[must_use]
    pub fn is_fallback(&self) -> bool {
        self.board.matching.is_fallback()
    }

    /// Every kernel module the image must hold: those for the hardware, those loaded at boot, the watchdogs.
    #[must_use]
    pub fn modules(&self) -> Vec<String> {
        let Board { kernel_modules, kernel_load, watchdog_modules, .. } = &self.board;
        let mut wanted = [kernel_modules.as_slice(), kernel_load, watchdog_modules].concat();
        let mut seen = std::collections::BTreeSet::new();
        wanted.retain(|module| seen.insert(module.clone()));
        wanted
    }
}

/// The box needs no list of its modules: they are there. The boot loader has the command line.
fn text_for_the_box(mut merged: toml::Table) -> Result<String> {
    if let Some(kernel) = merged.get_mut("kernel").and_then(toml::Value::as_table_mut) {
        kernel.remove("modules");
        kernel.remove("cmdline");
    }
    Ok(toml::to_string(&merged)?)
}

fn kernel_table(kernel: &Kernel) -> toml::Table {
    let words = |list: &[String]| toml::Value::Array(list.iter().cloned().map(Into::into).collect());
    [("modules", &kernel.modules), ("load", &kernel.load), ("cmdline", &kernel.cmdline)]
        .into_iter()
        .map(|(key, list)| (key.to_owned(), words(list)))
        .collect()
}

/// Lists of words are joined, tables merged; of everything else the child's is taken.
fn merge(mut parent: toml::Table, child: toml::Table) -> toml::Table {
    for (key, value) in child {
        let merged = match (parent.remove(&key), value) {
            (Some(toml::Value::Table(a)), toml::Value::Table(b)) => merge(a, b).into(),
            (Some(toml::Value::Array(a)), toml::Value::Array(b)) if is_words(&a) && is_words(&b) => {
                join(a, b)
            }
            (_, value) => value,
        };
        parent.insert(key, merged);
    }
    parent
}

fn is_words(list: &[toml::Value]) -> bool {
    list.iter().all(toml::Value::is_str)
}

fn join(mut first: Vec<toml::Value>, second: Vec<toml::Value>) -> toml::Value {
    for value in second {
        if !first.contains(&value) {
            first.push(value);
        }
    }
    first.into()
}

fn table(path: &Utf8Path) -> Result<toml::Table> {
    toml::from_str(&read(path)?).with_context(|| path.to_string())
}

/// A name that is not there is mistyped: says which there are.
fn ensure_known(what: &str, path: &Utf8Path) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(Utf8Path::new("."));
    let files = folder.read_dir_utf8().into_iter().flatten().flatten().map(|entry| entry.into_path());
    let mut known: Vec<String> = files
        .filter(|file| file.extension() == Some("toml"))
        .filter_map(|file| file.file_stem().map(str::to_owned))
        .collect();
    known.sort();
    bail!("there is no {what} {:?}; {folder} has {}", path.file_stem().unwrap_or_default(), known.join(", "))
}

fn read(path: &Utf8Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

/// `rootfs/base/base.toml`: what scripts of packages would have done, declared.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BaseFile {
    /// Which packages: the business of `cargo xtask lock`.
    #[serde(rename = "packages")]
    _packages: toml::Value,
    /// What is taken from them.
    pub unpack: Unpack,
    /// Accounts.
    #[serde(default)]
    pub user: Vec<User>,
    /// Groups that are not a user's own.
    #[serde(default)]
    pub group: Vec<Group>,
    /// Directories.
    #[serde(default)]
    pub directory: Vec<Directory>,
    /// Symbolic links.
    #[serde(default)]
    pub link: Vec<Link>,
    /// Files.
    #[serde(default)]
    pub file: Vec<FileDeclaration>,
    /// Files joined from others, which then go.
    #[serde(default)]
    pub join: Vec<Join>,
    /// Links to programs with many names.
    #[serde(default)]
    pub multi_call: Vec<MultiCall>,
}

/// Patterns over the packages' files (see [`super::glob`]).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Unpack {
    /// Left out…
    pub drop: Vec<String>,
    /// …unless named here.
    #[serde(default)]
    pub keep: Vec<String>,
}

/// One line of `/etc/passwd`, and its own group.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct User {
    /// Log-in name.
    pub name: String,
    /// Number of the user and of its group.
    pub id: u32,
    /// Home directory.
    #[serde(default = "no_home")]
    pub home: String,
    /// Log-in shell.
    #[serde(default = "no_shell")]
    pub shell: String,
}

fn no_home() -> String {
    "/nonexistent".to_owned()
}

fn no_shell() -> String {
    "/usr/sbin/nologin".to_owned()
}

/// One line of `/etc/group`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Group {
    /// Name.
    pub name: String,
    /// Number.
    pub id: u32,
}

/// A directory; only mount points and places of daemons need naming.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Directory {
    /// Absolute.
    pub path: String,
    /// Octal.
    #[serde(default = "directory_mode")]
    pub mode: String,
    /// A user of this file.
    #[serde(default = "root")]
    pub owner: String,
}

/// A symbolic link.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Link {
    /// Absolute.
    pub path: String,
    /// As written into the link.
    pub target: String,
}

/// A file, from `content` or from `source` below `rootfs/base/files`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FileDeclaration {
    /// Absolute.
    pub path: String,
    /// The text itself.
    pub content: Option<String>,
    /// Or a file's name.
    pub source: Option<String>,
    /// Octal.
    #[serde(default = "file_mode")]
    pub mode: String,
    /// A user of this file.
    #[serde(default = "root")]
    pub owner: String,
}

/// A file made of others, in path order.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Join {
    /// Absolute.
    pub path: String,
    /// Pattern over what has been unpacked.
    pub sources: String,
}

/// A program known by many names.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MultiCall {
    /// Absolute.
    pub program: String,
    /// Where the links go.
    pub directory: String,
    /// Their names.
    pub names: Vec<String>,
}

fn directory_mode() -> String {
    "0755".to_owned()
}

fn file_mode() -> String {
    "0644".to_owned()
}

fn root() -> String {
    "root".to_owned()
}

impl BaseFile {
    /// Reads and validates `base.toml`.
    ///
    /// # Errors
    /// When it cannot be read, a name or number is used twice, or a file has not exactly one source.
    pub fn load(path: &Utf8Path) -> Result<Self> {
        Self::parse(&read(path)?).with_context(|| path.to_string())
    }

    /// Validates the text of `base.toml`.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn parse(text: &str) -> Result<Self> {
        Self::checked(toml::from_str(text)?)
    }

    /// Validates what a declaration says of a root; a component's has more in it, which is not in `table` any more.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_table(table: toml::Table) -> Result<Self> {
        Self::checked(table.try_into()?)
    }

    fn checked(base: Self) -> Result<Self> {
        base.validate()?;
        Ok(base)
    }

    fn validate(&self) -> Result<()> {
        let users = self.user.iter().map(|user| (&user.name, user.id));
        let groups = self.group.iter().map(|group| (&group.name, group.id));
        let (mut names, mut ids) = (BTreeMap::new(), BTreeMap::new());
        for (name, id) in users.chain(groups) {
            ensure!(names.insert(name, id).is_none(), "user or group {name:?} is declared twice");
            if let Some(other) = ids.insert(id, name) {
                bail!("{name:?} and {other:?} have the same number {id}");
            }
        }
        for file in &self.file {
            let sources = usize::from(file.content.is_some()) + usize::from(file.source.is_some());
            ensure!(sources == 1, "{}: a file needs either content or source", file.path);
        }
        Ok(())
    }

    /// Number of a declared user.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn user_id(&self, name: &str) -> Result<u32> {
        let user = self.user.iter().find(|user| user.name == name);
        Ok(user.with_context(|| format!("owner {name:?} is not a declared user"))?.id)
    }
}

/// Permission bits from octal digits.
///
/// # Errors
/// When they are not.
pub fn parse_mode(text: &str) -> Result<u32> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
    mode.with_context(|| format!("mode {text:?} is not an octal number up to 7777"))
}

#[cfg(test)]
#[path = "declaration/tests.rs"]
mod tests;

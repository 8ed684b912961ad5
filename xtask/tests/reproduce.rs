//! Two images that differ: the comparison names the place, down to the file inside the base and its first byte.
//!
//! Needs the packages, from the cache or a mirror; without them every test counts as ignored, and the reason is printed.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use kontor_boot::PartitionKind;
use libtest_mimic::{Arguments, Trial};
use xtask::archive::cache::{Cache, FetchOptions};
use xtask::archive::lock_file::LockFile;
use xtask::image::declaration::PartitionSizes;
use xtask::image::disk::{self, BiosBoot, Content};
use xtask::image::{esp, initramfs, process, slot};
use xtask::reproduce::compare;
use xtask::tools::Tools;

const EPOCH_S: u32 = 1_795_219_200;

/// What goes into a small image.
#[derive(Debug, Clone)]
struct Parts {
    program: Vec<u8>,
    /// Path in the base, mode and content.
    base: Vec<(&'static str, u32, Vec<u8>)>,
    module: &'static str,
    loader: Vec<u8>,
    core: Vec<u8>,
    state: Vec<u8>,
    owner: u64,
    epoch_s: u32,
}

impl Parts {
    fn usual() -> Self {
        let noise = |seed: u8, length: usize| -> Vec<u8> {
            (0..length).map(|at| (at as u8).wrapping_mul(31).wrapping_add((at >> 8) as u8) ^ seed).collect()
        };
        Self {
            program: noise(1, 70_000),
            base: vec![
                ("etc/hosts", 0o644, b"127.0.0.1 localhost\n".to_vec()),
                ("usr/bin/nft", 0o755, noise(2, 30_000)),
            ],
            module: "erofs.ko",
            loader: noise(3, 5000),
            core: noise(4, 4000),
            state: noise(5, 512),
            owner: 0,
            epoch_s: EPOCH_S,
        }
    }
}

type Spoil = fn(&mut Parts);

/// How the second image is made different, and what the comparison must say.
const CASES: [(&str, Spoil, &[&str]); 10] = [
    ("nothing", |_| {}, &["no difference"]),
    (
        "a byte of a program in the base",
        |parts| parts.base[1].2[12_345] ^= 0x40,
        &["slot-a > initrd > base.erofs > usr/bin/nft, byte 12345 (0x3039):"],
    ),
    (
        "a mode in the base",
        |parts| parts.base[0].1 = 0o600,
        &["slot-a > initrd > base.erofs > etc/hosts has mode 0644 in the first, 0600 in the second"],
    ),
    (
        "an owner in the base",
        |parts| parts.owner = 7,
        &["slot-a > initrd > base.erofs > (metadata: every file has the same name, mode and content), byte "],
    ),
    (
        "the time of the base",
        |parts| parts.epoch_s = 1,
        &[
            "every file has the same name, mode and content) says \"Filesystem created: ",
            "1970\" in the second",
        ],
    ),
    (
        "a path that a compiler wrote down",
        |parts| parts.program[65_000..65_010].copy_from_slice(b"/home/anna"),
        &["slot-a > initrd > init, byte 65000 (0xfde8):", "2f 68 6f 6d 65 2f 61 6e 6e 61", "/home/anna"],
    ),
    (
        "the name of a module",
        |parts| parts.module = "ext4.ko",
        &["slot-a > initrd > modules/order, byte 1 (0x1):\n  first   72"],
    ),
    ("the boot loader", |parts| parts.loader[77] ^= 1, &["esp > EFI/BOOT/BOOTX64.EFI, byte 77"]),
    ("GRUB's core", |parts| parts.core[700] ^= 1, &["bios, byte 700"]),
    ("the boot state", |parts| parts.state[3] ^= 1, &["bootstate, byte 3"]),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let tools = tools().map(Arc::new);
    if let Err(error) = &tools {
        eprintln!("SKIPPED: every test of comparing images: {error:#}");
    }
    let tools = tools.ok();
    let trials = CASES.iter().map(|(name, spoil, expect)| {
        let (tools, spoil, expect) = (tools.clone(), *spoil, *expect);
        let ignored = tools.is_none();
        let run = move || {
            tools.map_or(Ok(()), |tools| check(&tools, spoil, expect).map_err(|e| format!("{e:#}").into()))
        };
        Trial::test(format!("compares: {name}"), run).with_ignored_flag(ignored)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn tools() -> Result<Tools> {
    let workspace = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace")?;
    let lock = LockFile::load(workspace.join("rootfs/packages.lock"))?;
    let cache = Cache::open(&FetchOptions { quiet: true, ..FetchOptions::default() })?;
    let target = Utf8Path::new(env!("CARGO_TARGET_TMPDIR")).parent().context("the target folder")?;
    Tools::prepare(&lock, &cache, target)
}

fn check(tools: &Tools, spoil: Spoil, expect: &[&str]) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let root = Utf8Path::from_path(scratch.path()).context("a UTF-8 path")?;
    let mut parts = Parts::usual();
    let first = image(tools, &parts, &root.join("one"))?;
    spoil(&mut parts);
    let second = image(tools, &parts, &root.join("two"))?;
    let difference = compare::images(&first, &second, tools, root)?;
    let text = difference.map_or_else(|| "no difference".to_owned(), |difference| difference.to_string());
    for part in expect {
        ensure!(text.contains(part), "{part:?} is not in {text:?}");
    }
    Ok(())
}

/// A disk image with these parts.
fn image(tools: &Tools, parts: &Parts, folder: &Utf8Path) -> Result<Utf8PathBuf> {
    std::fs::create_dir(folder)?;
    let early = [(parts.module.to_owned(), b"module".to_vec())];
    let initrd = initramfs::initramfs(&parts.program, &base(tools, parts, folder)?, &early, &[], EPOCH_S);
    slot::make(folder, 4, &[("vmlinuz", b"kernel"), ("initrd", &initrd)], EPOCH_S, tools)?;
    let table = disk::layout(&PartitionSizes { bios: 1, esp: 40, slot: 4, system: 1, state: 1, data: 1 });
    let bios = BiosBoot { boot: vec![1; 512], core: parts.core.clone() };
    let loader = esp::esp(40 << 20, &parts.loader)?;
    let contents = [
        (PartitionKind::Esp, Content::Bytes(loader)),
        (PartitionKind::BootState, Content::Bytes(parts.state.clone())),
        (PartitionKind::SlotA, Content::File(folder.join("slot.img"))),
        (PartitionKind::SlotB, Content::File(folder.join("slot.img"))),
    ];
    let path = folder.join("disk.img");
    disk::write(&path, &table, &bios, &contents)?;
    Ok(path)
}

fn base(tools: &Tools, parts: &Parts, folder: &Utf8Path) -> Result<Vec<u8>> {
    let (tar_path, erofs) = (folder.join("base.tar"), folder.join("base.erofs"));
    let mut tar = tar::Builder::new(std::fs::File::create(&tar_path)?);
    for (name, mode, content) in &parts.base {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        header.set_uid(parts.owner);
        header.set_gid(0);
        header.set_mtime(EPOCH_S.into());
        tar.append_data(&mut header, name, content.as_slice())?;
    }
    tar.finish()?;
    let mut command = tools.command("mkfs.erofs")?;
    command.args(["--quiet", "--tar=f", "-z", "zstd,level=3", "-U", "00000000-0000-8000-8000-000000000000"]);
    command.args(["-T", &parts.epoch_s.to_string(), erofs.as_str(), tar_path.as_str()]).env("TMPDIR", folder);
    process::run(command)?;
    Ok(std::fs::read(&erofs)?)
}

//! The peer: Debian with systemd, systemd-networkd and dnsmasq on the same kernel (`rootfs/bench-gateway`).
//!
//! Its root is ext4 on the disk; a small initramfs loads the disk's driver and changes over at once.

use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};

use super::guest::{Direct, Setup};
use crate::archive::cache::{Cache, FetchOptions};
use crate::archive::lock_file::{LockFile, LockedPackage};
use crate::image::cpio::Writer;
use crate::image::declaration::BaseFile;
use crate::image::kernel::Kernel;
use crate::image::modules::{Module, ModuleIndex};
use crate::image::process::run;
use crate::image::release::{EROFS_CLUSTER, EROFS_COMPRESSION, EROFS_OPTIONS};
use crate::image::tree::{Node, NodeKind, Tree};
use crate::image::{ImageOptions, archive, base};
use crate::tools::Tools;
use crate::workspace::Workspace;

/// The package set.
const SET: &str = "bench-gateway";
/// What the initramfs loads: the disk and its file system.
const EARLY: [&str; 2] = ["virtio_blk", "ext4"];
/// The same for a root in RAM.
/// busybox mounts a file by a loop device.
const EARLY_IN_RAM: [&str; 3] = ["erofs", "loop", "overlay"];
/// The initramfs's programs, and where they are in the root.
const PROGRAMS: [(&str, &str); 4] = [
    ("bin/busybox", "usr/bin/busybox"),
    ("lib64/ld-linux-x86-64.so.2", "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"),
    ("usr/lib/x86_64-linux-gnu/libc.so.6", "usr/lib/x86_64-linux-gnu/libc.so.6"),
    ("usr/lib/x86_64-linux-gnu/libresolv.so.2", "usr/lib/x86_64-linux-gnu/libresolv.so.2"),
];
const ROOT_MIB: u32 = 640;
/// A fixed time in the past for every file.
const EPOCH_S: u32 = 1_795_219_200;
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for module in $(/bin/busybox cat /modules/order); do /bin/busybox insmod /modules/$module; done
/bin/busybox mount -t ext4 -o ro,noatime /dev/vda /root
/bin/busybox mount -o move /dev /root/dev
exec /bin/busybox switch_root /root /sbin/init
";

/// As above, but the root is in RAM as ours is: a compressed image inside the initramfs, changes above it.
const INIT_IN_RAM: &str = "#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for module in $(/bin/busybox cat /modules/order); do /bin/busybox insmod /modules/$module; done
/bin/busybox mount -t tmpfs tmp /run
/bin/busybox mkdir /run/lower /run/upper /run/work
/bin/busybox mount -t erofs -o ro /root.erofs /run/lower
/bin/busybox mount -t overlay -o lowerdir=/run/lower,upperdir=/run/upper,workdir=/run/work overlay /root
/bin/busybox mount -o move /dev /root/dev
exec /bin/busybox switch_root /root /sbin/init
";
/// Nothing but a shell: what is taken then, no system with this kernel can do without.
const INIT_FLOOR: &str = "#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mkdir /proc
/bin/busybox mount -t proc proc /proc
export PS1='floor# '
exec /bin/busybox setsid /bin/busybox sh -i </dev/ttyS0 >/dev/ttyS0 2>&1
";
/// What that shell shows.
pub const FLOOR_PROMPT: &str = "floor# ";
/// What the root shell on the serial console shows.
pub const PROMPT: &str = "root@gateway:/# ";

/// The peer, built.
#[derive(Debug)]
pub struct Systemd {
    direct: Direct,
    in_ram: Direct,
    floor: Direct,
    disk: PathBuf,
}

impl Systemd {
    /// Builds root and initramfs in `folder`.
    ///
    /// # Errors
    /// When a package cannot be had or a tool fails.
    pub fn prepare(folder: &Utf8Path, fetch: &FetchOptions) -> Result<Self> {
        let workspace = Workspace::locate();
        let mut lock = LockFile::load(workspace.lock_file())?;
        let cache = Cache::open(fetch)?;
        cache.provide(&mut lock, &[SET])?;
        let tools = Tools::prepare(&lock, &cache, workspace.target())?;
        let (kernels, packages): (Vec<_>, Vec<_>) =
            lock.set(SET)?.iter().partition(|package| package.name.starts_with("linux-image-"));
        let kernel = unpacked_kernel(folder, &kernels, &cache, &tools)?;
        eprintln!("building the peer: {} packages", packages.len());
        let mut tree = root(&packages, &cache)?;
        let plan = crate::image::plan(&ImageOptions { fetch: fetch.clone(), ..ImageOptions::default() })?;
        let ours = index(&kernel)?.closure(&plan.modules())?;
        let initrd = folder.join("systemd.cpio");
        write(&initrd, &initramfs(&kernel, &tree, INIT, &EARLY)?.finish())?;
        let floor = folder.join("memory-floor.cpio");
        write(&floor, &initramfs(&kernel, &tree, INIT_FLOOR, &[])?.finish())?;
        let in_ram = folder.join("systemd-in-ram.cpio");
        // As ours: only the modules that such a machine can use.
        add_modules(&mut tree, &kernel, |path| ours.iter().any(|module| path.starts_with(&module.path)))?;
        let mut archive = initramfs(&kernel, &tree, INIT_IN_RAM, &EARLY_IN_RAM)?;
        archive.file("root.erofs", 0o644, &erofs(&tree, folder, &tools)?);
        write(&in_ram, &archive.finish())?;
        add_modules(&mut tree, &kernel, |_| true)?;
        let disk = folder.join("systemd.img");
        make_disk(&tree, &disk, &tools)?;
        let words = |is_ours: fn(&str) -> bool| {
            let words = plan.cmdline().iter().map(String::as_str).filter(|word| !is_ours(word));
            words.collect::<Vec<_>>().join(" ")
        };
        let kernel = kernel.image();
        // A file system in the initramfs needs ramfs there, as ours does.
        let in_ram = Direct { kernel: kernel.clone(), initrd: in_ram, cmdline: words(|_| false) };
        let floor = Direct { initrd: floor, ..in_ram.clone() };
        let direct = Direct { kernel, initrd, cmdline: words(|word| word.starts_with("rootfstype=")) };
        Ok(Self { direct, in_ram, floor, disk: disk.into() })
    }

    /// A direct boot.
    #[must_use]
    pub fn direct_setup(&self) -> Setup {
        let (disk, direct) = (Some(self.disk.clone()), Some(self.direct.clone()));
        Setup { memory_mib: 512, disk, direct, keep: false, log: None }
    }

    /// A direct boot with the root in RAM.
    #[must_use]
    pub fn in_ram_setup(&self) -> Setup {
        Setup { direct: Some(self.in_ram.clone()), ..self.direct_setup() }
    }

    /// A direct boot of a kernel with a shell and nothing else.
    #[must_use]
    pub fn floor_setup(&self) -> Setup {
        Setup { direct: Some(self.floor.clone()), ..self.direct_setup() }
    }
}

fn unpacked_kernel(
    folder: &Utf8Path,
    kernels: &[&LockedPackage],
    cache: &Cache,
    tools: &Tools,
) -> Result<Kernel> {
    let directory = folder.join("systemd-kernel");
    let debs = cache.debs(kernels)?;
    Kernel::unpack(debs.first().context("the peer's set has no kernel")?, &directory, tools)?;
    Kernel::open(directory)
}

fn root(packages: &[&LockedPackage], cache: &Cache) -> Result<Tree> {
    let workspace = Workspace::locate();
    let folder = workspace.root().join("rootfs").join(SET);
    let declared = BaseFile::load(&folder.join(format!("{SET}.toml")))?;
    let mut tree = Tree::default();
    for (package, deb) in packages.iter().zip(cache.debs(packages)?) {
        base::add_package(&mut tree, &package.name, &deb, &declared.unpack)
            .with_context(|| format!("package {}", package.name))?;
    }
    base::declare(&mut tree, &declared, &folder)?;
    Ok(tree)
}

fn file(tree: &Tree, path: &str) -> Option<Vec<u8>> {
    match &tree.get(path)?.kind {
        NodeKind::File(bytes) => Some(bytes.to_vec()),
        _ => None,
    }
}

/// Everything but the files of one kind of root.
fn initramfs(kernel: &Kernel, tree: &Tree, init: &str, early: &[&str]) -> Result<Writer> {
    let modules = early_modules(kernel, early)?;
    let mut archive = Writer::new(EPOCH_S);
    for directory in
        ["bin", "dev", "lib64", "modules", "root", "run", "usr", "usr/lib", "usr/lib/x86_64-linux-gnu"]
    {
        archive.dir(directory, 0o755);
    }
    archive.char_device("dev/console", 0o600, 5, 1);
    for (name, path) in PROGRAMS {
        let bytes = file(tree, path).with_context(|| format!("the peer's set has no {path}"))?;
        archive.file(name, 0o755, &bytes);
    }
    archive.file("init", 0o755, init.as_bytes());
    let order: Vec<&str> = modules.iter().map(|(name, _)| name.as_str()).collect();
    archive.file("modules/order", 0o644, order.join("\n").as_bytes());
    for (name, bytes) in &modules {
        archive.file(&format!("modules/{name}"), 0o644, bytes);
    }
    Ok(archive)
}

/// The wanted modules as the package has them, with depmod's indexes.
fn add_modules(tree: &mut Tree, kernel: &Kernel, wanted: impl Fn(&str) -> bool) -> Result<()> {
    let root = modules_of(kernel);
    let mut pending = vec![Utf8PathBuf::new()];
    while let Some(directory) = pending.pop() {
        for entry in root.join(&directory).read_dir_utf8()? {
            let entry = entry?;
            let path = directory.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                pending.push(path);
            } else if !path.as_str().contains(".ko") || wanted(path.as_str()) {
                let node = Node::file(read(entry.path())?, 0o644, "kernel");
                tree.insert(&format!("/usr/lib/modules/{}/{path}", kernel.version), node)?;
            }
        }
    }
    tree.complete()
}

fn index(kernel: &Kernel) -> Result<ModuleIndex> {
    let root = modules_of(kernel);
    let text = |name: &str| {
        std::fs::read_to_string(root.join(name)).with_context(|| format!("cannot read {root}/{name}"))
    };
    let [dep, softdep, alias, builtin] =
        [text("modules.dep")?, text("modules.softdep")?, text("modules.alias")?, text("modules.builtin")?];
    Ok(ModuleIndex::parse(&dep, &softdep, &alias, &builtin))
}

/// File name and uncompressed content of what the initramfs loads, in load order.
fn early_modules(kernel: &Kernel, early: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
    let uncompressed = |module: Module| {
        let compressed = read(&modules_of(kernel).join(format!("{}.xz", module.path)))?;
        let mut bytes = Vec::new();
        liblzma::read::XzDecoder::new(compressed.as_slice()).read_to_end(&mut bytes)?;
        Ok((format!("{}.ko", module.name), bytes))
    };
    let early: Vec<String> = early.iter().map(|name| (*name).to_owned()).collect();
    index(kernel)?.load_order(&early)?.into_iter().map(uncompressed).collect()
}

/// Where [`Kernel::unpack`] puts them.
fn modules_of(kernel: &Kernel) -> Utf8PathBuf {
    kernel.image().with_file_name("lib/modules").join(&kernel.version)
}

fn read(path: &Utf8Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {path}"))
}

fn write(path: &Utf8Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("cannot write {path}"))
}

fn make_disk(tree: &Tree, disk: &Utf8Path, tools: &Tools) -> Result<()> {
    let tar = write_tar(tree, &disk.with_extension("tar"))?;
    let mut command = tools.command("mke2fs")?;
    command.args(["-q", "-F", "-t", "ext4", "-d", tar.as_str(), disk.as_str(), &format!("{ROOT_MIB}M")]);
    run(command)?;
    std::fs::remove_file(&tar).with_context(|| format!("cannot remove {tar}"))
}

/// Compressed as our base is.
fn erofs(tree: &Tree, folder: &Utf8Path, tools: &Tools) -> Result<Vec<u8>> {
    let tar = write_tar(tree, &folder.join("systemd-in-ram.tar"))?;
    let image = folder.join("systemd.erofs");
    let mut command = tools.command("mkfs.erofs")?;
    command.args([
        "--quiet",
        "--tar=f",
        "-z",
        EROFS_COMPRESSION,
        "-C",
        EROFS_CLUSTER,
        image.as_str(),
        tar.as_str(),
    ]);
    command.args(EROFS_OPTIONS).env("TMPDIR", folder);
    run(command)?;
    read(&image)
}

fn write_tar(tree: &Tree, path: &Utf8Path) -> Result<Utf8PathBuf> {
    let output = std::fs::File::create(path).with_context(|| format!("cannot create {path}"))?;
    archive::write_tar(tree, EPOCH_S, std::io::BufWriter::new(output))?;
    Ok(path.to_owned())
}

//! The tools of the locked set run on this host through their own loader.
//!
//! Needs the packages, from the cache or a mirror; without them every test counts as ignored, and the reason is printed.

use std::process::{Command, ExitCode, Output};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use libtest_mimic::{Arguments, Trial};
use xtask::archive::cache::{Cache, FetchOptions};
use xtask::archive::lock_file::LockFile;
use xtask::tools::Tools;

/// Set, command line, and what its output must hold.
const PROGRAMS: [(&str, &[&str], &str); 15] = [
    ("tools", &["qemu-system-x86_64", "--version"], "QEMU emulator version"),
    ("tools", &["mkfs.erofs", "-V"], "erofs-utils"),
    ("tools", &["mke2fs", "-V"], "mke2fs"),
    ("tools", &["e2fsck", "-V"], "e2fsck"),
    ("tools", &["mkfs.btrfs", "-V"], "btrfs-progs"),
    ("tools", &["mkfs.vfat", "--help"], "mkfs.fat"),
    ("tools", &["mcopy", "-V"], "mtools"),
    ("tools", &["grub-mkimage", "--version"], "GRUB"),
    ("tools", &["depmod", "-V"], "kmod version"),
    ("peers", &["busybox", "udhcpc", "--help"], "BusyBox"),
    ("peers", &["dhcpcd", "--version"], "dhcpcd"),
    ("peers", &["dig", "-v"], "DiG"),
    ("peers", &["host", "-V"], "host"),
    ("peers", &["dnsmasq", "-v"], "Dnsmasq"),
    ("peers", &["ip", "-V"], "iproute2"),
];

type Check = Box<dyn FnOnce(&Trees) -> Result<()> + Send>;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trees = Trees::prepare().map(Arc::new);
    if let Err(error) = &trees {
        eprintln!("SKIPPED: every test of the tools: {error:#}");
    }
    let trees = trees.ok();
    let trial = |name: String, run: Check| {
        let trees = trees.clone();
        let ignored = trees.is_none();
        let run =
            move || trees.map_or(Ok(()), |trees| run(&trees).map_err(|error| format!("{error:#}").into()));
        Trial::test(name, run).with_ignored_flag(ignored)
    };
    let mut trials = vec![
        trial(
            "mke2fs fills a file system from a tar as an ordinary user".to_owned(),
            Box::new(ext4_from_tar),
        ),
        trial("the data that the tools need is there".to_owned(), Box::new(data_is_there)),
        trial("an unpacked tree is used again".to_owned(), Box::new(used_again)),
        trial("tools do not see the builder's environment".to_owned(), Box::new(own_environment)),
    ];
    for (set, words, expect) in PROGRAMS {
        trials.push(trial(
            format!("runs: {}", words.join(" ")),
            Box::new(move |trees| runs(trees, set, words, expect)),
        ));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

struct Trees {
    lock: LockFile,
    cache: Cache,
    target: Utf8PathBuf,
    tools: Tools,
    peers: Tools,
}

impl Trees {
    fn prepare() -> Result<Self> {
        let workspace = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace")?;
        let lock = LockFile::load(workspace.join("rootfs/packages.lock"))?;
        let cache = Cache::open(&FetchOptions { quiet: true, ..FetchOptions::default() })?;
        let target =
            Utf8Path::new(env!("CARGO_TARGET_TMPDIR")).parent().context("the target folder")?.to_owned();
        let tools = Tools::prepare(&lock, &cache, &target)?;
        let peers = Tools::prepare_set("peers", &lock, &cache, &target)?;
        Ok(Trees { lock, cache, target, tools, peers })
    }
}

fn output(mut command: Command) -> Result<String> {
    let Output { status, stdout, stderr } = command.output()?;
    let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    ensure!(status.success(), "{command:?}: {status}: {text}");
    Ok(text)
}

fn runs(trees: &Trees, set: &str, words: &[&str], expect: &str) -> Result<()> {
    let tools = if set == "peers" { &trees.peers } else { &trees.tools };
    let mut command = tools.command(words[0])?;
    command.args(&words[1..]);
    let text = output(command)?;
    ensure!(text.contains(expect), "{expect:?} is not in {text:?}");
    Ok(())
}

fn ext4_from_tar(trees: &Trees) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let (tar_path, image) = (scratch.path().join("in.tar"), scratch.path().join("out.img"));
    let mut tar = tar::Builder::new(std::fs::File::create(&tar_path)?);
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o640);
    header.set_uid(123);
    header.set_gid(45);
    tar.append_data(&mut header, "hello", &b"hello"[..])?;
    tar.finish()?;
    let mut command = trees.tools.command("mke2fs")?;
    command.args(["-q", "-t", "ext4", "-d"]).arg(&tar_path).arg(&image).arg("4M");
    output(command)?;
    let mut command = trees.tools.command("debugfs")?;
    command.args(["-R", "stat /hello"]).arg(&image);
    let text = output(command)?;
    let words: Vec<&str> = text.split_whitespace().collect();
    let after =
        |label: &str| words.iter().position(|word| *word == label).and_then(|at| words.get(at + 1)).copied();
    ensure!((after("User:"), after("Group:")) == (Some("123"), Some("45")), "{text}");
    Ok(())
}

/// Found by `cargo xtask reproduce`: mkfs.erofs prefers `SOURCE_DATE_EPOCH` to its own option.
fn own_environment(trees: &Trees) -> Result<()> {
    let mut command = trees.peers.command("busybox")?;
    command.arg("env");
    let text = output(command)?;
    // Cargo sets this for every test.
    ensure!(std::env::var_os("CARGO_MANIFEST_DIR").is_some() && !text.contains("CARGO_"), "{text}");
    ensure!(text.contains("LC_ALL=C\n") && text.contains("TZ=UTC\n"), "{text}");
    Ok(())
}

fn data_is_there(trees: &Trees) -> Result<()> {
    for path in [
        "usr/share/OVMF/OVMF_CODE_4M.fd",
        "usr/share/OVMF/OVMF_VARS_4M.fd",
        "usr/share/seabios/bios-256k.bin",
        "usr/share/seabios/vgabios-stdvga.bin",
        "usr/lib/grub/i386-pc/boot.img",
        "usr/lib/grub/x86_64-efi/normal.mod",
        "etc/mke2fs.conf",
    ] {
        ensure!(trees.tools.path(path).is_file(), "{path} is missing");
    }
    Ok(())
}

fn used_again(trees: &Trees) -> Result<()> {
    let marker = trees.tools.path("usr/share/OVMF");
    let before = std::fs::metadata(&marker)?.modified()?;
    let again = Tools::prepare(&trees.lock, &trees.cache, &trees.target)?;
    ensure!(
        again.root() == trees.tools.root() && std::fs::metadata(&marker)?.modified()? == before,
        "unpacked anew"
    );
    Ok(())
}

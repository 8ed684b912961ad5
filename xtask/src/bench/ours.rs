//! Our image as a subject: the delivered kernel and initramfs, and a disk that has been booted once.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};

use super::guest::{Direct, Guest, Setup};
use crate::archive::cache::FetchOptions;
use crate::image::process::run;
use crate::image::{self, ImageOptions};
use crate::qemu::{Accel, development_site, disk};
use crate::tools::Tools;

/// The operator's password.
pub const PASSWORD: &str = "correct horse";
/// Its argon2id hash, with the cheapest parameters there are: guests may run by emulation.
const PASSWORD_HASH: &str =
    "$argon2id$v=19$m=64,t=1,p=1$a29udG9yLXFlbXUtdGVzdA$vpPGeifGrt8kuFhOc+vNqTnkuwpEhIjqQfEnmXs9vI4";
/// What the console says when the gateway works.
pub const READY: &str = "kontor: gateway ready";
/// By emulation on a loaded machine; a healthy boot takes a tenth of it.
pub const BOOT_LIMIT: Duration = Duration::from_secs(300);

/// Our side of a benchmark.
#[derive(Debug)]
pub struct Ours {
    /// QEMU is among them.
    pub tools: Tools,
    /// How guests run here.
    pub accel: Accel,
    /// What GRUB would start.
    pub direct: Direct,
    /// The content of its slot.
    pub slot: Utf8PathBuf,
    /// A disk that has been booted once: data made, ports pinned, the PC's lease kept.
    pub disk: PathBuf,
}

impl Ours {
    /// Builds the image, takes kernel and initramfs out of its slot, and boots it once.
    ///
    /// # Errors
    /// When any of that fails.
    pub fn prepare(folder: &Utf8Path, fetch: &FetchOptions) -> Result<Self> {
        let site = development_site(PASSWORD_HASH).replace("root-shell = false", "root-shell = true");
        let output = Some(folder.join("branch.img"));
        let options =
            ImageOptions { site_text: Some(site), output, fetch: fetch.clone(), ..ImageOptions::default() };
        let built = image::build(&options)?;
        let accel = Accel::detect(&built.tools)?;
        let cmdline = format!("{} kontor.slot=a", image::plan(&options)?.cmdline().join(" "));
        let [kernel, initrd] = ["vmlinuz", "initrd"].map(|name| folder.join(name));
        dump(&built.tools, &built.slot_image, "vmlinuz", &kernel)?;
        dump(&built.tools, &built.slot_image, "initrd", &initrd)?;
        let disk = folder.join("prepared.img").into_std_path_buf();
        disk::copy_sparse(built.path.as_std_path(), &disk, disk::MACHINE_SIZE)?;
        let direct = Direct { kernel, initrd, cmdline };
        let ours = Self { tools: built.tools, accel, direct, slot: built.slot_image, disk };
        ours.first_boot(folder)?;
        Ok(ours)
    }

    fn first_boot(&self, folder: &Utf8Path) -> Result<()> {
        eprintln!("first boot: the state partition is made, the ports are pinned, the PC gets its lease");
        let setup = Setup { keep: true, log: Some(folder.join("first-boot.log").into()), ..self.setup() };
        let mut guest = Guest::start(&self.tools, self.accel, &setup)?;
        guest.run_until("the first lease", BOOT_LIMIT, |guest| guest.leased.is_some())?;
        guest.expect(READY, BOOT_LIMIT)?;
        guest.switch_off(BOOT_LIMIT).context("after the first boot")
    }

    /// A boot by GRUB from the prepared disk.
    #[must_use]
    pub fn setup(&self) -> Setup {
        Setup { memory_mib: 512, disk: Some(self.disk.clone()), direct: None, keep: false, log: None }
    }

    /// A direct boot of the same.
    #[must_use]
    pub fn direct_setup(&self) -> Setup {
        Setup { direct: Some(self.direct.clone()), ..self.setup() }
    }
}

/// Copies a file out of a slot image: the very bytes that are delivered.
pub(super) fn dump(tools: &Tools, slot: &Utf8Path, name: &str, to: &Utf8Path) -> Result<()> {
    let mut command = tools.command("debugfs")?;
    command.args(["-R", &format!("dump /{name} {to}"), slot.as_str()]);
    run(command)?;
    let length = std::fs::metadata(to).with_context(|| format!("{slot} has no {name}"))?.len();
    anyhow::ensure!(length > 0, "{name} in {slot} is empty");
    Ok(())
}

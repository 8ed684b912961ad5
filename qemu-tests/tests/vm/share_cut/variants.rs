//! Many cuts of one trace: each is mounted by a second box, which hands out what is in the share and in the domain's
//! database.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kontor_boot::PartitionKind;
use qemu_tests::block::BlockServer;
use qemu_tests::block::scratch::Scratch;
use qemu_tests::block::trace::{Base, Event};
use qemu_tests::block::variants::{self, CutPoint, Desk, Window};
use qemu_tests::console::site_with_root_shell;
use qemu_tests::disk::Disk;
use qemu_tests::{BoxId, BoxOptions, World};

use super::writers::BULK;

const CHECK_LIMIT: Duration = Duration::from_secs(1200);
/// The component's image, unpacked by nobody: a guest without loop devices mounts it from a disk.
const COMPONENT_SIZE: usize = 256 << 20;
/// Blocks of a shelf: the share without its bulk.
const SHELF_BLOCKS: usize = 4096;
const BLOCK: usize = 4096;
/// The database is opened in one of so many variants: it costs more than all else.
const DATABASE_EACH: usize = 3;

/// Mounts what it gets, numbers written to the desk's first sector. A report is a line, the share's files as an archive, and
/// what the database has of accounts; the bulk is removed before, as busybox's tar leaves nothing out. The component's own program reads the database, where it expects it.
const CHECKER: &str = "\
for d in /sys/block/vd*; do case $(cat $d/serial) in variants) v=/dev/${d##*/};; desk) c=/dev/${d##*/};; component) s=/dev/${d##*/};; esac; done; \
until [ -e /system/component/*.erofs ] && grep -q ' /data ' /proc/mounts; do sleep 1; done; \
mkdir -p /tmp/m /tmp/r; dd if=$(echo /system/component/*.erofs) of=$s bs=1M conv=fsync 2> /dev/null; mount -t erofs -o ro $s /tmp/r; mount -o bind /dev /tmp/r/dev; \
l=/tmp/r/var/lib/samba; k=0; while [ $k -lt @CUTS@ ]; do echo $k > /tmp/k; dd if=/tmp/k of=$c bs=512 count=1 conv=sync,fsync 2> /dev/null; \
: > /tmp/f; : > /tmp/u; if mount -t btrfs -o noatime $v /tmp/m; then r=mounted; \
t=/tmp/m/component/samba/shares/team; rm -f $t/@BULK@; tar -cf /tmp/f -C $t . || r=unreadable; \
if [ $((k % @EACH@)) -eq 0 ]; then mount -o bind /tmp/m/component/samba/lib $l; \
busybox chroot /tmp/r ldbsearch -s sub -H /var/lib/samba/private/sam.ldb '(objectClass=user)' sAMAccountName > /tmp/u 2>&1 || r=undatabase; umount $l; fi; \
umount /tmp/m || r=stuck; else r=refused; fi; \
{ echo $r $(wc -c < /tmp/f) $(wc -c < /tmp/u); cat /tmp/f /tmp/u; } > /tmp/o; dd if=/tmp/o of=$c bs=4096 seek=$((1 + k * @BLOCKS@)) conv=sync,fsync 2> /dev/null; \
k=$((k + 1)); done; echo all ''variants checked";

/// The second box at work.
pub(super) struct Checker {
    id: BoxId,
    desk: BlockServer<Desk>,
}

/// What it found in one variant.
pub(super) struct Found {
    pub(super) files: BTreeMap<String, Vec<u8>>,
    /// Where it was asked for.
    pub(super) accounts: Option<Vec<String>>,
}

impl Checker {
    /// Has a second box begin.
    pub(super) fn start(
        world: &mut World,
        base: &Base,
        events: &Arc<[Event]>,
        cuts: &[CutPoint],
    ) -> Result<Self> {
        // It is the last partition, and has grown to the end of the disk.
        let (offset, _) = Disk::open(&world.equipment()?.image)?.partition(PartitionKind::Data)?;
        let window = Window { offset, length: base.size() - offset };
        let (variants, desk) =
            variants::disks(base.clone(), events.clone(), cuts.to_vec(), window, SHELF_BLOCKS * BLOCK);
        let variants = BlockServer::start(world.artefacts().socket("variants"), variants)?;
        let desk = BlockServer::start(world.artefacts().socket("desk"), desk)?;
        let component = Scratch::new(COMPONENT_SIZE);
        let component = BlockServer::start(world.artefacts().socket("component"), component)?;
        let disks =
            [("variants", variants.socket()), ("desk", desk.socket()), ("component", component.socket())];
        let further_disks = disks.map(|(serial, socket)| (serial, socket.to_owned())).into();
        let options =
            BoxOptions { site: Some(site_with_root_shell()), further_disks, ..BoxOptions::default() };
        let nowhere = [world.add_wire("checker-wan")?, world.add_wire("checker-lan")?];
        let id = world.add_box("checker", &nowhere, &options)?;
        world.wait_until_ready(id)?;
        world.log_in(id)?;
        world.open_shell(id)?;
        let script = CHECKER.replace("@CUTS@", &cuts.len().to_string()).replace("@BULK@", BULK);
        let script = script.replace("@BLOCKS@", &SHELF_BLOCKS.to_string());
        let script = script.replace("@EACH@", &DATABASE_EACH.to_string());
        world.vm(id).serial.send(&format!("{script}\r"))?;
        Ok(Self { id, desk })
    }

    /// Waits for its end.
    pub(super) fn finish(&self, world: &mut World) -> Result<()> {
        world.wait_for_line(self.id, "all variants checked", CHECK_LIMIT)?;
        world.vm(self.id).power_cut()
    }

    /// What it found in a variant.
    pub(super) fn found(&self, number: usize) -> Result<Found> {
        let desk = self.desk.backend();
        let shelf = desk.shelf(number);
        let end = shelf.iter().position(|byte| *byte == b'\n').context("the checker reported nothing")?;
        let (report, content) = (std::str::from_utf8(&shelf[..end])?, &shelf[end + 1..]);
        let words: Vec<&str> = report.split_whitespace().collect();
        let [state, archive, accounts] = words[..] else { anyhow::bail!("the checker said {report:?}") };
        let (archive, rest) = content.split_at_checked(archive.parse()?).context("the report is torn")?;
        let said = rest.get(..accounts.parse()?).context("the report is torn")?;
        let said = String::from_utf8_lossy(said);
        ensure!(state == "mounted", "the checker said {report:?}: {said}");
        let accounts = said.lines().filter_map(|line| line.strip_prefix("sAMAccountName: "));
        let accounts = number.is_multiple_of(DATABASE_EACH).then(|| accounts.map(str::to_owned).collect());
        Ok(Found { files: unpack(archive)?, accounts })
    }
}

fn unpack(archive: &[u8]) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        let name = entry.path()?.display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        files.insert(name.trim_start_matches("./").to_owned(), content);
    }
    Ok(files)
}

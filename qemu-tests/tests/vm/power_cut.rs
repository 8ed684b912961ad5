//! The power goes at any moment: what was acknowledged is there after it.
//!
//! A box's first boot and its leases are recorded as a block trace. For each of many cut points the disk is
//! rebuilt as the cut may leave it, a second box mounts every one of them and hands the lease journal out,
//! and the test asks the real journal parser for each lease that had been acknowledged before the cut.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kontor_boot::PartitionKind;
use kontor_boot::filesystem::{Content, Ext};
use kontor_dhcp4::lease::{self, RecordState};
use qemu_tests::block::BlockServer;
use qemu_tests::block::trace::{Base, Cut, Event, Random, Recorder, Replay};
use qemu_tests::block::variants::{self, CutPoint, Desk, Window};
use qemu_tests::console::{site_with_operator, site_with_root_shell};
use qemu_tests::disk::Disk;
use qemu_tests::{BoxOptions, PcId, PcOptions, World};

use crate::disk_faults::served_disk;
use crate::office::Office;

/// How many cuts are made.
const CUTS: usize = 500;
/// How many of those are booted as a whole.
const BOOTS: usize = 3;
/// PCs that ask at once, and how often new ones come: writes of several commits of the file system (5 s).
const WAVE: u8 = 5;
const WAVES: u8 = 8;
/// Mounting one variant takes a fraction of a second by emulation.
const CHECK_LIMIT: Duration = Duration::from_secs(900);

/// Blocks of a shelf, on which the checker reports.
const SHELF_BLOCKS: usize = 16;

/// Mounts what it gets, numbers written to the desk's first sector, and reports on the desk's shelves.
const CHECKER: &str = "\
for d in /sys/block/vd*; do case $(cat $d/serial) in variants) v=/dev/${d##*/};; desk) c=/dev/${d##*/};; esac; done; \
mkdir -p /tmp/m; k=0; while [ $k -lt @CUTS@ ]; do echo $k > /tmp/k; dd if=/tmp/k of=$c bs=512 count=1 conv=sync,fsync 2> /dev/null; \
if mount -t ext4 -o noatime $v /tmp/m; then j=/tmp/m/dhcpd/leases.journal; \
if [ -e $j ]; then cat $j > /tmp/j; else : > /tmp/j; fi; r=mounted; umount /tmp/m || r=stuck; else r=refused; : > /tmp/j; fi; \
{ echo $r $(wc -c < /tmp/j); cat /tmp/j; } > /tmp/o; dd if=/tmp/o of=$c bs=4096 seek=$((1 + k * @BLOCKS@)) conv=sync,fsync 2> /dev/null; \
k=$((k + 1)); done; echo all ''variants checked";

/// A lease that a PC has, and how many events the disk had answered when it had it.
#[derive(Debug)]
struct Acknowledged {
    pc: PcId,
    mac: [u8; 6],
    address: std::net::Ipv4Addr,
    position: usize,
}

pub(crate) fn leases_survive_any_cut(world: &mut World) -> Result<()> {
    let (recorder, office) = boot_recorded(world)?;
    let booted_at = recorder.backend().position();
    let acknowledged = collect_leases(world, &office, &recorder)?;
    world.vm(office.gateway).power_cut()?;
    let (base, events) = recorder.backend().trace();
    let cuts = choose_cuts(booted_at, events.len());
    let desk = check_variants(world, &base, &events, &cuts)?;
    for (number, (position, cut)) in cuts.iter().enumerate() {
        ensure_leases_are_there(&desk.backend(), number, *position, &acknowledged)
            .with_context(|| format!("cut {number} after {position} of {} events, {cut:?}", events.len()))?;
    }
    for seed in 0..BOOTS as u64 {
        let position = events.len() - usize::try_from(Random::new(seed).below(20))?;
        let left = Replay::new(events.clone()).cut(position, Cut::Torn { seed });
        *recorder.backend() = Recorder::after_a_cut(base.clone(), left);
        boot_again(world, &office, &acknowledged)?;
    }
    Ok(())
}

/// The office, ready and durable, its disk recorded since it was flashed.
fn boot_recorded(world: &mut World) -> Result<(BlockServer<Recorder>, Office)> {
    let recorder = served_disk(world, &site_with_operator(""))?;
    let served_disk = Some(recorder.socket().to_owned());
    let office = Office::boot(world, &BoxOptions { served_disk, ..BoxOptions::default() })?;
    office.wait_until_durable(world)?;
    Ok((recorder, office))
}

/// Waves of PCs get their leases; each is noted with what the disk had been told by then.
fn collect_leases(
    world: &mut World,
    office: &Office,
    recorder: &BlockServer<Recorder>,
) -> Result<Vec<Acknowledged>> {
    let mut all = Vec::new();
    for wave in 0..WAVES {
        let mut asking: Vec<PcId> = (0..WAVE)
            .map(|pc| world.add_pc(office.lan, &PcOptions { mac: [2, 0, 0, 1, wave, pc], name: None }))
            .collect();
        world.wait_for("the leases of a wave", Office::LEASE_LIMIT, |world| {
            asking.retain(|pc| {
                let Some(lease) = world.pc(*pc).lease() else { return true };
                let address = lease.address.address();
                let (mac, position) = (world.pc(*pc).mac, recorder.backend().position());
                all.push(Acknowledged { pc: *pc, mac, address, position });
                false
            });
            Ok(asking.is_empty().then_some(()))
        })?;
    }
    Ok(all)
}

/// A fifth of the cuts hit the first boot, the others the time in which leases are given.
fn choose_cuts(booted_at: usize, end: usize) -> Vec<CutPoint> {
    variants::choose_cuts(CUTS, |number| if number % 5 == 0 { (0, booted_at) } else { (booted_at, end) })
}

/// Has a second box mount every variant; its desk then holds what it found.
fn check_variants(
    world: &mut World,
    base: &Base,
    events: &Arc<[Event]>,
    cuts: &[CutPoint],
) -> Result<BlockServer<Desk>> {
    let (offset, length) = Disk::open(&world.equipment()?.image)?.partition(PartitionKind::State)?;
    let window = Window { offset, length };
    let (variants, desk) =
        variants::disks(base.clone(), events.clone(), cuts.to_vec(), window, SHELF_BLOCKS * 4096);
    let variants = BlockServer::start(world.artefacts().socket("variants"), variants)?;
    let desk = BlockServer::start(world.artefacts().socket("desk"), desk)?;
    let nowhere = [world.add_wire("checker-wan")?, world.add_wire("checker-lan")?];
    let options = BoxOptions {
        site: Some(site_with_root_shell()),
        further_disks: vec![("variants", variants.socket().into()), ("desk", desk.socket().into())],
        ..BoxOptions::default()
    };
    let checker = world.add_box("checker", &nowhere, &options)?;
    world.wait_until_ready(checker)?;
    world.log_in(checker)?;
    world.vm(checker).serial.send("shell\r")?;
    world.expect(checker, "root# ", Office::LEASE_LIMIT)?;
    let script = CHECKER.replace("@CUTS@", &cuts.len().to_string());
    let script = script.replace("@BLOCKS@", &SHELF_BLOCKS.to_string());
    world.vm(checker).serial.send(&format!("{script}\r"))?;
    world.wait_for_line(checker, "all variants checked", CHECK_LIMIT)?;
    world.vm(checker).power_cut()?;
    Ok(desk)
}

/// Every lease acknowledged before the cut is in the journal of the variant.
fn ensure_leases_are_there(
    desk: &Desk,
    number: usize,
    position: usize,
    acknowledged: &[Acknowledged],
) -> Result<()> {
    let before = || acknowledged.iter().filter(|lease| lease.position <= position);
    if !matches!(desk.content(number), Some(Content::Ext(Ext { marked: true, .. }))) {
        ensure!(before().count() == 0, "there is no file system, but leases were acknowledged");
        return Ok(());
    }
    let shelf = desk.shelf(number);
    let end = shelf.iter().position(|byte| *byte == b'\n').context("the checker reported nothing")?;
    let (report, journal) = (std::str::from_utf8(&shelf[..end])?, &shelf[end + 1..]);
    let length = report.strip_prefix("mounted ").with_context(|| format!("the checker said {report:?}"))?;
    let replay = lease::replay(journal.get(..length.trim().parse()?).context("the report is torn")?);
    ensure!(replay.problems.is_empty(), "the journal is damaged: {:?}", replay.problems);
    for lease in before() {
        let found = replay.records.iter().find(|record| record.address == lease.address);
        let held = found.is_some_and(|record| record.state == RecordState::Leased && record.mac == lease.mac);
        ensure!(held, "{lease:?} is lost; the journal says {found:?}");
    }
    Ok(())
}

/// The box comes up on what the cut has left, and a PC gets its address again.
fn boot_again(world: &mut World, office: &Office, acknowledged: &[Acknowledged]) -> Result<()> {
    world.power_on(office.gateway)?;
    world.wait_until_ready(office.gateway)?;
    let first = acknowledged.first().context("no lease was given")?;
    world.pc(first.pc).restart_dhcp();
    let again = world.wait_for_lease(first.pc, Office::LEASE_LIMIT)?;
    ensure!(again.address.address() == first.address, "{first:?} became {again:?}");
    world.vm(office.gateway).power_cut()
}

//! The power goes while a share is written to: what the file server has promised to be durable, and who was added to the
//! domain, is there after it.
//!
//! PCs write to a share, and users are added to the domain, on a box whose disk is recorded as a block trace. At many
//! points of that trace the disk is rebuilt as a cut may leave it. A second box mounts each; some are booted as a whole.

mod variants;
mod writers;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use qemu_tests::block::BlockServer;
use qemu_tests::block::trace::{Cut, Recorder, Replay};
use qemu_tests::block::variants::{CutPoint, choose_cuts};
use qemu_tests::promise::Promises;
use qemu_tests::smb::{Account, Disposition, Operation, SmbSession};
use qemu_tests::{BoxOptions, PcId, PcOptions, World};

use self::variants::Checker;
use self::writers::{HABITS, Writer};
use crate::disk_faults::served_disk;
use crate::office::Office;
use crate::samba::{self, PASSWORD, START_LIMIT, USER};
use crate::scene::Scene;

/// How many cuts are mounted, and how many are booted.
const CUTS: usize = 60;
const BOOTS: usize = 3;
/// What must have happened before the power goes.
const PROMISES: usize = 400;
const USERS: usize = 3;
const WRITING_LIMIT: Duration = Duration::from_secs(900);
const BOX: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
const SHARE: &str = "team";
const DOMAIN: &str = "OFFICE";
/// Adds users one after the other; a line for each that the domain has. What it says is not what is typed.
const ADD_USERS: &str = "i=0; while kontor ctl samba user add w$i @PASSWORD@ > /tmp/added; do echo \"added\"\" w$i .\"; i=$((i + 1)); done; cat /tmp/added";

/// Everything that was acknowledged.
#[derive(Default)]
struct Acknowledged {
    promises: Promises,
    /// Users, and how many events the disk had answered when they were there.
    users: Vec<(String, usize)>,
}

pub(crate) fn survives_a_power_cut(world: &mut World) -> Result<()> {
    let recorder = served_disk(world, &samba::site())?;
    let served_disk = Some(recorder.socket().to_owned());
    let scene = Scene::open_with_site(world, &BoxOptions { served_disk, ..samba::options() })?;
    samba::wait_until_up(&scene, world)?;
    samba::add_user(&scene, world)?;
    let begun_at = recorder.backend().position();
    let acknowledged = write(world, &scene, &recorder)?;
    world.vm(scene.office.gateway).power_cut()?;

    let (base, events) = recorder.backend().trace();
    // Of all kinds, while everybody wrote.
    let cuts = choose_cuts(CUTS, |_| (begun_at, events.len()));
    let checker = Checker::start(world, &base, &events, &cuts)?;
    for (position, cut) in cuts_to_boot(begun_at, events.len()) {
        let left = Replay::new(events.clone()).cut(position, cut);
        *recorder.backend() = Recorder::after_a_cut(base.clone(), left);
        boot_again(world, &scene, position, &acknowledged)
            .with_context(|| format!("booted after {position} of {} events, {cut:?}", events.len()))?;
    }
    checker.finish(world)?;
    check_variants(&checker, &cuts, &acknowledged)
}

/// Everybody writes until enough was acknowledged; then the power may go in the middle of it.
fn write(world: &mut World, scene: &Scene, recorder: &BlockServer<Recorder>) -> Result<Acknowledged> {
    let mut writers = Vec::new();
    for (number, habit) in (0..).zip(HABITS) {
        let pc = world.add_pc(scene.office.lan, &PcOptions { mac: [2, 0, 0, 0, 1, number], name: None });
        world.wait_for_lease(pc, Office::LEASE_LIMIT)?;
        writers.push(Writer::new(connect(world, pc)?, habit));
    }
    let (begun, mut seen) = (Instant::now(), Acknowledged::default());
    world
        .vm(scene.office.gateway)
        .serial
        .send(&format!("{}\r", ADD_USERS.replace("@PASSWORD@", PASSWORD)))?;
    writers.iter_mut().try_for_each(|writer| writer.begin(world))?;
    world.wait_for("promises of the file server", WRITING_LIMIT, |world| {
        let position = || recorder.backend().position();
        for writer in &mut writers {
            writer.go_on(world, &mut seen.promises, position)?;
        }
        while let Some(line) = world.vm(scene.office.gateway).serial.take_line("added w") {
            let user = line.split("added ").nth(1).and_then(|rest| rest.split(' ').next());
            seen.users.push((user.context("no user")?.to_owned(), position()));
        }
        Ok((seen.promises.count() >= PROMISES && seen.users.len() >= USERS).then_some(()))
    })?;
    println!(
        "in {} s {} promises, {} users added, {} events of the disk",
        begun.elapsed().as_secs(),
        seen.promises.count(),
        seen.users.len(),
        recorder.backend().position()
    );
    Ok(seen)
}

fn connect(world: &mut World, pc: PcId) -> Result<SmbSession> {
    let account = Account { domain: DOMAIN, user: USER, password: PASSWORD };
    world.eventually(START_LIMIT, |world| world.smb_connect(pc, BOX, &account, SHARE))
}

/// The cut that was, what a disk without a cache makes of it, and one in the middle of writing.
fn cuts_to_boot(from: usize, end: usize) -> [CutPoint; BOOTS] {
    [(end, Cut::Torn { seed: 1 }), (end, Cut::Prefix), (from + (end - from) / 2, Cut::Torn { seed: 2 })]
}

/// The box comes up on what the cut has left, with everything in it that was promised.
fn boot_again(world: &mut World, scene: &Scene, position: usize, acknowledged: &Acknowledged) -> Result<()> {
    let gateway = scene.office.gateway;
    world.power_on(gateway)?;
    world.wait_until_ready(gateway)?;
    scene.enter_shell(world)?;
    samba::wait_until_up(scene, world)?;
    let status = scene.shell(world, "kontor ctl status | grep '^samba '")?;
    ensure!(status.contains("serves as dc"), "{status}");
    let said = samba::shell(scene, world, "kontor ctl samba user list")?;
    let listed: Vec<String> = said.lines().map(|line| line.trim().to_owned()).collect();
    acknowledged.ensure_users(position, &listed)?;
    let said = samba::shell(scene, world, "kontor ctl samba dbcheck | tail -n 1")?;
    ensure!(said.contains("(0 errors)"), "the database has errors: {said}");
    let files = read_back(world, scene.office.pc, &acknowledged.promises.files(position))?;
    let blocks = acknowledged.promises.check(position, &files)?;
    let database = said.lines().find(|line| line.contains("errors)")).unwrap_or_default().trim();
    println!("booted: {blocks} blocks of {} files read back; {database}", files.len());
    scene.still_serves(world)?;
    world.vm(gateway).power_cut()
}

/// Whole files, through the file server; those that are not there are left out.
fn read_back(world: &mut World, pc: PcId, names: &[String]) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut session = connect(world, pc)?;
    let mut files = BTreeMap::new();
    for name in names {
        let open = Operation::Create { name, disposition: Disposition::Open };
        let opened = world.smb(&mut session, &open).with_context(|| name.clone())?;
        let (file, length) = (opened.file()?, opened.length()?);
        let mut content = Vec::new();
        while (content.len() as u64) < length {
            let read = Operation::Read { file, offset: content.len() as u64 };
            content.extend(world.smb(&mut session, &read).with_context(|| name.clone())?.data()?);
        }
        world.smb(&mut session, &Operation::Close { file })?;
        files.insert(name.clone(), content);
    }
    world.smb_close(session);
    Ok(files)
}

fn check_variants(checker: &Checker, cuts: &[CutPoint], acknowledged: &Acknowledged) -> Result<()> {
    let (mut blocks, mut databases, mut users) = (0, 0, 0);
    for (number, (position, cut)) in cuts.iter().enumerate() {
        let what = || format!("cut {number} after {position} events, {cut:?}");
        let found = checker.found(number).with_context(what)?;
        blocks += acknowledged.promises.check(*position, &found.files).with_context(what)?;
        if let Some(accounts) = found.accounts {
            databases += 1;
            users += acknowledged.ensure_users(*position, &accounts).with_context(what)?;
        }
    }
    println!(
        "{} cuts mounted, {blocks} blocks promised in them; {databases} databases opened, {users} users promised in them; \
         none lost",
        cuts.len()
    );
    Ok(())
}

impl Acknowledged {
    /// Everybody added before the cut is there; how many that are.
    fn ensure_users(&self, position: usize, listed: &[String]) -> Result<usize> {
        let before = self.users.iter().filter(|(_, added_at)| *added_at <= position).map(|(user, _)| user);
        let missing: Vec<&String> = before.clone().filter(|user| !listed.contains(user)).collect();
        ensure!(missing.is_empty(), "{missing:?} are lost; there are {listed:?}");
        ensure!(listed.iter().any(|user| user == USER), "{USER} is lost; there are {listed:?}");
        Ok(before.count())
    }
}

//! Releases over the air: a box that updates itself, and the office meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use kontor_update::check_in::CheckIn;
use qemu_tests::block::BlockServer;
use qemu_tests::block::scratch::Scratch;
use qemu_tests::console::{BOOT_LIMIT, site_with_root_shell};
use qemu_tests::release::{Draft, Fault};
use qemu_tests::{BoxOptions, World, stick};

use crate::office::Office;
use crate::tunnel;

/// Where releases are published, as the box knows it.
const SERVER: &str = "updates.example.net";
/// Whom it tells, on the same server.
const CENTRE: &str = "/check-in";
/// A download by emulation, a slot written and read back, and the restart.
pub(crate) const UPDATE_LIMIT: Duration = Duration::from_secs(900);
/// Three minutes of the machine's own time, on a machine that runs by emulation beside others.
const FALL_BACK_LIMIT: Duration = Duration::from_secs(600);
pub(crate) const TRIAL_LIMIT: Duration = Duration::from_secs(300);

/// An office whose box follows a repository on the Internet.
pub(crate) struct Updated {
    pub(crate) office: Office,
    folder: Utf8PathBuf,
}

impl Updated {
    /// The box works, has proved itself, and its operator is logged in.
    pub(crate) fn open(world: &mut World) -> Result<Self> {
        let options = BoxOptions { site: Some(Self::site()), ..BoxOptions::default() };
        let office = Office::boot(world, &options)?;
        Self::follow(world, office)
    }

    /// The same with a tunnel to headquarters that is up.
    pub(crate) fn open_with_tunnel(world: &mut World) -> Result<Self> {
        let options = BoxOptions { site: Some(tunnel::site(&Self::site())), ..BoxOptions::default() };
        let office = Office::boot(world, &options)?;
        let updated = Self::follow(world, office)?;
        tunnel::connect(world, &updated.office)?;
        Ok(updated)
    }

    /// The site file of such an office.
    pub(crate) fn site() -> String {
        format!(
            "{}\n[update]\nurl = \"http://{SERVER}/kontor\"\nwindow = \"00:00-23:59\"\ncentre = \"http://{SERVER}{CENTRE}\"\n",
            site_with_root_shell()
        )
    }

    /// The same with an office whose box is ready and has that site file.
    pub(crate) fn follow(world: &mut World, office: Office) -> Result<Self> {
        let folder = Utf8PathBuf::try_from(world.artefacts().directory().to_owned())?.join("releases");
        std::fs::create_dir_all(folder.join("kontor"))?;
        let isp = world.isp(office.isp);
        let web = isp.options.web_server;
        isp.names.add(SERVER, web, 60);
        isp.web.folder = Some(folder.clone().into_std_path_buf());
        world.wait_for_lease(office.pc, Office::LEASE_LIMIT)?;
        office.wait_until_online(world)?;
        world.log_in(office.gateway)?;
        let updated = Self { office, folder };
        updated.wait_for(world, "status", "(good)", BOOT_LIMIT)?;
        Ok(updated)
    }

    /// A release with this version, not yet published.
    pub(crate) fn draft(&self, version: &str) -> Result<Draft> {
        self.draft_by(version, Draft::build)
    }

    /// The same, built in this way.
    pub(crate) fn draft_by(
        &self,
        version: &str,
        build: impl Fn(&str, &Utf8Path) -> Result<Draft>,
    ) -> Result<Draft> {
        build(version, &self.folder.join(version))
    }

    /// Boxes go back to the release before it.
    pub(crate) fn withdraw(&self, draft: &Draft) -> Result<()> {
        draft.withdraw(&self.folder.join("kontor"))
    }

    pub(crate) fn publish(&self, draft: &Draft) -> Result<()> {
        draft.publish(&self.folder.join("kontor"))
    }

    /// Waits until the command's answer has this in it; the answer.
    pub(crate) fn wait_for(
        &self,
        world: &mut World,
        command: &str,
        part: &str,
        limit: Duration,
    ) -> Result<String> {
        world.eventually(limit, |world| {
            let answer = world.run(self.office.gateway, command)?;
            ensure!(answer.contains(part), "{command}: no {part:?} in:\n{answer}");
            Ok(answer)
        })
    }

    /// The release that has failed is not taken again. The way to the Internet may not be up yet when it is asked first.
    fn refuses(&self, world: &mut World) -> Result<()> {
        world.eventually(TRIAL_LIMIT, |world| {
            world.run(self.office.gateway, "update check")?;
            let story = world.run(self.office.gateway, "update")?;
            ensure!(story.contains("rule failed before: 0.2.0"), "it is not refused: {story}");
            Ok(())
        })
    }

    /// Waits for the restart, and says how long nobody answered the PC.
    fn outage(&self, world: &mut World) -> Result<(String, Duration)> {
        let mut last_answer = Instant::now();
        let mut longest = Duration::ZERO;
        let start = Instant::now();
        let mut ready = None;
        loop {
            ensure!(start.elapsed() < UPDATE_LIMIT, "the box has not restarted into the new release");
            let name = format!("{}.office.internal", Office::PC_NAME);
            if world.resolve(self.office.pc, &name).is_ok() {
                longest = longest.max(last_answer.elapsed());
                last_answer = Instant::now();
                if let Some(ready) = ready {
                    return Ok((ready, longest));
                }
            }
            ready = ready.or_else(|| world.vm(self.office.gateway).serial.take_line("kontor: gateway ready"));
        }
    }
}

/// A release that differs little is fetched as what differs: of the slot that runs, the box takes the rest.
fn ensure_delta(world: &mut World, updated: &Updated, draft: &Draft) -> Result<()> {
    let full = draft.release.slot.full().context("no full form")?.bytes;
    let requests = &world.isp(updated.office.isp).web.requests;
    let objects = requests.iter().filter(|request| request.path.contains("/objects/"));
    let (count, served) =
        objects.fold((0, 0), |(count, sum), request| (count + 1, sum + request.bytes as u64));
    println!("delta: {served} of {full} octets of the slot in {count} requests");
    ensure!(served > 0 && served < full / 5, "{served} of {full} octets were fetched: that is no delta");
    Ok(())
}

pub(crate) fn by_itself(world: &mut World) -> Result<()> {
    let updated = Updated::open_with_tunnel(world)?;
    updated.office.is_durable(world)?;
    let before = world.pc(updated.office.pc).lease().context("no lease")?.address;
    let draft = updated.draft("0.2.0")?;
    updated.publish(&draft)?;
    world.run(updated.office.gateway, "update check")?;
    let (ready, outage) = updated.outage(world)?;
    println!("update: nobody answered for {} s, the restart of the machine included", outage.as_secs());
    ensure!(ready.contains("slot b"), "{ready}");
    ensure_delta(world, &updated, &draft)?;

    world.log_in(updated.office.gateway)?;
    let story = updated.wait_for(world, "update", "0.2.0 runs; everything that worked", TRIAL_LIMIT)?;
    println!("{story}");
    for part in ["Running    0.2.0", "is there, fetching it", "MB, the rest was here", "is written to slot b"]
    {
        ensure!(story.contains(part), "no {part:?} in:\n{story}");
    }
    updated.wait_for(world, "status", "slot b (good)", BOOT_LIMIT)?;
    updated.office.ensure_lease_is_known(world)?;
    let after = world.pc(updated.office.pc).lease().context("no lease")?.address;
    ensure!(before == after, "{before} became {after}");
    updated.office.wait_until_online(world)?;
    tunnel::is_up(world, &updated.office, tunnel::ADDRESS, TRIAL_LIMIT)?;
    world.eventually(TRIAL_LIMIT, |world| {
        let documents = &world.isp(updated.office.isp).web.documents;
        let read = |document: &[u8]| serde_json::from_slice::<CheckIn>(document);
        let told = documents.iter().filter(|(path, _)| path == CENTRE).map(|(_, document)| read(document));
        let told = told.collect::<Result<Vec<_>, _>>()?;
        let has = told.iter().any(|told| told.story.iter().any(|event| event.text.starts_with("0.2.0 runs")));
        ensure!(has && told.iter().all(|one| one.id == told[0].id), "the centre was told {told:?}");
        Ok(())
    })
}

/// A box without any line: its provider's cable is not even needed.
pub(crate) fn by_stick(world: &mut World) -> Result<()> {
    let folder = Utf8PathBuf::try_from(world.artefacts().directory().to_owned())?;
    let draft = Draft::build("0.2.0", &folder.join("0.2.0"))?;
    draft.publish(&folder.join("repository"))?;
    let image = stick::fat32("kontor", &folder.join("repository"))?;
    let stick = BlockServer::start(world.artefacts().socket("stick"), Scratch::of(image))?;
    let further_disks = vec![("stick", stick.socket().into())];
    let office = Office::boot(world, &BoxOptions { further_disks, ..BoxOptions::default() })?;
    let gateway = office.gateway;
    let updated = Updated { office, folder };
    world.log_in(gateway)?;
    updated.wait_for(world, "status", "(good)", BOOT_LIMIT)?;
    let answer = world.run(gateway, "update from stick")?;
    ensure!(answer.contains("asked for"), "{answer}");
    world.wait_for_line(gateway, "going down (Reboot)", UPDATE_LIMIT)?;
    let ready = world.wait_until_ready(gateway)?;
    ensure!(ready.contains("slot b"), "{ready}");
    world.log_in(gateway)?;
    updated.wait_for(world, "update", "0.2.0 runs; everything that worked", TRIAL_LIMIT).map(drop)
}

/// A release that does not work is given up by itself, is not taken again, and the reason is said.
fn bad(world: &mut World, fault: Fault<'_>, reason: &str) -> Result<()> {
    let updated = Updated::open(world)?;
    give_up(world, updated, fault, reason).map(drop)
}

pub(crate) fn give_up(
    world: &mut World,
    updated: Updated,
    fault: Fault<'_>,
    reason: &str,
) -> Result<Updated> {
    updated.office.is_durable(world)?;
    let mut draft = updated.draft("0.2.0")?;
    draft.spoil(fault)?;
    updated.publish(&draft)?;
    world.run(updated.office.gateway, "update check")?;
    world.wait_for_line(updated.office.gateway, "going down (Reboot)", UPDATE_LIMIT)?;
    let start = Instant::now();
    let ready = world.wait_for("the old release", FALL_BACK_LIMIT, |world| {
        let line = world.vm(updated.office.gateway).serial.take_line("kontor: gateway ready");
        Ok(line.filter(|line| line.contains("slot a")))
    })?;
    println!("bad release: {} s until the old one runs: {ready}", start.elapsed().as_secs());
    world.log_in(updated.office.gateway)?;
    let story = updated.wait_for(world, "update", "Failed     0.2.0: ", TRIAL_LIMIT)?;
    println!("{story}");
    ensure!(story.contains("Running    0.1.0") && story.contains(reason), "no {reason:?} in:\n{story}");
    updated.refuses(world)?;
    updated.wait_for(world, "status", "slot a (good)", BOOT_LIMIT)?;
    updated.office.ensure_lease_is_known(world)?;
    Ok(updated)
}

const NEVER: &str = "never got as far as its own trial";

pub(crate) fn kernel_panics(world: &mut World) -> Result<()> {
    bad(world, Fault::NoInit, NEVER)
}

pub(crate) fn init_exits(world: &mut World) -> Result<()> {
    bad(world, Fault::InitExits, NEVER)
}

/// Its daemon runs and is as ready as ever, but nobody gets an answer.
pub(crate) fn names_are_not_answered(world: &mut World) -> Result<()> {
    let script = "until nft 'table ip sabotage { chain answers { type filter hook output priority -300; \
                  meta l4proto { tcp, udp } th sport 53 drop; }; }'; do sleep 1; done";
    bad(world, Fault::Script(script), "names")
}

/// Process 1 freezes when it has armed the watchdog.
pub(crate) fn hangs(world: &mut World) -> Result<()> {
    let script = "g=/sys/fs/cgroup/frozen; until dmesg | grep -q 'hardware watchdog armed'; do sleep 1; done; \
                  mkdir $g; echo 1 > $g/cgroup.procs; echo 1 > $g/cgroup.freeze; sleep 1000";
    bad(world, Fault::Script(script), "")
}

/// Nothing of the box's own finds its room any more, the journal of updates excepted; the old release makes room again.
pub(crate) fn fills_the_disk(world: &mut World) -> Result<()> {
    let script = "until grep -q ' /state ' /proc/mounts; do sleep 1; done; \
                  dd if=/dev/zero of=/state/filler bs=1M; dd if=/dev/zero of=/state/rest bs=512";
    let updated = Updated::open(world)?;
    let updated = give_up(world, updated, Fault::Script(script), "room on state")?;
    updated.office.is_durable(world)
}

/// Neither a disk nor a network: nobody could even say that it is on trial, but for the boot loader.
pub(crate) fn finds_no_disk(world: &mut World) -> Result<()> {
    bad(world, Fault::NoModules, NEVER)
}

/// What would not be taken after the restart is not restarted for.
pub(crate) fn component_is_corrupt(world: &mut World) -> Result<()> {
    let updated = Updated::open(world)?;
    let mut draft = updated.draft("0.2.0")?;
    draft.spoil_component()?;
    updated.publish(&draft)?;
    world.run(updated.office.gateway, "update check")?;
    let reason = "Failed     0.2.0: component samba: rule seal: ";
    let story = updated.wait_for(world, "update", reason, UPDATE_LIMIT)?;
    println!("{story}");
    updated.refuses(world)?;
    updated.wait_for(world, "status", "slot a (good)", BOOT_LIMIT).map(drop)
}

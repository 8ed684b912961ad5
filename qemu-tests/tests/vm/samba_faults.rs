//! What may happen to a domain controller: killed, out of memory, without space, read-only, its files cut off. The office
//! never notices, the box says what is wrong, and with the cause gone it serves again.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use qemu_tests::World;

use crate::process_faults::first_of;
use crate::samba::{self, START_LIMIT};
use crate::scene::Scene;

/// The box's own processes, which have no reason to notice.
const DAEMONS: [&str; 3] = ["netd", "dhcpd", "dnsd"];
const GROUP: &str = "/sys/fs/cgroup/kontor/samba";
const STATE: &str = "/data/component/samba";
/// A daemon of Samba's whose end is the end of all the others.
const VITAL: [&str; 2] = ["/usr/sbin/smbd", "/usr/sbin/winbindd"];
const BACK: &str = "ready again after";
const STARTS: &str = "Starting process";
/// Of a data file system that is read-only.
const GIVEN_UP: &str = "the data file system has given up writing";
/// Of one without space.
const FULL: &str = "the data file system is full";
/// What the kernel needs for a page here and there, and Samba for nothing.
const TINY_LIMIT: &str = "16M";
/// A file for which there is half the space: so much through emulation and encryption takes some seconds.
const LARGE_MIB: u32 = 24;

/// An office with a domain, and what must not change in it.
struct Domain {
    scene: Scene,
    daemons: String,
}

pub(crate) fn leave_the_office_alone(world: &mut World) -> Result<()> {
    let domain = Domain::open(world)?;
    domain.survives(world, "each kind of process killed", Domain::each_process_killed)?;
    domain.survives(world, "out of memory", Domain::out_of_memory)?;
    domain.survives(world, "read-only", Domain::read_only)?;
    domain.survives(world, "caches cut off", Domain::caches_cut_off)?;
    domain.survives(world, "database cut off", Domain::database_cut_off)?;
    domain.survives(world, "no space", Domain::no_space)
}

impl Domain {
    fn open(world: &mut World) -> Result<Self> {
        let scene = Scene::open_with_site(world, &samba::options())?;
        samba::wait_until_up(&scene, world)?;
        samba::add_user(&scene, world)?;
        let daemons = daemons(&scene, world)?;
        Ok(Self { scene, daemons })
    }

    /// Makes a fault and takes it away again; then everything is as before.
    fn survives(
        &self,
        world: &mut World,
        what: &str,
        fault: fn(&Self, &mut World) -> Result<()>,
    ) -> Result<()> {
        let begun = Instant::now();
        fault(self, world).and_then(|()| self.serves(world)).with_context(|| what.to_owned())?;
        println!("{what}: over after {} s", begun.elapsed().as_secs());
        Ok(())
    }

    /// Office and domain.
    fn serves(&self, world: &mut World) -> Result<()> {
        samba::speaks_smb(&self.scene, world)?;
        samba::shell(&self.scene, world, "kontor ctl samba wbinfo --ping")?;
        // Not by samba-tool, which takes ten times as long to ask the same database.
        let database = "kontor ctl samba ldbsearch -H /var/lib/samba/private/sam.ldb";
        let line = format!("{database} sAMAccountName={} sAMAccountName", samba::USER);
        let users = samba::shell(&self.scene, world, &line)?;
        let user = format!("sAMAccountName: {}", samba::USER);
        ensure!(users.lines().any(|line| line.trim() == user), "{users}");
        let status = self.scene.shell(world, "kontor ctl status | grep '^samba '")?;
        ensure!(status.contains("serves as dc"), "{status}");
        self.office_is_unharmed(world)
    }

    fn office_is_unharmed(&self, world: &mut World) -> Result<()> {
        self.scene.still_serves(world)?;
        self.scene.office.wait_until_online(world)?;
        self.scene.no_zombies(world)?;
        let daemons = daemons(&self.scene, world)?;
        ensure!(daemons == self.daemons, "{DAEMONS:?} were {}, are {daemons}", self.daemons);
        Ok(())
    }

    /// How many lines of its log have this.
    fn said(&self, world: &mut World, pattern: &str) -> Result<usize> {
        let count = format!("kontor ctl logs samba -n 2000 | grep -c '{pattern}'");
        let said = self.scene.shell(world, &count)?;
        said.trim().parse().with_context(|| said.clone())
    }

    /// Waits until its log has one more line with this than `seen`.
    fn says(&self, world: &mut World, pattern: &str, seen: usize) -> Result<()> {
        let line = self.scene.wait_for_log_within(world, START_LIMIT, "samba", pattern, seen)?;
        println!("{}", line.trim());
        Ok(())
    }

    /// Makes a fault that ends it, which it is to say so; then it is back by itself.
    fn ends_and_is_back(&self, world: &mut World, fault: &str, reason: &str) -> Result<()> {
        let (reasons, back) = (self.said(world, reason)?, self.said(world, BACK)?);
        self.scene.shell(world, fault)?;
        self.says(world, reason, reasons)?;
        self.office_is_unharmed(world)?;
        self.says(world, BACK, back)
    }

    fn each_process_killed(&self, world: &mut World) -> Result<()> {
        let kinds = self.processes(world)?;
        println!("killed in turn: {:?}", kinds.keys());
        let of_samba = |kind: &&String| kind.starts_with("samba: task");
        for kind in kinds.keys().filter(of_samba) {
            self.killed_and_replaced(world, kind)?;
        }
        // Its helpers: some come back when they are wanted.
        for kind in kinds.keys().filter(|kind| kind.starts_with("smbd: ") || kind.starts_with("winbindd: ")) {
            if let Some(pid) = self.processes(world)?.get(kind) {
                self.scene.shell(world, &format!("kill -9 {pid}"))?;
            }
        }
        for kind in VITAL {
            let pid = world.eventually(START_LIMIT, |world| self.process(world, kind))?;
            self.ends_and_is_back(world, &format!("kill -9 {pid}"), "exited with code 1")?;
        }
        Ok(())
    }

    fn killed_and_replaced(&self, world: &mut World, kind: &str) -> Result<()> {
        let pid = world.eventually(START_LIMIT, |world| self.process(world, kind))?;
        self.scene.shell(world, &format!("kill -9 {pid}"))?;
        world.echo(self.scene.connection, kind.as_bytes())?;
        world.eventually(START_LIMIT, |world| {
            let another = self.process(world, kind)?;
            ensure!(another != pid, "{kind} is still {pid}");
            Ok(())
        })
    }

    fn process(&self, world: &mut World, kind: &str) -> Result<u32> {
        let processes = self.processes(world)?;
        processes.get(kind).copied().with_context(|| format!("there is no {kind:?} in {processes:?}"))
    }

    /// One of each kind of its processes, by what they call themselves.
    fn processes(&self, world: &mut World) -> Result<BTreeMap<String, u32>> {
        let line = format!(
            "grep -H '' $(sed 's|.*|/proc/&/cmdline|' {GROUP}/cgroup.procs) 2>/dev/null | cut -c 1-99"
        );
        let listed = self.scene.shell(world, &line)?;
        Ok(listed.lines().rev().filter_map(process_of).collect())
    }

    /// The next start has the limit of the release again.
    fn out_of_memory(&self, world: &mut World) -> Result<()> {
        let limit = format!("cat {GROUP}/memory.max");
        let before = self.scene.shell(world, &limit)?;
        let starve = format!("echo {TINY_LIMIT} > {GROUP}/memory.max");
        self.ends_and_is_back(world, &starve, "killed: out of its memory limit of")?;
        let after = self.scene.shell(world, &limit)?;
        ensure!(before == after, "its limit was {before}, is {after}");
        Ok(())
    }

    /// A client that writes is told. Whether a start finds room for its databases is chance; nobody has to ask again later.
    fn no_space(&self, world: &mut World) -> Result<()> {
        let large = format!("{STATE}/backup/large");
        let make = format!("dd if=/dev/zero of={large} bs=1M count={LARGE_MIB}; sync");
        samba::shell(&self.scene, world, &make)?;
        let free_mib = "$(df -m /data | tail -n 1 | tr -s ' ' | cut -d ' ' -f 4)";
        self.fill(world, &format!("count=$(({free_mib} - {LARGE_MIB} / 2))"))?;
        let refused = samba::smbclient_says(&self.scene, world, "put /var/backup/large large")?;
        ensure!(refused.contains("NT_STATUS_DISK_FULL"), "{refused}");
        let said = self.fill(world, "")?;
        ensure!(said.contains("No space left"), "/data has no end: {said}");
        self.status(world, |status| status.contains(FULL))?;
        self.office_is_unharmed(world)?;
        let starts = self.said(world, STARTS)?;
        samba::shell(&self.scene, world, "kontor ctl restart samba")?;
        self.says(world, STARTS, starts)?;
        self.office_is_unharmed(world)?;
        samba::shell(&self.scene, world, "rm /data/fill; sync")?;
        self.status(world, |status| !status.contains(FULL))?;
        samba::wait_until_up(&self.scene, world)?;
        samba::smbclient(&self.scene, world, "rm large; put /var/backup/large large; rm large").map(drop)
    }

    /// With zeros: so many MiB, or all there is.
    fn fill(&self, world: &mut World, count: &str) -> Result<String> {
        let gateway = self.scene.office.gateway;
        let fill = format!("dd if=/dev/zero of=/data/fill bs=1M oflag=append conv=notrunc {count}");
        world.vm(gateway).serial.send(&format!("{fill}; sync; echo 'fi''lled'\r"))?;
        let said = world.expect(gateway, "filled", START_LIMIT)?;
        world.expect(gateway, "root# ", START_LIMIT)?;
        Ok(said)
    }

    fn read_only(&self, world: &mut World) -> Result<()> {
        let back = self.said(world, BACK)?;
        let remount = "until mount -o remount,ro /data 2>/dev/null; do :; done";
        self.scene.shell(world, &format!("kill -9 {}; {remount}", first_of("samba")))?;
        self.says(world, "Read-only file system", 0)?;
        self.status(world, |status| status.contains(GIVEN_UP))?;
        self.office_is_unharmed(world)?;
        samba::shell(&self.scene, world, "mount -o remount,rw /data")?;
        self.says(world, BACK, back)?;
        self.status(world, |status| !status.contains(GIVEN_UP))
    }

    /// Waits for a status like this.
    fn status(&self, world: &mut World, is_right: fn(&str) -> bool) -> Result<()> {
        world.eventually(START_LIMIT, |world| {
            let status = self.scene.shell(world, "kontor ctl status | grep '^  Problem '")?;
            // The log of the disk says it, too, with a time before it: that was true then.
            let now: Vec<&str> = status.lines().filter(|line| !line.contains("disk: error:")).collect();
            ensure!(is_right(&now.join("\n")), "{status}");
            Ok(())
        })
    }

    fn caches_cut_off(&self, world: &mut World) -> Result<()> {
        let process_1 = self.process(world, "kontor-component")?;
        let caches =
            ["lib/winbindd_cache.tdb", "cache/netsamlogon_cache.tdb", "lib/private/schannel_store.tdb"];
        let cut: Vec<String> = caches.iter().map(|cache| cut_in_half(&format!("{STATE}/{cache}"))).collect();
        let fault = format!("kill -9 {process_1}; {}", cut.join("; "));
        self.ends_and_is_back(world, &fault, "the component ended: signal: 9")
    }

    fn database_cut_off(&self, world: &mut World) -> Result<()> {
        let database = format!("{STATE}/lib/private/sam.ldb");
        let back = self.said(world, BACK)?;
        samba::shell(&self.scene, world, &format!("cp {database} /data/copy"))?;
        let process_1 = self.process(world, "kontor-component")?;
        self.scene.shell(world, &format!("kill -9 {process_1}; {}", cut_in_half(&database)))?;
        self.says(world, "failed to prime database", 0)?;
        self.office_is_unharmed(world)?;
        samba::shell(&self.scene, world, &format!("cp /data/copy {database}; rm /data/copy"))?;
        self.says(world, BACK, back)
    }
}

fn daemons(scene: &Scene, world: &mut World) -> Result<String> {
    let line = format!("echo {}", DAEMONS.map(first_of).join(" "));
    Ok(scene.shell(world, &line)?.trim().to_owned())
}

/// `/proc/PID/cmdline:NAME`, where samba's own names may end in a number in parentheses.
fn process_of(line: &str) -> Option<(String, u32)> {
    let (path, name) = line.strip_prefix("/proc/")?.split_once(':')?;
    let pid = path.strip_suffix("/cmdline")?.parse().ok()?;
    let name = name.split('(').next()?.trim_end_matches(['\0', ' ', '\r']);
    Some((name.to_owned(), pid))
}

/// Shell text.
fn cut_in_half(file: &str) -> String {
    format!("dd if=/dev/null of={file} bs=1 seek=$(($(stat -c %s {file}) / 2)) 2>/dev/null")
}

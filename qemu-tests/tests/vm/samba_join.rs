//! A branch's box becomes a file server in the domain of its headquarters, whose box is at the other end of a line.

use std::net::Ipv4Addr;
use std::time::{Instant, SystemTime};

use anyhow::{Result, ensure};
use qemu_tests::console::site_with_root_shell;
use qemu_tests::{BoxOptions, World};

use crate::disk_faults::status_says;
use crate::office::Office;
use crate::samba::{PASSWORD, SAMBA, SMB_3_1_1, START_LIMIT, shell, wait_until_up};
use crate::scene::Scene;

const BRANCH: Ipv4Addr = Ipv4Addr::new(192, 168, 78, 1);
const WRONG_PASSWORD: &str = "Wrong-Donkey-8";
const LINE: &str = r#"
[[network]]
name = "line"
zone = "internal"
ports = ["port3"]
address = "10.99.0.1/30"
"#;
const CONSOLE: &str = "kontor> ";
const HOUR_S: u64 = 3600;
const CLOCKS_DIFFER: &str = "the clocks of this box and of headquarters differ by more than 5 minutes";
const NOT_JOINED: &str = "not joined: give the password of somebody who may join computers";

/// The default office with other names, for a root shell.
fn site(host_name: &str) -> String {
    site_with_root_shell()
        .replace("\"kontor\"", &format!("\"{host_name}\""))
        .replace("\"office.internal\"", &format!("\"{host_name}.internal\""))
}

/// The line is one more internal network.
fn headquarters() -> String {
    format!("{}\n{LINE}\n{SAMBA}", site("hq"))
}

/// The line is the way to everything else.
fn branch() -> String {
    let site = site("nord")
        .replace("192.168.77.", "192.168.78.")
        .replace("\"dhcp\"", "\"10.99.0.2/30\"\ngateway = \"10.99.0.1\"")
        .replace("forwarders = []", "forwarders = [\"10.99.0.1\"]");
    let member = SAMBA.replace("role = \"dc\"", "role = \"member\"\nservers = [\"10.99.0.1\"]");
    format!("{site}\n{member}")
}

/// Two working offices, joined by a line.
struct Company {
    headquarters: Scene,
    branch: Scene,
}

impl Company {
    fn found(world: &mut World) -> Result<Self> {
        let wan = world.add_wire("wan")?;
        let isp = world.add_isp(wan, qemu_tests::IspOptions::default())?;
        let line = world.add_wire("line")?;
        let options = |site| BoxOptions { memory_mib: 1024, site: Some(site), ..BoxOptions::default() };
        let offices = [
            Office::prepare_behind(world, (wan, isp), "headquarters", &[line], &options(headquarters()))?,
            Office::prepare_behind(world, (line, isp), "branch", &[], &options(branch()))?,
        ];
        // Flashed with a password that is not the right one.
        let seeded = format!("Administrator\n{WRONG_PASSWORD}\n");
        world.vm(offices[1].gateway).disk()?.write_seed(&branch(), Some(&seeded))?;
        for office in &offices {
            world.power_on(office.gateway)?;
        }
        for office in &offices {
            world.wait_until_ready(office.gateway)?;
        }
        let [headquarters, branch] = offices;
        Ok(Self { headquarters: Scene::of(world, headquarters)?, branch: Scene::of(world, branch)? })
    }

    /// Headquarters has its domain, an Administrator with a password, and a user.
    fn make_domain(&self, world: &mut World) -> Result<()> {
        let began = Instant::now();
        self.headquarters.enter_shell(world)?;
        wait_until_up(&self.headquarters, world)?;
        println!("samba in a machine: the domain after {:.0} s", began.elapsed().as_secs_f32());
        let user = "kontor ctl samba user";
        let line = format!("{user} setpassword Administrator --newpassword={PASSWORD}");
        shell(&self.headquarters, world, &line)?;
        shell(&self.headquarters, world, &format!("{user} add anna {PASSWORD}")).map(drop)
    }

    /// An operator gives a password at the branch's console, and nobody sees it; what the box said until `answer`.
    fn join_as(&self, world: &mut World, password: &str, answer: &str) -> Result<String> {
        let branch = self.branch.office.gateway;
        world.vm(branch).serial.skip();
        world.vm(branch).serial.send("samba join Administrator\r")?;
        world.expect(branch, "Password of Administrator: ", Office::LEASE_LIMIT)?;
        world.vm(branch).serial.send(&format!("{password}\r"))?;
        let said = world.expect(branch, answer, START_LIMIT)?;
        ensure!(!world.vm(branch).serial.text().contains(password), "the password was shown: {said}");
        Ok(said)
    }

    /// A wrong password first: it is refused, and the box waits for another. The right one is worth waiting for the time.
    fn join(&self, world: &mut World) -> Result<()> {
        let branch = self.branch.office.gateway;
        world.log_in(branch)?;
        self.has_forgotten_what_was_refused(world)?;
        status_says(world, &self.branch.office, NOT_JOINED)?;
        let said = self.join_as(world, WRONG_PASSWORD, CONSOLE)?;
        ensure!(said.contains("knows no user Administrator with this password"), "{said}");
        status_says(world, &self.branch.office, NOT_JOINED)?;
        self.set_clock(world, HOUR_S)?;
        self.join_as(world, PASSWORD, CLOCKS_DIFFER)?;
        // The operator leaves, and somebody puts the clock right.
        world.vm(branch).serial.send("\x03")?;
        world.expect(branch, CONSOLE, Office::LEASE_LIMIT)?;
        self.set_clock(world, 0)?;
        let began = Instant::now();
        world.open_shell(branch)?;
        wait_until_up(&self.branch, world)?;
        println!(
            "samba in a machine: joined {:.0} s after its clock was right",
            began.elapsed().as_secs_f32()
        );
        let status = self.branch.shell(world, "kontor ctl status | grep '^samba '")?;
        ensure!(status.contains("serves as member"), "{status}");
        Ok(())
    }

    /// The password that it was flashed with.
    fn has_forgotten_what_was_refused(&self, world: &mut World) -> Result<()> {
        let branch = self.branch.office.gateway;
        world.open_shell(branch)?;
        self.branch.wait_for_log_within(world, START_LIMIT, "samba", "password is wiped", 0)?;
        let left =
            self.branch.shell(world, "ls /state/site/secrets; grep -r Donkey /state/site /data/component")?;
        ensure!(left.trim().is_empty(), "{left}");
        world.vm(branch).serial.send("exit\r")?;
        world.expect(branch, CONSOLE, Office::LEASE_LIMIT).map(drop)
    }

    /// So many seconds ahead of everybody else.
    fn set_clock(&self, world: &mut World, ahead_s: u64) -> Result<()> {
        let branch = self.branch.office.gateway;
        let now_s = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        world.open_shell(branch)?;
        self.branch.shell(world, &format!("date -s @{}", now_s + ahead_s))?;
        world.vm(branch).serial.send("exit\r")?;
        world.expect(branch, CONSOLE, Office::LEASE_LIMIT).map(drop)
    }

    /// A PC of the branch finds the file server, and a user of the domain reaches its share.
    fn branch_serves_files(&self, world: &mut World) -> Result<()> {
        let pc = self.branch.office.pc;
        let dialect = world.eventually(START_LIMIT, |world| world.smb_dialect(pc, BRANCH))?;
        ensure!(dialect == SMB_3_1_1, "it speaks {dialect:#06x}");
        let client = format!("smbclient //127.0.0.1/team -U 'OFFICE\\anna%{PASSWORD}' -c ls");
        let line = format!("kontor ctl samba {client}");
        world.eventually(START_LIMIT, |world| shell(&self.branch, world, &line)).map(drop)
    }
}

/// A wrong password is refused, flashed or typed, a wrong clock waited for, the right password joins, and both offices are served all the while.
pub(crate) fn member(world: &mut World) -> Result<()> {
    let company = Company::found(world)?;
    company.make_domain(world)?;
    company.join(world)?;
    company.branch_serves_files(world)?;
    company.headquarters.still_serves(world)?;
    company.branch.still_serves(world)
}

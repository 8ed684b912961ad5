//! A branch office and its headquarters, each with a network of its own, and a line between them that can be cut.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Child;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns, unshare};
use qemu_tests::peers;
use xtask::tools::Tools;

use super::headquarters::{DOMAIN, Headquarters, PASSWORD, dig, ip, site};

const LINE: &str = r#"
[[network]]
name = "line"
zone = "internal"
ports = ["port3"]
address = "10.99.0.1/30"
"#;
/// Where the branch is, seen from headquarters: what comes over the line has the address of its end.
const NORTH: &str = r#"
site = "Main"
[[samba.branch]]
site = "North"
networks = ["192.168.78.0/24", "10.99.0.2/32"]
"#;
const BRANCH: &str = r#"
[samba]
role = "ROLE"
realm = "ad.office.internal"
domain = "OFFICE"
servers = ["10.99.0.1"]
GROUP
[[samba.share]]
name = "team"
write = ["Branch North", "carl"]
"#;
pub(crate) const SHARE: &str = "//192.168.78.1/team";

/// Both, joined by a line.
pub(crate) struct Company {
    pub(crate) headquarters: Headquarters,
    pub(crate) branch: Headquarters,
    tools: Tools,
    at_headquarters: File,
    at_branch: File,
    dnsd: Vec<Child>,
}

impl Company {
    /// Headquarters serves its domain with a user of the branch; the branch is in this role, and not started.
    pub(crate) fn found(directory: &Path, program: &Path, role: &str) -> Result<Self> {
        let [first, second] = ["headquarters", "branch"].map(|name| directory.join(name));
        fs::create_dir_all(&first)?;
        fs::create_dir_all(&second)?;
        let lan = "192.168.77.1/24";
        let site_there = format!("{}{LINE}{DOMAIN}{NORTH}", site("hq", "hq.internal", lan));
        let headquarters = Headquarters::prepare_office(&first, program, &site_there, &[("port2", lan)])?;
        let at_headquarters = File::open("/proc/self/ns/net")?;
        unshare(CloneFlags::CLONE_NEWNET).context("a second network")?;
        let at_branch = File::open("/proc/self/ns/net")?;
        let group = if role == "rodc" { "site = \"North\"\nrodc-group = \"Branch North\"" } else { "" };
        let samba = BRANCH.replace("ROLE", role).replace("GROUP", group);
        let lan = "192.168.78.1/24";
        let site_here = format!("{}{samba}", site("nord", "nord.internal", lan));
        let branch = Headquarters::prepare_office(&second, program, &site_here, &[("port2", lan)])?;
        let tools = peers::tool_set("peers")?;
        let mut company = Self { headquarters, branch, tools, at_headquarters, at_branch, dnsd: Vec::new() };
        company.lay_line()?;
        company.dnsd.push(company.branch.start_dnsd()?);
        company.there(|company| {
            company.dnsd.push(company.headquarters.start_dnsd()?);
            let made = company.headquarters.start()?;
            println!("samba: headquarters' domain made and served after {:.1} s", made.as_secs_f32());
            let password = format!("--newpassword={PASSWORD}");
            company.headquarters.exec(&["samba-tool", "user", "setpassword", "Administrator", &password])?;
            for user in ["anna", "carl"] {
                company.headquarters.exec(&["samba-tool", "user", "add", user, PASSWORD])?;
            }
            company.headquarters.exec(&["samba-tool", "group", "add", "Branch North"])?;
            company.headquarters.exec(&["samba-tool", "group", "addmembers", "Branch North", "anna"])?;
            let allowed = "Allowed RODC Password Replication Group";
            company.headquarters.exec(&["samba-tool", "group", "addmembers", allowed, "Branch North"])?;
            Ok(())
        })?;
        Ok(company)
    }

    fn lay_line(&self) -> Result<()> {
        let headquarters = format!("/proc/{}/fd/{}", std::process::id(), self.at_headquarters.as_raw_fd());
        ip(&self.tools, &format!("link add line type veth peer name port3 netns {headquarters}"))?;
        ip(&self.tools, "link set line up")?;
        ip(&self.tools, "address add 10.99.0.2/30 dev line")?;
        ip(&self.tools, "route add 192.168.77.0/24 via 10.99.0.1")?;
        self.leave_to(&self.at_headquarters)?;
        ip(&self.tools, "link set port3 up")?;
        ip(&self.tools, "address add 10.99.0.1/30 dev port3")?;
        ip(&self.tools, "route add 192.168.78.0/24 via 10.99.0.2")?;
        self.leave_to(&self.at_branch)
    }

    fn leave_to(&self, network: &File) -> Result<()> {
        setns(network, CloneFlags::CLONE_NEWNET).context("enter the other network")
    }

    /// Does something at headquarters; this process is at the branch otherwise.
    pub(crate) fn there<T>(&mut self, action: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.leave_to(&self.at_headquarters)?;
        let result = action(self);
        self.leave_to(&self.at_branch)?;
        result
    }

    /// Joins the branch's component to the domain: a wrong password first, then the right one.
    pub(crate) fn join(&mut self) -> Result<()> {
        let ready = self.branch.start_and_wait_for("not joined: give the password")?;
        let (joined, said) = self.branch.join("Administrator", "wrong")?;
        ensure!(!joined && said.contains("no user Administrator with this password"), "{said}");
        let began = Instant::now();
        let (joined, said) = self.branch.join("Administrator", PASSWORD)?;
        ensure!(joined && said.contains("joined AD.OFFICE.INTERNAL as"), "{said}\n{}", self.branch.log());
        println!("samba: joined in {:.1} s", began.elapsed().as_secs_f32());
        self.branch.wait_until_ready(&ready)
    }

    /// Silence, as a tunnel has it whose other end is away: headquarters hears, and its answers go nowhere.
    pub(crate) fn cut_line(&mut self) -> Result<()> {
        self.there(|company| ip(&company.tools, "route add blackhole 10.99.0.2/32"))
    }

    pub(crate) fn mend_line(&mut self) -> Result<()> {
        self.there(|company| ip(&company.tools, "route del blackhole 10.99.0.2/32"))
    }

    /// What the box's name service says of a name.
    pub(crate) fn addresses_of(&self, name: &str) -> Result<String> {
        dig(&["@127.0.0.1", name])
    }

    /// What a user gets of the branch's share with a Kerberos ticket, which the branch's own domain controller gives.
    pub(crate) fn logs_on_by_ticket(&self, user: &str, command: &str) -> Result<String> {
        self.branch.ticket(user, PASSWORD)?;
        let cache = format!("--use-krb5-ccache={}", self.branch.tickets());
        let share = "//nord.ad.office.internal/team";
        let words =
            ["smbclient", share, "-I", "192.168.78.1", "--use-kerberos=required", &cache, "-c", command];
        self.branch.client(&words)
    }

    /// What a user of the domain gets of the branch's share.
    pub(crate) fn logs_on(&self, user: &str, command: &str) -> Result<String> {
        let user = format!("OFFICE\\{user}%{PASSWORD}");
        self.branch.client(&["smbclient", SHARE, "-U", &user, "-c", command])
    }
}

impl Drop for Company {
    fn drop(&mut self) {
        for dnsd in &mut self.dnsd {
            let _ = dnsd.kill();
            let _ = dnsd.wait();
        }
    }
}

//! The run-time part of a component's declaration, as text and as a validated value.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;

use crate::Capability;

/// The only schema this firmware knows.
pub const SCHEMA: u32 = 1;
/// Where a component's manifest lies in its image.
pub const MANIFEST_PATH: &str = "/usr/share/kontor/component.toml";

/// How a component runs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Manifest {
    /// [`SCHEMA`].
    pub schema: u32,
    /// As the folder below `rootfs` is called.
    pub name: String,
    /// For all its services together, in MiB.
    pub memory_mib: u32,
    /// Processes at most, all services together.
    pub processes: u32,
    /// Of what form its state is: raised with a release whose programs write what those of the release before cannot read.
    #[serde(default = "first")]
    pub state_version: u32,
    /// How state of an older form becomes newer, one for each step.
    #[serde(default)]
    pub migration: Vec<Migration>,
    /// What of it is writable and survives.
    #[serde(default)]
    pub state: Vec<StateDirectory>,
    /// Where it meets daemons of the box.
    #[serde(default)]
    pub meeting: Vec<Meeting>,
    /// Its services, in start order.
    pub service: Vec<Service>,
    /// What it listens on.
    #[serde(default)]
    pub port: Vec<Port>,
    /// Programs that operators call by name.
    #[serde(default)]
    pub command: Vec<OperatorCommand>,
    /// What makes a backup of what cannot be copied while it is used.
    #[serde(default)]
    pub backup: Vec<Backup>,
}

/// A program that brings state from one form to the next, before anything else of the component runs. Cut short, it is run
/// again.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Migration {
    /// The form before it; afterwards it is one more.
    pub from: u32,
    /// Program (absolute path in the component) and arguments.
    pub command: Vec<String>,
}

/// A program that makes a backup while the component runs: files in one of its state directories, which can be copied.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Backup {
    /// In which roles; in every one when empty.
    #[serde(default)]
    pub role: Vec<String>,
    /// Program (absolute path in the component) and arguments.
    pub command: Vec<String>,
}

/// A directory that lies on `data` and is bound into the component's root.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct StateDirectory {
    /// Its name below the component's own directory on `data`.
    pub name: String,
    /// Absolute path in the component.
    pub path: String,
    /// Octal.
    #[serde(default = "directory_mode")]
    pub mode: String,
}

/// A directory in RAM for sockets, which the component and a daemon of the box both see.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Meeting {
    /// Its name below the component's run directory on the box.
    pub name: String,
    /// Absolute path in the component, below /run.
    pub path: String,
    /// The base's group that may enter; nobody else may.
    pub group: u32,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Service {
    /// Unique in the component.
    pub name: String,
    /// In which roles it runs; in every one when empty.
    #[serde(default)]
    pub role: Vec<String>,
    /// Program (absolute path in the component) and arguments.
    pub command: Vec<String>,
    /// Services that must be ready, or have failed once, before it starts.
    #[serde(default)]
    pub after: Vec<String>,
    /// Daemon or one-shot.
    #[serde(default)]
    pub kind: Kind,
    /// When a daemon counts as ready.
    #[serde(default)]
    pub ready: Ready,
    /// How it is found out whether it still works while it runs; nobody looks when nothing is declared.
    pub health: Option<Health>,
    /// Capabilities; it runs as root of the component with these alone.
    #[serde(default)]
    pub capability: Vec<Capability>,
    /// How long a start (of a one-shot: the whole run) may take, in seconds.
    #[serde(default = "start_s")]
    pub start_s: u32,
    /// How long it may take to end after SIGTERM, in seconds.
    #[serde(default = "stop_s")]
    pub stop_s: u32,
    /// Open files at most.
    #[serde(default = "open_files")]
    pub open_files: u32,
}

/// Daemon or one-shot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Runs for ever; any exit that was not asked for is a failure.
    #[default]
    Daemon,
    /// Runs to its end.
    OneShot,
}

/// When a daemon counts as ready: when all of this is so; when it says `READY=1` (sd_notify(3)) if nothing is declared.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Ready {
    /// TCP ports that accept connections on the loopback.
    #[serde(default)]
    pub ports: Vec<u16>,
    /// A program (absolute path in the component) and arguments that end well; tried once the ports answer.
    #[serde(default)]
    pub command: Vec<String>,
}

/// A look at a daemon that runs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Health {
    /// A program (absolute path in the component) and arguments that end well while it works: they are to ask it something. Three
    /// looks in a row that fail, and it hangs and is started anew.
    pub command: Vec<String>,
    /// Between two looks, in seconds.
    pub every_s: u32,
}

/// Ports it listens on, and from where they may be reached.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Port {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Numbers.
    pub number: Vec<u16>,
    /// In which roles; in every one when empty.
    #[serde(default)]
    pub role: Vec<String>,
}

/// A transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A program that operators call by a short name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct OperatorCommand {
    /// The short name.
    pub name: String,
    /// Absolute path in the component.
    pub program: String,
}

/// What is wrong with a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Not TOML, or of another shape; the text shows the place.
    Syntax(String),
    /// Well-formed and wrong: where, and what would be right.
    Invalid(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(text) | Self::Invalid(text) => f.write_str(text.trim_end()),
        }
    }
}

impl std::error::Error for Error {}

fn directory_mode() -> String {
    "0755".to_owned()
}

const fn first() -> u32 {
    1
}

const fn start_s() -> u32 {
    60
}

const fn stop_s() -> u32 {
    5
}

const fn open_files() -> u32 {
    4096
}

pub(crate) fn invalid<T>(text: String) -> Result<T, Error> {
    Err(Error::Invalid(text))
}

impl Manifest {
    /// Reads and validates a manifest's text.
    ///
    /// # Errors
    /// When it is malformed, of another schema, or contradicts itself.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let manifest: Self = toml::from_str(text).map_err(|error| Error::Syntax(error.to_string()))?;
        manifest.validated()
    }

    pub(crate) fn validated(self) -> Result<Self, Error> {
        self.validate()?;
        Ok(self)
    }

    fn validate(&self) -> Result<(), Error> {
        if self.schema != SCHEMA {
            return invalid(format!("schema {} is not known, only {SCHEMA} is", self.schema));
        }
        check_name("component", &self.name)?;
        self.validate_state()?;
        self.validate_migrations()?;
        self.backup.iter().try_for_each(|backup| check_command("backup", &backup.command))?;
        self.meeting.iter().try_for_each(Meeting::validate)?;
        let mut earlier = BTreeSet::new();
        for service in &self.service {
            service.validate(&earlier)?;
            if !earlier.insert(service.name.as_str()) {
                return invalid(format!("two services are called {:?}", service.name));
            }
        }
        if earlier.is_empty() {
            return invalid("a component needs a [[service]]".to_owned());
        }
        for command in &self.command {
            check_name("command", &command.name)?;
            check_path(&command.program)?;
        }
        Ok(())
    }

    fn validate_state(&self) -> Result<(), Error> {
        let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
        for directory in &self.state {
            check_name("state directory", &directory.name)?;
            check_path(&directory.path)?;
            if !names.insert(&directory.name) || !paths.insert(&directory.path) {
                return invalid(format!("state directory {:?} is declared twice", directory.name));
            }
            directory.permissions()?;
        }
        Ok(())
    }

    fn validate_migrations(&self) -> Result<(), Error> {
        if !self.migration.iter().map(|migration| migration.from).eq(1..self.state_version) {
            return invalid(format!(
                "state-version is {}: one [[migration]] from each number before it is needed, in order, and no other",
                self.state_version
            ));
        }
        self.migration.iter().try_for_each(|migration| check_command("migration", &migration.command))
    }

    /// What makes a backup in a role.
    #[must_use]
    pub fn backup(&self, role: &str) -> Option<&Backup> {
        self.backup.iter().find(|backup| in_role(&backup.role, role))
    }

    /// The services of a role, in start order; whom they follow is limited to the same role.
    pub fn services(&self, role: &str) -> Vec<Service> {
        let mut services: Vec<Service> =
            self.service.iter().filter(|service| in_role(&service.role, role)).cloned().collect();
        let names: BTreeSet<String> = services.iter().map(|service| service.name.clone()).collect();
        for service in &mut services {
            service.after.retain(|name| names.contains(name));
        }
        services
    }

    /// The ports of a role.
    pub fn ports(&self, role: &str) -> impl Iterator<Item = (Protocol, u16)> {
        let ports = self.port.iter().filter(move |port| in_role(&port.role, role));
        ports.flat_map(|port| port.number.iter().map(|number| (port.protocol, *number)))
    }
}

fn in_role(roles: &[String], role: &str) -> bool {
    roles.is_empty() || roles.iter().any(|one| one == role)
}

impl Meeting {
    fn validate(&self) -> Result<(), Error> {
        check_name("meeting", &self.name)?;
        check_path(&self.path)?;
        match self.path.starts_with("/run/") {
            true => Ok(()),
            false => invalid(format!("meeting {:?}: {:?} is not below /run", self.name, self.path)),
        }
    }
}

impl StateDirectory {
    /// Permission bits.
    ///
    /// # Errors
    /// When `mode` is not octal.
    pub fn permissions(&self) -> Result<u32, Error> {
        match u32::from_str_radix(&self.mode, 8) {
            Ok(mode) if mode <= 0o7777 => Ok(mode),
            _ => invalid(format!("{}: mode {:?} is not an octal number up to 7777", self.path, self.mode)),
        }
    }
}

impl Ready {
    /// Whether the service itself says when it is ready.
    #[must_use]
    pub fn is_notified(&self) -> bool {
        self.ports.is_empty() && self.command.is_empty()
    }
}

impl Service {
    fn validate(&self, earlier: &BTreeSet<&str>) -> Result<(), Error> {
        check_name("service", &self.name)?;
        match self.command.first() {
            Some(program) => check_path(program)?,
            None => return invalid(format!("service {:?}: command is empty", self.name)),
        }
        self.ready.command.first().map_or(Ok(()), |program| check_path(program))?;
        if let Some(health) = &self.health {
            check_command("health", &health.command)?;
            if self.kind == Kind::OneShot || health.every_s == 0 {
                return invalid(format!(
                    "service {:?}: health is for daemons, every second at most",
                    self.name
                ));
            }
        }
        match self.after.iter().find(|name| !earlier.contains(name.as_str())) {
            Some(name) => invalid(format!(
                "service {:?} is ordered after {name:?}, which is not declared before it",
                self.name
            )),
            None => Ok(()),
        }
    }
}

/// Names become directories, control groups and words of a command line.
fn check_name(what: &str, name: &str) -> Result<(), Error> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=32).contains(&name.len()) && name.bytes().all(allowed) && !name.starts_with('-') {
        return Ok(());
    }
    invalid(format!("{what} {name:?}: a name has 1 to 32 lower-case letters, digits and hyphens"))
}

fn check_command(what: &str, command: &[String]) -> Result<(), Error> {
    command
        .first()
        .map_or_else(|| invalid(format!("{what}: command is empty")), |program| check_path(program))
}

fn check_path(path: &str) -> Result<(), Error> {
    let parts = path.strip_prefix('/').map(|rest| rest.split('/'));
    if parts.is_some_and(|mut parts| parts.all(|part| !["", ".", ".."].contains(&part))) {
        return Ok(());
    }
    invalid(format!("{path:?} is not an absolute path without `.` and `..`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "schema = 1\nname = 'samba'\nmemory-mib = 512\nprocesses = 200\n";
    const SERVICE: &str = "[[service]]\nname = 'smbd'\ncommand = ['/usr/sbin/smbd', '-F']\n";

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        let error = Manifest::parse(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn what_is_not_said_has_a_sane_value() {
        let manifest = Manifest::parse(&format!("{HEAD}{SERVICE}")).unwrap();
        let smbd = &manifest.service[0];
        assert_eq!(
            (smbd.kind, smbd.ready.is_notified(), smbd.start_s, smbd.stop_s),
            (Kind::Daemon, true, 60, 5)
        );
        assert_eq!(manifest.services("dc"), manifest.service);
    }

    #[test]
    fn roles_choose_services_and_ports() {
        let text = format!(
            "{HEAD}[[service]]\nname = 'samba'\nrole = ['dc']\ncommand = ['/usr/sbin/samba']\n\
             ready = {{ ports = [88, 445], command = ['/usr/bin/wbinfo', '-p'] }}\n\
             [[service]]\nname = 'smbd'\nrole = ['member']\nafter = ['samba']\ncommand = ['/usr/sbin/smbd']\n\
             capability = ['chown', 'net-bind-service']\n\
             [[port]]\nprotocol = 'tcp'\nnumber = [445]\n[[port]]\nprotocol = 'udp'\nnumber = [88]\nrole = ['dc']\n"
        );
        let manifest = Manifest::parse(&text).unwrap();
        let member = manifest.services("member");
        assert_eq!((member.len(), member[0].name.as_str(), member[0].after.len()), (1, "smbd", 0));
        assert_eq!(member[0].capability, [Capability::Chown, Capability::NetBindService]);
        let ready = &manifest.services("dc")[0].ready;
        assert_eq!((ready.ports.as_slice(), ready.command.len()), (&[88, 445][..], 2));
        assert_eq!(manifest.ports("member").collect::<Vec<_>>(), [(Protocol::Tcp, 445)]);
        assert_eq!(manifest.ports("dc").count(), 2);
    }

    #[test]
    fn what_cannot_work_is_refused() {
        refused(&format!("{HEAD}{SERVICE}user = 'root'"), "unknown field `user`");
        refused(&format!("{}{SERVICE}", HEAD.replace("= 1", "= 2")), "schema 2 is not known, only 1 is");
        refused(&format!("{}{SERVICE}", HEAD.replace("samba", "../x")), "a name has 1 to 32 lower-case");
        refused(HEAD, "missing field `service`");
        refused(&format!("service = []\n{HEAD}"), "a component needs a [[service]]");
        refused(&format!("{HEAD}{SERVICE}{SERVICE}"), "two services are called \"smbd\"");
        let meeting = "[[meeting]]\nname = 'time'\npath = '/var/lib/time'\ngroup = 204\n";
        refused(&format!("{HEAD}{meeting}{SERVICE}"), "\"/var/lib/time\" is not below /run");
        refused(&format!("{HEAD}{SERVICE}after = ['nmbd']"), "which is not declared before it");
        refused(&format!("{HEAD}{}", SERVICE.replace("/usr/sbin/smbd", "smbd")), "is not an absolute path");
        refused(&format!("{HEAD}[[service]]\nname = 'x'\ncommand = []"), "command is empty");
        refused(&format!("{HEAD}{SERVICE}ready = {{ command = ['wbinfo'] }}"), "is not an absolute path");
        refused(&format!("{HEAD}{SERVICE}ready = {{ udp = [88] }}"), "unknown field `udp`");
        let migration = "[[migration]]\nfrom = 2\ncommand = ['/usr/bin/true']\n";
        refused(&format!("{HEAD}{SERVICE}{migration}"), "one [[migration]] from each number before it");
        refused(
            &format!("state-version = 2\n{HEAD}{SERVICE}"),
            "one [[migration]] from each number before it",
        );
        refused(&format!("{HEAD}{SERVICE}[[backup]]\ncommand = []"), "backup: command is empty");
        let health = "health = { command = ['/usr/bin/wbinfo'], every-s = 60 }";
        refused(&format!("{HEAD}{SERVICE}kind = 'one-shot'\n{health}"), "health is for daemons");
        refused(
            &format!("{HEAD}{SERVICE}{}", health.replace("60", "0")),
            "health is for daemons, every second",
        );
        refused(
            &format!("{HEAD}{SERVICE}{}", health.replace("'/usr/bin/wbinfo'", "")),
            "health: command is empty",
        );
        refused(&format!("{HEAD}{SERVICE}capability = ['sys-module']"), "unknown variant `sys-module`");
        let state = "[[state]]\nname = 'var'\npath = '/var/../etc'\n";
        refused(&format!("{HEAD}{SERVICE}{state}"), "absolute path without");
        let state = "[[state]]\nname = 'var'\npath = '/var'\nmode = '999'\n";
        refused(&format!("{HEAD}{SERVICE}{state}"), "not an octal number");
    }
}

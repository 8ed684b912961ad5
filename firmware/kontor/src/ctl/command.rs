//! The operator's commands as words.

use kontor_boot::reset::Data;

use crate::updated::Request;

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Everything at a glance.
    Status { json: bool },
    /// The office's leases.
    Leases { json: bool },
    /// Ports, carriers, addresses.
    Links { json: bool },
    /// WireGuard tunnels and their other ends.
    Tunnels { json: bool },
    /// Log lines of one service, or the latest of every service.
    Logs { service: Option<String>, lines: u32 },
    /// Every daemon reads the site file again.
    Reload,
    /// Handled by the `site` applet, with these arguments.
    Site(Vec<String>),
    /// A tool of a component, and its arguments.
    Component { name: &'static str, words: Vec<String> },
    /// Releases: how it goes.
    Update { json: bool },
    /// Releases: something is asked for.
    AskUpdate(Request),
    /// Installs the box to a disk, which may be erased if that was agreed to; without one, lists the disks.
    Install { disk: Option<String>, agreed: Option<String> },
    /// Restarts one service.
    Restart { service: String },
    /// Restarts the box.
    Reboot,
    /// Switches the box off.
    PowerOff,
    /// The box as it was flashed.
    FactoryReset { data: Data, confirmed: bool },
    /// Takes back a reset that is asked for.
    WithdrawReset,
    /// Firmware version.
    Version,
    /// A help text.
    Help(&'static str),
}

/// It asks before it does anything.
pub(crate) const FACTORY_RESET: &str = "factory-reset";
/// The component whose tools are commands.
pub(crate) const SAMBA: &str = "samba";
/// The command that puts the box on a disk.
pub(crate) const INSTALL: &str = "install";
/// Log lines shown without `-n`.
const LOG_LINES: u32 = 40;
/// Most log lines that can be asked for; PID 1 keeps no more.
const LOG_LINES_MAX: u32 = 10_000;

pub(crate) const HELP: &str = "\
usage: kontor ctl COMMAND

  status [--json]      everything at a glance
  leases [--json]      who has which address
  links [--json]       ports, carriers, addresses
  tunnels [--json]     WireGuard tunnels: keys, peers, what is up
  logs [NAME] [-n N]   the newest log lines of a service, or of all
  reload               validate the stored site file and apply what changed
  site load [FILE]     check a new site file and put it in force
  site show            the site file in force
  site check FILE      check a site file and change nothing
  site history         earlier site files
  update [--json]      the release that runs, and what happened to others
  update check         look for a release now
  update install       look, fetch, install and restart now
  update from stick    the same from a stick with a repository
  update rollback      back to the release in the other slot, and restart
  install [DISK]       put a box that runs from a stick on a disk of the machine
  samba TOOL …         a tool of Samba's: users, groups, the domain
  restart NAME         restart one service
  reboot               restart the box
  power-off            switch the box off
  factory-reset        back to how the box was flashed, with or without its data
  version              firmware version

COMMAND --help shows more and an example.
";

const TOPICS: &[(&str, &str)] = &[
    (
        "status",
        "usage: status [--json]\n\nShows version, slot, office, networks, services and everything that is wrong.\n\n\
         example: kontor ctl status --json\n",
    ),
    (
        "leases",
        "usage: leases [--json]\n\nLists addresses given to the office's computers, with name, hardware address and \
         time left.\n\nexample: kontor ctl leases\n",
    ),
    (
        "links",
        "usage: links [--json]\n\nLists ports with cable state, hardware address and IP addresses.\n\n\
         example: kontor ctl links\n",
    ),
    (
        "tunnels",
        "usage: tunnels [--json]\n\nLists WireGuard tunnels: the box's own public key, which the other end needs, and of each peer where it is, whether\n\
         it is up (a handshake within the last 180 s), how long ago that was, and octets received and sent (brought up to date\n\
         twice a minute).\n\nexample: kontor ctl tunnels\n",
    ),
    (
        "logs",
        "usage: logs [NAME] [-n N]\n\nShows the newest N log lines (40) of service NAME; without a name, the last few \
         of every service. `status` lists the names.\n\nexample: kontor ctl logs netd -n 100\n",
    ),
    (
        "reload",
        "usage: reload\n\nThe stored site file is validated and every daemon applies what changed; nothing else is touched.\n\
         A file with a mistake changes nothing; `status` then shows the report.\n\n\
         example: kontor ctl reload\n",
    ),
    (
        "site",
        "usage: site load [FILE] | show | check FILE | history\n\n\
         load     checks a site file; if it has no error it is stored and put in force at once.\n         \
         Without FILE (or with -) it is read from standard input; at the console, paste it and\n         \
         end with a line that holds a single dot.\n\
         show     prints the site file in force.\n\
         check    checks FILE and changes nothing.\n\
         history  lists earlier site files.\n\nexample: kontor ctl site load /tmp/site.toml\n",
    ),
    (
        "update",
        "usage: update [--json] | check | install [--major N] | from stick|FOLDER [--major N] | rollback\n\n\
         Without a word, shows the release that runs, what is on its way, and what happened.\n\
         check    looks for a release now.\n\
         install  looks, fetches, installs and restarts now, whatever the maintenance window and the wave; a release\n         \
         that has failed on this box is tried again.\n\
         from     the same from a stick that is plugged in, with a repository at its top or in its folder kontor;\n         \
         or from another folder.\n\
         rollback goes back to the release in the other slot, if it has worked here, and restarts; this one is not\n         \
         installed again unless it is asked for. What the box keeps stays.\n\
         --major  also goes to this major version, which is never installed unasked.\n\n\
         example: kontor ctl update install\n",
    ),
    (
        INSTALL,
        "usage: install [DISK [--yes-erase-DISK]]\n\nWithout a word, lists the machine's disks, what is on them, and to which of them a box that runs \
         from a stick\ncould be installed. With the name of one, erases it and puts this box on it, with its site file, after it has asked;\nleases and users' files \
         stay on the stick. Ctrl-C leaves a disk that does not boot.\n--yes-erase-DISK does not ask.\n\nexample: kontor ctl install nvme0n1\n",
    ),
    (
        SAMBA,
        "usage: samba [samba-tool | net | wbinfo | smbstatus | smbclient | ldbsearch | tdbbackup] ARGUMENTS\n\n\
         Runs one of Samba's tools where Samba runs; without the name of one, samba-tool. Each has a --help of its own after\n\
         its name. `samba snapshot` makes a previous version of every share that has them, `samba backup` one file of the\n\
         whole domain, `samba restore FILE` a domain of that.\n\nexample: kontor ctl samba user list\n",
    ),
    (
        "restart",
        "usage: restart NAME\n\nStops and starts one service. `status` lists the names.\n\nexample: kontor ctl restart dnsd\n",
    ),
    (
        "reboot",
        "usage: reboot\n\nStops all services in order and restarts the box.\n\nexample: kontor ctl reboot\n",
    ),
    (
        "power-off",
        "usage: power-off\n\nStops all services in order and switches the box off.\n\nexample: kontor ctl power-off\n",
    ),
    (
        FACTORY_RESET,
        "usage: factory-reset --keep-data|--wipe-data [--yes] | --withdraw\n\n\
         The box becomes what it was when it was flashed: the site file of that day (without one, the built-in site), no\n\
         leases, no secrets. It says what goes and what stays, asks, and restarts. One of these must be given:\n\
         --keep-data  shares and the state of components (a domain) stay.\n\
         --wipe-data  they go as well: the data partition is made anew.\n\
         --yes        does not ask.\n\
         --withdraw   takes back what was asked for and has not begun: it waits where the disk does not let it.\n\
         The release that runs, and what is remembered of others, stays either way.\n\n\
         example: kontor ctl factory-reset --keep-data\n",
    ),
    ("version", "usage: version\n\nPrints the firmware's version.\n\nexample: kontor ctl version\n"),
];

/// Reads a command.
///
/// # Errors
/// What is wrong and what is right, for people.
pub(crate) fn parse(words: &[String]) -> Result<Command, String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let Some((name, rest)) = words.split_first() else { return Ok(Command::Help(HELP)) };
    if matches!(*name, "help" | "--help" | "-h") {
        return Ok(Command::Help(rest.first().and_then(|topic| help_on(topic)).unwrap_or(HELP)));
    }
    // A component's tools have options and a help of their own.
    if *name == SAMBA && !matches!(rest, [] | ["--help" | "-h"]) {
        let words = rest.iter().map(|word| (*word).to_owned()).collect();
        return Ok(Command::Component { name: SAMBA, words });
    }
    if rest.iter().any(|word| matches!(*word, "--help" | "-h")) {
        return Ok(Command::Help(help_on(name).unwrap_or(HELP)));
    }
    match (*name, rest) {
        ("status", _) => Ok(Command::Status { json: json(name, rest)? }),
        ("leases", _) => Ok(Command::Leases { json: json(name, rest)? }),
        ("links", _) => Ok(Command::Links { json: json(name, rest)? }),
        ("tunnels", _) => Ok(Command::Tunnels { json: json(name, rest)? }),
        ("logs", _) => logs(rest),
        ("reload", []) => Ok(Command::Reload),
        ("site", ["load" | "show" | "check" | "history", ..]) => {
            Ok(Command::Site(rest.iter().map(|word| (*word).to_owned()).collect()))
        }
        ("update", [] | ["--json"]) => Ok(Command::Update { json: json(name, rest)? }),
        ("update", ["check"]) => Ok(Command::AskUpdate(Request::Look)),
        ("update", ["rollback"]) => Ok(Command::AskUpdate(Request::Rollback)),
        ("update", ["install", options @ ..]) => {
            Ok(Command::AskUpdate(Request::Install { major: major(options)? }))
        }
        ("update", ["from", folder, options @ ..]) => {
            Ok(Command::AskUpdate(Request::From { folder: folder.into(), major: major(options)? }))
        }
        (INSTALL, []) => Ok(Command::Install { disk: None, agreed: None }),
        (INSTALL, [disk]) => Ok(Command::Install { disk: Some(service_name(disk)?), agreed: None }),
        (INSTALL, [disk, flag]) if flag.starts_with("--yes-erase-") => {
            Ok(Command::Install { disk: Some(service_name(disk)?), agreed: Some((*flag).to_owned()) })
        }
        ("restart", [service]) => Ok(Command::Restart { service: service_name(service)? }),
        ("reboot", []) => Ok(Command::Reboot),
        ("power-off" | "poweroff", []) => Ok(Command::PowerOff),
        (FACTORY_RESET, _) => factory_reset(rest),
        ("version" | "--version", []) => Ok(Command::Version),
        _ => Err(match help_on(name) {
            Some(help) => {
                format!("`{name}` is not used like that; {}", help.lines().next().unwrap_or_default())
            }
            None => format!("there is no command `{name}`; `help` lists all commands"),
        }),
    }
}

fn help_on(topic: &str) -> Option<&'static str> {
    TOPICS.iter().find(|(name, _)| *name == topic).map(|(_, text)| *text)
}

fn json(name: &str, rest: &[&str]) -> Result<bool, String> {
    match rest {
        [] => Ok(false),
        ["--json"] => Ok(true),
        [other, ..] => Err(format!("`{name}` does not know `{other}`; usage: {name} [--json]")),
    }
}

fn major(options: &[&str]) -> Result<Option<u32>, String> {
    match options {
        [] => Ok(None),
        ["--major", number] => {
            let parsed = number.parse().map_err(|_| format!("--major takes a number, not `{number}`"))?;
            Ok(Some(parsed))
        }
        [other, ..] => {
            Err(format!("`update` does not know `{other}` there; --major N goes to another major version"))
        }
    }
}

/// Without a word on the data it explains itself.
fn factory_reset(options: &[&str]) -> Result<Command, String> {
    if options == ["--withdraw"] {
        return Ok(Command::WithdrawReset);
    }
    let (mut data, mut confirmed) = (None, false);
    for option in options {
        let asked = match *option {
            "--keep-data" => Data::Keep,
            "--wipe-data" => Data::Wipe,
            "--yes" => {
                confirmed = true;
                continue;
            }
            other => {
                return Err(format!("`{FACTORY_RESET}` does not know `{other}`; --keep-data or --wipe-data"));
            }
        };
        if data.replace(asked).is_some_and(|before| before != asked) {
            return Err("--keep-data or --wipe-data, not both".to_owned());
        }
    }
    Ok(match data {
        Some(data) => Command::FactoryReset { data, confirmed },
        None => Command::Help(help_on(FACTORY_RESET).unwrap_or(HELP)),
    })
}

fn logs(mut rest: &[&str]) -> Result<Command, String> {
    let (mut service, mut lines) = (None, LOG_LINES);
    loop {
        rest = match rest {
            [] => return Ok(Command::Logs { service, lines }),
            ["-n", number, tail @ ..] => {
                let parsed = number.parse().ok().filter(|n| (1..=LOG_LINES_MAX).contains(n));
                lines = parsed
                    .ok_or_else(|| format!("-n takes a number from 1 to {LOG_LINES_MAX}, not `{number}`"))?;
                tail
            }
            ["-n"] => return Err("-n takes a number, for example: logs netd -n 100".to_owned()),
            [name, tail @ ..] if service.is_none() => {
                service = Some(service_name(name)?);
                tail
            }
            [other, ..] => return Err(format!("one service at a time; `{other}` is too much")),
        };
    }
}

/// A word that can go into a request line to PID 1.
fn service_name(word: &str) -> Result<String, String> {
    let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match !word.is_empty() && !word.starts_with('-') && word.chars().all(ok) {
        true => Ok(word.to_owned()),
        false => Err(format!("`{word}` is not a service name; `status` lists them")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expect: Result<Command, &str>) {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        match (parse(&words), expect) {
            (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
            (got, expect) => assert_eq!(got, expect.map_err(str::to_owned), "{line}"),
        }
    }

    #[test]
    fn commands() {
        check("status", Ok(Command::Status { json: false }));
        check("leases --json", Ok(Command::Leases { json: true }));
        check("tunnels --json", Ok(Command::Tunnels { json: true }));
        check("logs", Ok(Command::Logs { service: None, lines: 40 }));
        check("logs netd -n 7", Ok(Command::Logs { service: Some("netd".into()), lines: 7 }));
        check("logs -n 7 netd", Ok(Command::Logs { service: Some("netd".into()), lines: 7 }));
        check("site load -", Ok(Command::Site(vec!["load".into(), "-".into()])));
        check("restart dnsd", Ok(Command::Restart { service: "dnsd".into() }));
        check("power-off", Ok(Command::PowerOff));
        let words = vec!["user".into(), "add".into(), "anna".into(), "--help".into()];
        check("samba user add anna --help", Ok(Command::Component { name: SAMBA, words }));
        check("samba", Err("usage: samba [samba-tool"));
        check("update", Ok(Command::Update { json: false }));
        check("update check", Ok(Command::AskUpdate(Request::Look)));
        check("update install --major 2", Ok(Command::AskUpdate(Request::Install { major: Some(2) })));
        check(
            "update from stick --major 2",
            Ok(Command::AskUpdate(Request::From { folder: "stick".into(), major: Some(2) })),
        );
        check("update rollback", Ok(Command::AskUpdate(Request::Rollback)));
        let reset = |data, confirmed| Ok(Command::FactoryReset { data, confirmed });
        check("factory-reset --keep-data", reset(Data::Keep, false));
        check("factory-reset --yes --wipe-data", reset(Data::Wipe, true));
        check("factory-reset --withdraw", Ok(Command::WithdrawReset));
        check("factory-reset --withdraw --yes", Err("does not know `--withdraw`"));
        check("factory-reset", Ok(Command::Help(help_on(FACTORY_RESET).unwrap())));
        check("factory-reset --yes", Ok(Command::Help(help_on(FACTORY_RESET).unwrap())));
        check("factory-reset --keep-data --wipe-data", Err("not both"));
        check("factory-reset now", Err("--keep-data or --wipe-data"));
        check("update install --now", Err("does not know `--now`"));
        check("install", Ok(Command::Install { disk: None, agreed: None }));
        let (disk, flag) = (Some("sda".to_owned()), "--yes-erase-sda");
        check("install sda", Ok(Command::Install { disk: disk.clone(), agreed: None }));
        check("install sda --yes-erase-sda", Ok(Command::Install { disk, agreed: Some(flag.into()) }));
        check("install sda --yes", Err("usage: install [DISK [--yes-erase-DISK]]"));
        check("update explode", Err("usage: update [--json]"));
        check("", Ok(Command::Help(HELP)));
    }

    #[test]
    fn mistakes_say_what_is_right() {
        check("stats", Err("there is no command `stats`; `help` lists all commands"));
        check("status -x", Err("usage: status [--json]"));
        check("restart", Err("usage: restart NAME"));
        check("site explode", Err("usage: site load [FILE]"));
        check("logs netd dnsd", Err("one service at a time"));
        check("logs -n many", Err("a number from 1 to 10000, not `many`"));
        check("logs ne;td", Err("is not a service name"));
        check("reboot now", Err("usage: reboot"));
    }

    #[test]
    fn every_command_has_help_with_an_example() {
        for (topic, text) in TOPICS {
            assert!(text.starts_with("usage: ") && text.contains("example: kontor ctl "), "{topic}");
            assert!(HELP.contains(&format!("\n  {topic}")), "{topic}");
            check(&format!("{topic} --help"), Ok(Command::Help(text)));
        }
    }
}

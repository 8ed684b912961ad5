//! What the terminal shows while nobody is logged in.
//!
//! On a serial line, which somebody may be recording, the whole status is printed once and after that only
//! the lines that changed. On a screen the status is redrawn in place.

use kontor_config::Site;
use kontor_config::site::Zone;
use kontor_status::{NetStatus, ServiceState, WanState};

use crate::ctl::show;
use crate::ctl::snapshot::Snapshot;

const INVITATION: &str = "Press Enter to log in.\n";
/// Services without which the office is not served.
const ESSENTIAL: [&str; 2] = ["dhcpd", "dnsd"];

/// What kind of terminal it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A line that scrolls.
    Serial,
    /// A screen that can be cleared.
    Screen,
}

impl Kind {
    /// `/dev/tty0` is a screen, everything else a line.
    pub(super) fn of(device: &str) -> Self {
        let number = device.strip_prefix("/dev/tty").unwrap_or_default();
        match !number.is_empty() && number.chars().all(|c| c.is_ascii_digit()) {
            true => Self::Screen,
            false => Self::Serial,
        }
    }
}

/// Remembers what is on the terminal.
#[derive(Debug)]
pub(super) struct Screen {
    kind: Kind,
    shown: Option<String>,
    ready: Option<String>,
}

impl Screen {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, shown: None, ready: None }
    }

    /// Something else was written: the next update shows everything again.
    pub(super) fn forget(&mut self) {
        self.shown = None;
    }

    /// What to write now; empty when nothing has changed.
    pub(super) fn update(&mut self, site: Option<&Site>, snapshot: &Snapshot) -> String {
        let block = show::overview(snapshot, false);
        let mut text = match &self.shown {
            Some(shown) if *shown == block => String::new(),
            Some(shown) if self.kind == Kind::Serial => changed_lines(shown, &block),
            _ => self.whole(&block),
        };
        self.shown = Some(block);
        let ready = site.and_then(|site| ready_line(site, snapshot));
        if ready.is_some() && ready != self.ready {
            text.push_str(ready.as_deref().unwrap_or_default());
            text.push('\n');
            self.ready = ready;
        }
        text
    }

    fn whole(&self, block: &str) -> String {
        match self.kind {
            // Home and clear: the escape sequences of every terminal since the VT100.
            Kind::Screen => format!("\x1b[H\x1b[2J{block}\n{INVITATION}"),
            Kind::Serial => format!("\n{block}{INVITATION}"),
        }
    }
}

/// Lines of the new block that the old one does not have, marked so that a test or a person finds them.
fn changed_lines(old: &str, new: &str) -> String {
    let added = new.lines().filter(|line| !old.lines().any(|known| known == *line));
    let mut text: String = added.map(|line| format!("kontor: {}\n", line.trim_start())).collect();
    let solved = old.lines().filter(|line| line.trim_start().starts_with("Problem"));
    let solved = solved.filter(|line| !new.lines().any(|known| known == *line));
    text.extend(solved.map(|line| format!("kontor: no longer: {}\n", line.trim_start())));
    text
}

/// The line that says the office is served; none before the LAN and the essential services are up.
pub(super) fn ready_line(site: &Site, snapshot: &Snapshot) -> Option<String> {
    let running = |name: &&str| {
        let services = snapshot.init.iter().flat_map(|init| &init.services);
        services.clone().any(|service| service.name == **name && service.state == ServiceState::Running)
    };
    if !ESSENTIAL.iter().all(running) {
        return None;
    }
    let net = snapshot.net.as_ref()?;
    let lans: Option<Vec<String>> =
        site.networks_in(Zone::Internal).map(|network| lan(net, network)).collect();
    let wan = match &net.wan {
        WanState::Up(lease) => format!("{} on {}", lease.address, lease.interface),
        WanState::Unplugged { .. } => "without a cable".to_owned(),
        WanState::Colliding { .. } => "off".to_owned(),
        WanState::Down | WanState::Acquiring { .. } => "waiting".to_owned(),
    };
    let slot = show::slot_name(snapshot);
    Some(format!("kontor: gateway ready: {}, WAN {wan}, slot {slot}", lans?.join(", ")))
}

fn lan(net: &NetStatus, network: &kontor_config::site::Network) -> Option<String> {
    let interface = network.interface();
    let link = net.links.iter().find(|link| link.name == interface)?;
    let address = network.static_address().filter(|address| link.addresses.contains(address))?;
    Some(format!("LAN {address} on {interface}"))
}

#[cfg(test)]
mod tests {
    use kontor_config::Board;
    use kontor_config::board::BoardPort;

    use super::*;
    use crate::ctl::show::tests::well;

    fn site() -> Site {
        let port = |name: &str| BoardPort { name: name.to_owned(), pci: None };
        let ports = ["port1", "port2"].map(port).to_vec();
        Site::default_site(&Board { ports, ..Board::default() }).unwrap()
    }

    const READY: &str =
        "kontor: gateway ready: LAN 192.168.77.1/24 on port2, WAN 10.0.2.15/24 on port1, slot a";

    #[test]
    fn ready_when_lan_and_essential_services_are_up() {
        let mut snapshot = well();
        assert_eq!(ready_line(&site(), &snapshot).as_deref(), Some(READY));
        snapshot.net.as_mut().unwrap().wan = WanState::Down;
        let waiting = READY.replace("10.0.2.15/24 on port1", "waiting");
        assert_eq!(ready_line(&site(), &snapshot), Some(waiting));
        snapshot.init.as_mut().unwrap().services[1].state = ServiceState::Starting;
        assert_eq!(ready_line(&site(), &snapshot), None);
        let mut snapshot = well();
        snapshot.net.as_mut().unwrap().links[1].addresses.clear();
        assert_eq!(ready_line(&site(), &snapshot), None);
    }

    #[test]
    fn a_serial_line_shows_all_once_and_then_what_changes() {
        let mut screen = Screen::new(Kind::Serial);
        let mut snapshot = well();
        let first = screen.update(Some(&site()), &snapshot);
        assert!(
            first.starts_with("\nKontor 0.1.0 on qemu") && first.ends_with(&format!("{READY}\n")),
            "{first}"
        );
        assert_eq!(screen.update(Some(&site()), &snapshot), "");
        snapshot.init.as_mut().unwrap().uptime_s += 100;
        assert_eq!(screen.update(Some(&site()), &snapshot), "", "time alone is no news");
        snapshot.net.as_mut().unwrap().problems.push("no cable".into());
        assert_eq!(screen.update(Some(&site()), &snapshot), "kontor: Problem   no cable\n");
        snapshot.net.as_mut().unwrap().problems.clear();
        assert_eq!(screen.update(Some(&site()), &snapshot), "kontor: no longer: Problem   no cable\n");
        snapshot.net.as_mut().unwrap().wan = WanState::Down;
        let down = screen.update(Some(&site()), &snapshot);
        assert!(
            down.contains("kontor: Internet  down\n") && down.contains("WAN waiting, slot a\n"),
            "{down}"
        );
        screen.forget();
        assert!(screen.update(Some(&site()), &snapshot).contains(INVITATION));
    }

    #[test]
    fn a_screen_is_redrawn() {
        assert_eq!(Kind::of("/dev/tty0"), Kind::Screen);
        assert_eq!(Kind::of("/dev/ttyS0"), Kind::Serial);
        assert_eq!(Kind::of("/dev/hvc0"), Kind::Serial);
        let mut screen = Screen::new(Kind::Screen);
        let snapshot = well();
        assert!(screen.update(None, &snapshot).starts_with("\x1b[H\x1b[2JKontor"));
        assert_eq!(screen.update(None, &snapshot), "");
    }
}

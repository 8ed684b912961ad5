//! Which network card is which port on the case.
//!
//! The answer depends on where a card sits (PCI path) and which card it is (MAC), never on the order in
//! which drivers found it. A card whose driver is not loaded yet takes part with its PCI path, so that its
//! neighbour does not slip into its place for a moment.

use std::collections::BTreeMap;

use kontor_config::Board;
use kontor_config::board::BoardPort;
use serde::{Deserialize, Serialize};

use crate::Mac;

/// A network card, or a PCI network controller that has no interface yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// Kernel index of its interface; none while no driver has made one.
    pub index: Option<u32>,
    /// PCI path (`0000:00:02.0`); none for cards that are not on PCI.
    pub pci: Option<String>,
    /// Permanent hardware address, once the interface exists.
    pub mac: Option<Mac>,
}

/// A remembered choice: this port was this card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// Board port.
    pub port: String,
    /// PCI path of the card.
    pub pci: Option<String>,
    /// Hardware address of the card.
    pub mac: Option<Mac>,
}

/// The result: who is who, and what to remember.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assignment {
    /// Card of each port that has one.
    pub ports: BTreeMap<String, Nic>,
    /// Pins to store, one per port ever seen, in board order.
    pub pins: Vec<Pin>,
    /// Cards the board has no port for.
    pub unused: Vec<Nic>,
}

/// Gives each board port its card.
///
/// In this order: the board file's PCI path; the stored pin by PCI path and MAC, then by MAC alone (the card
/// moved to another slot), then by PCI path alone (the card was replaced); what remains in PCI order, first
/// to ports that never had a card.
#[must_use]
pub fn assign(board: &Board, stored: &[Pin], nics: &[Nic]) -> Assignment {
    let mut matching = Matching::new(board, stored, nics);
    matching.give(|port, _, nic| port.pci.is_some() && port.pci == nic.pci);
    matching.give(|_, pin, nic| pin.is_some_and(|p| same(&p.pci, &nic.pci) && same(&p.mac, &nic.mac)));
    matching.give(|_, pin, nic| pin.is_some_and(|p| same(&p.mac, &nic.mac)));
    matching.give(|_, pin, nic| pin.is_some_and(|p| same(&p.pci, &nic.pci)));
    matching.give(|port, pin, _| port.pci.is_none() && pin.is_none());
    matching.give(|port, _, _| port.pci.is_none());
    matching.finish()
}

fn same<T: PartialEq>(a: &Option<T>, b: &Option<T>) -> bool {
    a.is_some() && a == b
}

struct Matching<'a> {
    ports: Vec<(&'a BoardPort, Option<&'a Pin>)>,
    stored: &'a [Pin],
    free: Vec<&'a Nic>,
    taken: BTreeMap<String, Nic>,
}

impl<'a> Matching<'a> {
    fn new(board: &'a Board, stored: &'a [Pin], nics: &'a [Nic]) -> Self {
        let mut free: Vec<&Nic> = nics.iter().collect();
        free.sort_by_key(|nic| (nic.pci.is_none(), nic.pci.clone(), nic.mac, nic.index));
        let pin_of = |port: &BoardPort| stored.iter().find(|pin| pin.port == port.name);
        let ports = board.ports.iter().map(|port| (port, pin_of(port))).collect();
        Self { ports, stored, free, taken: BTreeMap::new() }
    }

    /// One rule, over all ports still without a card, in board order. A port that the board file fixes to a
    /// PCI path takes nothing else.
    fn give(&mut self, rule: impl Fn(&BoardPort, Option<&Pin>, &Nic) -> bool) {
        for (port, pin) in &self.ports {
            let fits = |nic: &&Nic| rule(port, *pin, nic) && (port.pci.is_none() || port.pci == nic.pci);
            if self.taken.contains_key(&port.name) {
                continue;
            }
            if let Some(position) = self.free.iter().position(fits) {
                self.taken.insert(port.name.clone(), self.free.remove(position).clone());
            }
        }
    }

    fn finish(self) -> Assignment {
        let pins = self.ports.iter().filter_map(|(port, old)| self.pin(&port.name, *old)).collect();
        let unused = self.free.into_iter().cloned().collect();
        Assignment { ports: self.taken, pins, unused }
    }

    /// The pin to keep: the card seen now; an absent card keeps its place until another one takes it.
    fn pin(&self, port: &str, old: Option<&Pin>) -> Option<Pin> {
        let Some(nic) = self.taken.get(port) else {
            return old.filter(|pin| !self.claimed(pin)).cloned();
        };
        let remembered = || old.filter(|pin| same(&pin.pci, &nic.pci)).and_then(|pin| pin.mac);
        Some(Pin { port: port.to_owned(), pci: nic.pci.clone(), mac: nic.mac.or_else(remembered) })
    }

    /// Whether the card of this pin now serves another port.
    fn claimed(&self, pin: &Pin) -> bool {
        debug_assert!(self.stored.contains(pin));
        self.taken.values().any(|nic| same(&nic.mac, &pin.mac))
    }
}

#[cfg(test)]
mod tests;

//! Who is who, whatever the order of discovery.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn mac(last: u8) -> Mac {
    Mac([0x52, 0x54, 0, 0, 0, last])
}

fn pci(slot: u8) -> String {
    format!("0000:00:{slot:02x}.0")
}

fn nic(index: u32, slot: u8, last: u8) -> Nic {
    Nic { index: Some(index), pci: Some(pci(slot)), mac: Some(mac(last)) }
}

fn undriven(slot: u8) -> Nic {
    Nic { index: None, pci: Some(pci(slot)), mac: None }
}

fn board(pcis: &[Option<u8>]) -> Board {
    let port =
        |(i, slot): (usize, &Option<u8>)| BoardPort { name: format!("port{}", i + 1), pci: slot.map(pci) };
    Board { ports: pcis.iter().enumerate().map(port).collect(), ..Board::default() }
}

#[track_caller]
fn check(board: &Board, stored: &[Pin], nics: &[Nic], expect: &[(&str, Option<u32>)]) -> Assignment {
    let result = assign(board, stored, nics);
    let got: Vec<_> = result.ports.iter().map(|(port, nic)| (port.as_str(), nic.index)).collect();
    assert_eq!(got, expect);
    result
}

fn pin(port: &str, slot: u8, last: u8) -> Pin {
    Pin { port: port.into(), pci: Some(pci(slot)), mac: Some(mac(last)) }
}

#[test]
fn first_boot_goes_by_pci_order() {
    let result = check(
        &board(&[None, None]),
        &[],
        &[nic(2, 5, 1), nic(3, 3, 2)],
        &[("port1", Some(3)), ("port2", Some(2))],
    );
    assert_eq!(result.pins, [pin("port1", 3, 2), pin("port2", 5, 1)]);
}

#[test]
fn board_path_wins_over_a_pin_and_takes_nothing_else() {
    let stored = [pin("port1", 5, 1)];
    check(
        &board(&[Some(3), None]),
        &stored,
        &[nic(2, 5, 1), nic(3, 3, 2)],
        &[("port1", Some(3)), ("port2", Some(2))],
    );
    check(&board(&[Some(3)]), &[], &[nic(2, 5, 1)], &[]);
}

#[test]
fn pins_hold_when_a_card_is_gone() {
    let stored = [pin("port1", 3, 1), pin("port2", 5, 2)];
    let result = check(&board(&[None, None]), &stored, &[nic(2, 5, 2)], &[("port2", Some(2))]);
    assert_eq!(result.pins, stored, "the absent card keeps its place");
}

#[test]
fn a_replaced_card_and_a_moved_card_keep_their_port() {
    let stored = [pin("port1", 3, 1), pin("port2", 5, 2)];
    let replaced = [nic(2, 3, 9), nic(3, 5, 2)];
    let result = check(&board(&[None, None]), &stored, &replaced, &[("port1", Some(2)), ("port2", Some(3))]);
    assert_eq!(result.pins, [pin("port1", 3, 9), pin("port2", 5, 2)]);
    let swapped = [nic(2, 5, 1), nic(3, 3, 2)];
    check(&board(&[None, None]), &stored, &swapped, &[("port1", Some(2)), ("port2", Some(3))]);
}

#[test]
fn a_card_without_driver_keeps_its_neighbour_in_place() {
    let result = check(
        &board(&[None, None]),
        &[],
        &[nic(2, 5, 2), undriven(3)],
        &[("port1", None), ("port2", Some(2))],
    );
    assert_eq!(result.pins[0], Pin { port: "port1".into(), pci: Some(pci(3)), mac: None });
}

#[test]
fn an_undriven_card_does_not_lose_its_remembered_mac() {
    let stored = [pin("port1", 3, 1)];
    assert_eq!(assign(&board(&[None]), &stored, &[undriven(3)]).pins, stored);
}

#[test]
fn more_cards_than_ports_leaves_the_rest_unused() {
    let result = check(&board(&[None]), &[], &[nic(2, 3, 1), nic(3, 4, 2)], &[("port1", Some(2))]);
    assert_eq!(result.unused, [nic(3, 4, 2)]);
}

fn hardware() -> impl Strategy<Value = Vec<Nic>> {
    let card = (0u8..6, prop::option::of(0u8..6), any::<bool>());
    prop::collection::vec(card, 0..6).prop_map(|cards| {
        let build = |(i, (slot, last, on_pci)): (usize, (u8, Option<u8>, bool))| Nic {
            index: last.map(|_| u32::try_from(i).unwrap() + 2),
            pci: on_pci.then(|| pci(slot)),
            mac: last.map(mac),
        };
        cards.into_iter().enumerate().map(build).collect()
    })
}

/// Only cards that can be told apart.
fn distinct(nics: Vec<Nic>) -> Vec<Nic> {
    let (mut pcis, mut macs) = (BTreeSet::new(), BTreeSet::new());
    let mut new = |nic: &Nic| {
        (nic.pci.is_some() || nic.mac.is_some())
            && nic.pci.iter().all(|pci| pcis.insert(pci.clone()))
            && nic.mac.iter().all(|mac| macs.insert(*mac))
    };
    nics.into_iter().filter(|nic| new(nic)).collect()
}

fn pins() -> impl Strategy<Value = Vec<Pin>> {
    let one = (1usize..5, prop::option::of(0u8..6), prop::option::of(0u8..6));
    prop::collection::vec(one, 0..5).prop_map(|all| {
        let mut seen = BTreeSet::new();
        let build = |(port, slot, last): (usize, Option<u8>, Option<u8>)| Pin {
            port: format!("port{port}"),
            pci: slot.map(pci),
            mac: last.map(mac),
        };
        all.into_iter().map(build).filter(|pin| seen.insert(pin.port.clone())).collect()
    })
}

proptest! {
    #[test]
    fn never_depends_on_probe_order(nics in hardware(), stored in pins(), seed in any::<u64>()) {
        let board = board(&[None, Some(2), None, None]);
        let mut shuffled = nics.clone();
        let count = shuffled.len().max(1);
        shuffled.rotate_left((seed as usize) % count);
        if seed % 2 == 0 {
            shuffled.reverse();
        }
        prop_assert_eq!(assign(&board, &stored, &nics), assign(&board, &stored, &shuffled));
    }

    #[test]
    fn never_two_names_for_one_card(nics in hardware(), stored in pins()) {
        let result = assign(&board(&[None, Some(2), None, None]), &stored, &nics);
        let indexes: Vec<_> = result.ports.values().filter_map(|nic| nic.index).collect();
        let unique: BTreeSet<_> = indexes.iter().copied().collect();
        prop_assert_eq!(unique.len(), indexes.len());
        prop_assert_eq!(result.ports.len() + result.unused.len(), nics.len());
    }

    /// The same hardware with drivers coming up in any order ends, and passes through, the same names.
    #[test]
    fn drivers_may_load_in_any_order(present in prop::collection::btree_set(0u8..8, 1..5), ready in any::<u8>()) {
        let full: Vec<Nic> = present.iter().enumerate().map(|(i, s)| nic(i as u32 + 2, *s, *s)).collect();
        let board = board(&[None, None, None, None]);
        let first = assign(&board, &[], &full);
        let partly: Vec<Nic> = present.iter().enumerate()
            .map(|(i, s)| if ready >> i & 1 == 1 { full[i].clone() } else { undriven(*s) }).collect();
        for stored in [&[][..], &first.pins] {
            let names = assign(&board, stored, &partly).ports;
            for (port, nic) in names {
                prop_assert_eq!(&nic.pci, &first.ports[&port].pci);
            }
        }
    }

    /// What was pinned is found again at the next boot.
    #[test]
    fn pins_are_stable(nics in hardware().prop_map(distinct), stored in pins()) {
        let board = board(&[None, Some(2), None, None]);
        let first = assign(&board, &stored, &nics);
        let again = assign(&board, &first.pins, &nics);
        prop_assert_eq!(first.ports, again.ports);
    }
}

//! Any JSON as what is read back: the daemons' status on the console, the port pins, the WAN lease.
#![no_main]

// What only the daemons use is unused here.
#[allow(dead_code)]
#[path = "../../src/ctl/control.rs"]
mod control;
#[path = "../../src/ctl/show.rs"]
mod show;
#[allow(dead_code)]
#[path = "../../src/ctl/snapshot.rs"]
mod snapshot;
#[path = "../../src/ctl/table.rs"]
mod table;

use std::sync::LazyLock;
use std::time::Duration;

use kontor_config::Board;
use kontor_dhcp4::Instant;
use kontor_dhcp4::client::{Client, ClientConfig, Lease};
use kontor_network::{Nic, Pin, ports};
use libfuzzer_sys::fuzz_target;

static BOARD: LazyLock<Board> = LazyLock::new(|| {
    let text = "schema = 1\nname = \"box\"\n[[port]]\nname = \"port1\"\n[[port]]\nname = \"port2\"\n";
    Board::parse("box.toml", text).expect("a right board")
});

fn fuzz_status(bytes: &[u8]) {
    let Ok(snapshot) = serde_json::from_slice::<snapshot::Snapshot>(bytes) else { return };
    for text in [
        show::overview(&snapshot, true),
        show::status(&snapshot),
        show::leases(&snapshot),
        show::links(&snapshot),
    ] {
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    }
}

fn fuzz_lease(bytes: &[u8]) {
    let Ok(lease) = serde_json::from_slice::<Lease>(bytes) else { return };
    let mut client = Client::new(ClientConfig::for_mac([2, 0, 0, 0, 0, 1]), 1);
    let mut now = Instant::from_secs(1);
    client.restore(now, lease, Duration::from_secs(60));
    client.link_up(now);
    for _ in 0..8 {
        while client.poll_transmit().is_some() {}
        while client.poll_event().is_some() {}
        now = client.poll_timeout().map_or(now, |at| at.max(now));
        client.handle_timeout(now);
    }
}

fuzz_target!(|input: (u8, &[u8])| {
    let (kind, bytes) = input;
    match kind % 4 {
        0 => fuzz_lease(bytes),
        1 => {
            let Ok(pins) = serde_json::from_slice::<Vec<Pin>>(bytes) else { return };
            let card =
                |index: u32| Nic { index: Some(index), pci: Some(format!("0000:00:0{index}.0")), mac: None };
            let assignment = ports::assign(&BOARD, &pins, &[card(2), card(3), card(4)]);
            assert_eq!(assignment.ports.len() + assignment.unused.len(), 3);
        }
        _ => fuzz_status(bytes),
    }
});

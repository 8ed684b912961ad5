//! What processes say to each other: names to dnsd, commands and notifications to PID 1, the kernel's events.
#![no_main]

#[path = "../../src/dnsd/announce.rs"]
mod announce;
#[path = "../../src/init/command.rs"]
mod command;

use std::cell::RefCell;

use kontor_dns::{Name, ZoneConfig, Zones};
use kontor_supervise::Message;
use kontor_sys::uevent::Uevent;
use libfuzzer_sys::fuzz_target;

/// What a line does depends on few before it; longer sequences only make each run slower.
const MOST_LINES: usize = 16;

fn zones() -> Zones {
    let config = ZoneConfig {
        domain: Name::from_text("office.internal").expect("a name"),
        host: "kontor".into(),
        points_to: None,
        networks: vec!["192.168.77.1/26".parse().expect("a network")],
        hosts: vec![],
        forward_private: false,
    };
    Zones::new(config, 1).expect("right zones")
}

thread_local! {
    // Made once: they parse a hundred special names. Lines change nothing in them but the leases.
    static ZONES: RefCell<Zones> = RefCell::new(zones());
}

fn fuzz_names(bytes: &[u8], zones: &mut Zones) {
    zones.clear_leases();
    for line in bytes.split(|octet| *octet == b'\n').take(MOST_LINES) {
        if let Ok(Some(answer)) = announce::obey(line, zones) {
            assert_eq!(answer.iter().position(|octet| *octet == b'\n'), Some(answer.len() - 1));
        }
    }
}

fuzz_target!(|input: (u8, &[u8])| {
    let (kind, bytes) = input;
    match kind % 4 {
        0 | 1 => ZONES.with_borrow_mut(|zones| fuzz_names(bytes, zones)),
        2 => {
            for message in Message::parse(bytes) {
                assert!(!matches!(message, Message::Status(text) if text.chars().any(char::is_control)));
            }
            let _ = Uevent::parse(bytes);
        }
        _ => drop(command::Command::parse(&String::from_utf8_lossy(bytes))),
    }
});

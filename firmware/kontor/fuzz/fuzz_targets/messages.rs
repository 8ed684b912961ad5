//! What processes say to each other: names to dnsd, commands and notifications to PID 1, the kernel's events.
#![no_main]

#[path = "../../src/dnsd/announce.rs"]
mod announce;
#[path = "../../src/init/command.rs"]
mod command;

use kontor_dns::{Name, ZoneConfig, Zones};
use kontor_supervise::Message;
use kontor_sys::uevent::Uevent;
use libfuzzer_sys::fuzz_target;

fn zones() -> Zones {
    let config = ZoneConfig {
        domain: Name::from_text("office.internal").expect("a name"),
        host: "kontor".into(),
        networks: vec!["192.168.77.1/26".parse().expect("a network")],
        hosts: vec![],
        forward_private: false,
    };
    Zones::new(config, 1).expect("right zones")
}

fuzz_target!(|input: (u8, &[u8])| {
    let (kind, bytes) = input;
    match kind % 4 {
        0 | 1 => {
            let mut zones = zones();
            for line in bytes.split(|octet| *octet == b'\n') {
                if let Ok(Some(answer)) = announce::obey(line, &mut zones) {
                    assert_eq!(answer.iter().position(|octet| *octet == b'\n'), Some(answer.len() - 1));
                }
            }
        }
        2 => {
            for message in Message::parse(bytes) {
                assert!(!matches!(message, Message::Status(text) if text.chars().any(char::is_control)));
            }
            let _ = Uevent::parse(bytes);
        }
        _ => drop(command::Command::parse(&String::from_utf8_lossy(bytes))),
    }
});

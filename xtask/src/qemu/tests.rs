//! The command line, as a value.

use super::*;
use crate::image::declaration::{BoardFile, Product};
use crate::workspace::Workspace;

fn machine() -> Machine {
    Machine {
        mimic: Mimic::default(),
        memory_mib: 512,
        processors: 2,
        firmware: Firmware::SeaBios,
        disk: "/tmp/a,b.img".into(),
        nics: vec![
            Nic {
                mac: "52:54:00:00:00:01".into(),
                backend: Backend::Stream("/tmp/wan.sock".into()),
                model: VIRTIO_NET,
            },
            Nic {
                mac: "52:54:00:00:00:02".into(),
                backend: Backend::User(UserNet {
                    net: Some("192.168.77.0/24".parse().unwrap()),
                    host: Some(Ipv4Addr::new(192, 168, 77, 2)),
                    forwards: vec![Forward {
                        protocol: Protocol::Udp,
                        host_port: 5300,
                        guest: Ipv4Addr::new(192, 168, 77, 1),
                        guest_port: 53,
                    }],
                }),
                model: VIRTIO_NET,
            },
        ],
        serial: Serial::Terminal,
        qmp: None,
        watchdog: true,
        no_reboot: false,
        accel: Accel::Tcg,
    }
}

#[track_caller]
fn check(machine: &Machine, option: &str, value: &str) {
    let args = machine.args();
    let found = args.windows(2).any(|pair| pair[0] == option && pair[1] == value);
    assert!(found, "no {option} {value} in {args:#?}");
}

#[test]
fn ports_have_the_board_s_pci_addresses() {
    let machine = machine();
    let first = "virtio-net-pci,id=nic0,addr=0x2,mac=52:54:00:00:00:01,romfile=,netdev=net0";
    let second = "virtio-net-pci,id=nic1,addr=0x3,mac=52:54:00:00:00:02,romfile=,netdev=net1";
    check(&machine, "-device", first);
    check(&machine, "-device", second);
    check(&machine, "-netdev", "stream,id=net0,server=off,addr.type=unix,addr.path=/tmp/wan.sock");
    let user = "user,id=net1,ipv6=off,net=192.168.77.0/24,host=192.168.77.2,\
                hostfwd=udp:127.0.0.1:5300-192.168.77.1:53";
    check(&machine, "-netdev", user);
}

#[test]
fn paths_with_commas_are_escaped() {
    check(&machine(), "-drive", "if=none,id=disk0,format=raw,discard=unmap,file=/tmp/a,,b.img");
}

#[test]
fn ovmf_gets_its_own_variables() {
    let mut machine = machine();
    machine.firmware = Firmware::Ovmf { code: "/c.fd".into(), variables: "/v.fd".into() };
    check(&machine, "-drive", "if=pflash,unit=0,format=raw,readonly=on,file=/c.fd");
    check(&machine, "-drive", "if=pflash,unit=1,format=raw,file=/v.fd");
}

#[test]
fn a_socket_console_is_connected_by_qemu() {
    let mut machine = machine();
    machine.serial = Serial::Socket("/tmp/s".into());
    machine.qmp = Some("/tmp/q".into());
    check(&machine, "-chardev", "socket,id=serial0,path=/tmp/s");
    check(&machine, "-chardev", "socket,id=qmp0,path=/tmp/q");
    check(&machine, "-mon", "chardev=qmp0,mode=control");
}

fn board(name: &str) -> BoardFile {
    let workspace = Workspace::locate();
    BoardFile::load(&workspace.board(name), &Product::load(&workspace.product("branch")).unwrap()).unwrap()
}

#[test]
fn the_default_machine_is_the_qemu_board() {
    assert_eq!(board("qemu").machine, Mimic::default());
    check(&machine(), "-smbios", "type=1,manufacturer=QEMU,product=Kontor test machine");
}

#[test]
fn a_board_is_mimicked_with_its_ports_behind_bridges() {
    let mut machine = Machine { mimic: board("pcengines-apu2").machine, ..machine() };
    machine.nics.iter_mut().for_each(|nic| nic.model = machine.mimic.nic.device());
    check(&machine, "-smbios", "type=2,manufacturer=PC Engines,product=apu2");
    check(&machine, "-device", "pcie-root-port,id=slot1,chassis=2,addr=0x3");
    check(&machine, "-device", "igb,id=nic1,bus=slot1,mac=52:54:00:00:00:02,romfile=,netdev=net1");
    check(&machine, "-device", "ide-hd,drive=disk0,bus=ide.0,bootindex=1");
    assert!(!machine.args().iter().any(|word| word.to_string_lossy().starts_with("VGA")));
}

#[test]
fn every_board_that_is_mimicked_is_chosen_by_what_the_mimic_says() {
    let product = Product::load(&Workspace::locate().product("branch")).unwrap();
    let files: Vec<BoardFile> = product.board.iter().map(|name| board(name)).collect();
    let boards: Vec<_> = files.iter().map(|file| file.board.clone()).collect();
    for file in &files {
        let chosen = kontor_config::board::choose(&boards, &file.machine.identity, None).unwrap();
        assert_eq!(chosen.name, file.board.name);
    }
}

//! The command line, as a value.

use super::*;

fn machine() -> Machine {
    Machine {
        memory_mib: 512,
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

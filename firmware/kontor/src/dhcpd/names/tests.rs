//! The protocol as dnsd sees it.

use std::os::unix::net::UnixListener;

use super::*;

fn change(name: &str, set: bool) -> NameChange {
    NameChange { name: name.into(), address: [192, 168, 77, 5].into(), network: "lan".into(), set }
}

#[test]
fn snapshot_then_acknowledged_changes() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("names.sock");
    let mut link = NamesLink::new(path.clone());
    link.connect(&[]);
    assert!(link.descriptor().is_none());
    let listener = UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        let mut stream = BufReader::new(listener.accept().unwrap().0);
        let mut lines = Vec::new();
        for ack in [None, None, Some(2)] {
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            lines.push(line);
            if let Some(ack) = ack {
                writeln!(stream.get_mut(), "{{\"ack\":1}}\n{{\"ack\":{ack}}}").unwrap();
            }
        }
        lines
    });
    link.connect(&[change("old", true)]);
    link.announce(&[change("pc", true), change("old", false)]);
    assert!(link.descriptor().is_some(), "the acknowledgement came");
    let lines = server.join().unwrap();
    let fields = "\"address\":\"192.168.77.5\",\"network\":\"lan\"";
    assert_eq!(
        lines,
        [
            format!("{{\"op\":\"snapshot\",\"names\":[{{\"name\":\"old\",{fields}}}]}}\n"),
            format!("{{\"op\":\"set\",\"name\":\"pc\",{fields},\"seq\":1}}\n"),
            format!("{{\"op\":\"remove\",\"name\":\"old\",{fields},\"seq\":2}}\n"),
        ]
    );
    link.drain();
    assert!(link.descriptor().is_none() && link.wants_connection(), "the end is noticed");
}

#[test]
fn silent_dnsd_costs_one_wait() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("names.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let mut link = NamesLink::new(path);
    link.connect(&[]);
    link.announce(&[change("pc", true)]);
    assert!(link.descriptor().is_none() && !link.wants_connection());
}

//! What dhcpd announces: one JSON line each, taken into the zones.
//!
//! On connecting, dhcpd sends `{"op":"snapshot","names":[{"name","address","network"}…]}`, which replaces
//! everything announced before. Then `{"op":"set","seq":N,"name","address","network"}` and `{"op":"remove",…}`;
//! what has a sequence number is answered by `{"ack":N}` (with `"error"` when the name was not taken).

use std::net::Ipv4Addr;

use kontor_dns::Zones;
use serde::{Deserialize, Serialize};

/// One announced name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Announced {
    name: String,
    address: Ipv4Addr,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
enum Request {
    Snapshot {
        names: Vec<Announced>,
        seq: Option<u64>,
    },
    Set {
        #[serde(flatten)]
        name: Announced,
        seq: Option<u64>,
    },
    Remove {
        #[serde(flatten)]
        name: Announced,
        seq: Option<u64>,
    },
}

#[derive(Serialize)]
struct Ack {
    ack: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Obeys one line; the answer, newline included, when one was asked for.
///
/// # Errors
/// When the line is none that dhcpd sends.
pub(super) fn obey(line: &[u8], zones: &mut Zones) -> serde_json::Result<Option<Vec<u8>>> {
    let Some(ack) = take(serde_json::from_slice(line)?, zones) else { return Ok(None) };
    let mut answer = serde_json::to_vec(&ack)?;
    answer.push(b'\n');
    Ok(Some(answer))
}

fn take(request: Request, zones: &mut Zones) -> Option<Ack> {
    let (seq, result) = match request {
        Request::Snapshot { names, seq } => {
            zones.clear_leases();
            let refused: Vec<&str> = names
                .iter()
                .filter(|announced| zones.set_lease(&announced.name, announced.address).is_err())
                .map(|announced| announced.name.as_str())
                .collect();
            if !refused.is_empty() {
                eprintln!("names socket: {} names of a snapshot were not taken", refused.len());
            }
            (seq, Ok(()))
        }
        Request::Set { name, seq } => (seq, zones.set_lease(&name.name, name.address)),
        Request::Remove { name, seq } => {
            zones.remove_lease(&name.name, name.address);
            (seq, Ok(()))
        }
    };
    seq.map(|ack| Ack { ack, error: result.err().map(|error| error.to_string()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expect: &Request) {
        assert_eq!(serde_json::from_str::<Request>(line).unwrap(), *expect);
    }

    #[test]
    fn lines_of_dhcpd() {
        let pc = || Announced { name: "pc1".into(), address: Ipv4Addr::new(192, 168, 77, 100) };
        check(
            r#"{"op":"set","seq":7,"name":"pc1","address":"192.168.77.100","network":"lan"}"#,
            &Request::Set { name: pc(), seq: Some(7) },
        );
        check(
            r#"{"op":"remove","seq":8,"name":"pc1","address":"192.168.77.100","network":"lan"}"#,
            &Request::Remove { name: pc(), seq: Some(8) },
        );
        check(
            r#"{"op":"snapshot","names":[{"name":"pc1","address":"192.168.77.100","network":"lan"}]}"#,
            &Request::Snapshot { names: vec![pc()], seq: None },
        );
    }
}

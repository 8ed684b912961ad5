//! WireGuard tunnels as text.

use std::time::{SystemTime, UNIX_EPOCH};

use kontor_status::{TunnelPeerStatus, TunnelStatus};

use super::snapshot::Snapshot;
use super::table::{Table, duration, plain};

/// What netd says of them; none where the site has none, or netd has not spoken.
pub(super) fn of(snapshot: &Snapshot) -> &[TunnelStatus] {
    snapshot.net.as_ref().map(|net| net.tunnels.as_slice()).unwrap_or_default()
}

/// One line for each peer: `hq/headquarters up, at 203.0.113.9:51820`.
pub(super) fn lines(snapshot: &Snapshot) -> Vec<String> {
    let peers = of(snapshot).iter().flat_map(|tunnel| tunnel.peers.iter().map(move |peer| (tunnel, peer)));
    let line = |(tunnel, peer): (&TunnelStatus, &TunnelPeerStatus)| {
        let at = peer.endpoint.map(|endpoint| format!(", at {endpoint}")).unwrap_or_default();
        format!("{}/{} {}{at}", tunnel.name, peer.name, state(peer))
    };
    peers.map(line).collect()
}

/// Own keys, then a table of peers.
pub(super) fn show(snapshot: &Snapshot) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    table(of(snapshot), now)
}

fn table(tunnels: &[TunnelStatus], now_s: u64) -> String {
    if tunnels.is_empty() {
        return "no tunnels\n".to_owned();
    }
    let mut own = Table::new(&["TUNNEL", "INTERFACE", "PORT", "OWN PUBLIC KEY"]);
    let mut peers = Table::new(&["TUNNEL", "PEER", "STATE", "ENDPOINT", "HANDSHAKE", "RECEIVED", "SENT"]);
    for tunnel in tunnels {
        let port = tunnel.listen_port.map_or_else(|| "-".to_owned(), |port| port.to_string());
        let key = tunnel.public_key.as_deref().unwrap_or("(none yet)");
        own.row(&[&tunnel.name, &tunnel.interface, &port, key]);
        for peer in &tunnel.peers {
            let endpoint = peer.endpoint.map_or_else(|| "-".to_owned(), |endpoint| endpoint.to_string());
            peers.row(&[
                &tunnel.name,
                &peer.name,
                state(peer),
                &endpoint,
                &handshake(peer, now_s),
                &octets(peer.received_bytes),
                &octets(peer.sent_bytes),
            ]);
        }
    }
    format!("{}\n{}", own.render(), peers.render())
}

fn state(peer: &TunnelPeerStatus) -> &'static str {
    if peer.up { "up" } else { "down" }
}

fn handshake(peer: &TunnelPeerStatus, now_s: u64) -> String {
    match peer.latest_handshake_s {
        None => "never".to_owned(),
        // The clock was set back meanwhile.
        Some(at) if at > now_s => "unknown".to_owned(),
        Some(at) => plain(&format!("{} ago", duration(now_s - at))),
    }
}

/// `999 B`, `12.3 KiB`, `4.0 GiB`
fn octets(octets: u64) -> String {
    let mut scaled = octets as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if scaled < 1024.0 {
            return if unit == "B" { format!("{octets} B") } else { format!("{scaled:.1} {unit}") };
        }
        scaled /= 1024.0;
    }
    format!("{scaled:.1} TiB")
}

#[cfg(test)]
mod tests {
    use kontor_status::NetStatus;

    use super::*;

    fn tunnels() -> Vec<TunnelStatus> {
        let up = TunnelPeerStatus {
            name: "headquarters".into(),
            endpoint: Some("203.0.113.9:51820".parse().unwrap()),
            up: true,
            kept: true,
            latest_handshake_s: Some(1000),
            received_bytes: 12_595,
            sent_bytes: 148,
        };
        let down = TunnelPeerStatus { name: "depot".into(), ..TunnelPeerStatus::default() };
        vec![TunnelStatus {
            name: "hq".into(),
            interface: "wg-hq".into(),
            public_key: Some("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=".into()),
            listen_port: Some(51_820),
            peers: vec![up, down],
        }]
    }

    #[test]
    fn a_table_of_keys_and_one_of_peers() {
        insta::assert_snapshot!(table(&tunnels(), 1042), @r"
        TUNNEL  INTERFACE  PORT   OWN PUBLIC KEY
        hq      wg-hq      51820  AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=

        TUNNEL  PEER          STATE  ENDPOINT           HANDSHAKE  RECEIVED  SENT
        hq      headquarters  up     203.0.113.9:51820  42 s ago   12.3 KiB  148 B
        hq      depot         down   -                  never      0 B       0 B
        ");
        assert!(table(&tunnels(), 10).contains(" unknown "));
        assert_eq!(table(&[], 0), "no tunnels\n");
    }

    #[test]
    fn the_overview_has_a_line_for_each_peer() {
        let net = NetStatus { tunnels: tunnels(), ..NetStatus::default() };
        let snapshot = Snapshot { net: Some(net), ..Snapshot::default() };
        assert_eq!(lines(&snapshot), ["hq/headquarters up, at 203.0.113.9:51820", "hq/depot down"]);
    }

    #[test]
    fn octets_read_well() {
        let check = |octets_: u64, expect: &str| assert_eq!(octets(octets_), expect);
        check(1023, "1023 B");
        check(1024, "1.0 KiB");
        check(5 << 40, "5.0 TiB");
    }
}

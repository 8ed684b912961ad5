//! Whether somebody else already uses an address: ARP probes of RFC 5227, as a machine without sockets.

use std::net::Ipv4Addr;
use std::time::Duration;

use kontor_dhcp4::Instant;
use kontor_dhcp4::client::Lease;
use kontor_network::Mac;

// Deviation: RFC 5227 §1.1 sends 3 probes over up to 7 s. The provider's server has checked the address too
// (RFC 2131 §2.2), and the whole office waits: two probes within 600 ms catch a neighbour that is awake.
const PROBES: u32 = 2;
const PROBE_INTERVAL: Duration = Duration::from_millis(300);

/// The check of one address.
#[derive(Debug)]
pub(super) struct Probe {
    lease: Lease,
    sent: u32,
    next_at: Instant,
    conflict: bool,
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing before [`Probe::next_at`].
    Wait,
    /// Send an ARP probe for this address, then poll again.
    Ask(Ipv4Addr),
    /// Nobody answered.
    Free(Lease),
    /// Somebody has it.
    Taken(Ipv4Addr),
}

impl Probe {
    pub(super) fn new(now: Instant, lease: Lease) -> Self {
        Self { lease, sent: 0, next_at: now, conflict: false }
    }

    pub(super) fn next_at(&self) -> Instant {
        self.next_at
    }

    /// Somebody says it has an address.
    pub(super) fn handle_claim(&mut self, own: Mac, (sender, address): ([u8; 6], Ipv4Addr)) {
        self.conflict |= sender != own.0 && address == self.lease.address.addr();
    }

    pub(super) fn poll(&mut self, now: Instant) -> Verdict {
        let address = self.lease.address.addr();
        if self.conflict {
            return Verdict::Taken(address);
        }
        if now < self.next_at {
            return Verdict::Wait;
        }
        if self.sent == PROBES {
            return Verdict::Free(self.lease.clone());
        }
        self.sent += 1;
        self.next_at = now + PROBE_INTERVAL;
        Verdict::Ask(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 9];
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);

    fn lease() -> Lease {
        Lease {
            address: "10.0.2.15/24".parse().unwrap(),
            server_id: Ipv4Addr::new(10, 0, 2, 2),
            routes: vec![],
            dns_servers: vec![],
            domain: None,
            ntp_servers: vec![],
            broadcast: None,
            mtu: None,
            lease_time_s: 3600,
            t1_s: 1800,
            t2_s: 3150,
        }
    }

    fn at(milliseconds: u64) -> Instant {
        Instant::from_millis(milliseconds)
    }

    #[test]
    fn silence_means_free_and_not_a_moment_earlier() {
        let mut probe = Probe::new(at(0), lease());
        assert_eq!(probe.poll(at(0)), Verdict::Ask(ADDRESS));
        assert_eq!(probe.poll(at(299)), Verdict::Wait);
        assert_eq!(probe.poll(at(300)), Verdict::Ask(ADDRESS));
        probe.handle_claim(OWN, (OTHER, Ipv4Addr::new(10, 0, 2, 16)));
        probe.handle_claim(OWN, (OWN.0, ADDRESS));
        assert_eq!(probe.poll(at(599)), Verdict::Wait);
        assert_eq!(probe.poll(at(600)), Verdict::Free(lease()));
    }

    #[test]
    fn an_answer_means_taken() {
        let mut probe = Probe::new(at(0), lease());
        assert_eq!(probe.poll(at(0)), Verdict::Ask(ADDRESS));
        probe.handle_claim(OWN, (OTHER, ADDRESS));
        assert_eq!(probe.poll(at(1)), Verdict::Taken(ADDRESS));
    }
}

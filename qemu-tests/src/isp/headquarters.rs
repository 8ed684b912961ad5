//! A company's headquarters on the Internet: the other end of a box's tunnel, and behind it a page and an answer to pings.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::udp::{self, UdpMetadata};
use smoltcp::wire::{IpAddress, IpCidr, Ipv4Cidr};

use super::web::WebServer;
use crate::stack::Stack;
use crate::tunnel::{self, Output, TunnelEnd};

/// Largest packet inside, for what WireGuard adds on Ethernet.
const MTU: usize = 1420;
/// How often the tunnel's timers are looked at; WireGuard counts in seconds.
const TICK: Duration = Duration::from_millis(250);
const PRIVATE_KEY: [u8; 32] = [0x48; 32];

/// A company's headquarters.
pub struct Headquarters {
    /// Its end of the tunnel.
    pub tunnel: TunnelEnd,
    /// The page of its own network, at [`Self::INSIDE`].
    pub web: WebServer,
    /// Where it is on the Internet.
    address: Ipv4Addr,
    inside: Stack,
    datagrams: SocketHandle,
    /// Where the branch's last authentic datagram came from.
    branch: Option<UdpMetadata>,
}

impl Headquarters {
    /// Where it waits for its branches.
    pub const PORT: u16 = 51_820;
    /// Its host inside.
    pub const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 1);

    pub(super) fn new(
        address: Ipv4Addr,
        branch_key: [u8; 32],
        outside: &mut Stack,
        started: Instant,
    ) -> Result<Self> {
        let mut inside = Stack::in_tunnel(MTU, started);
        inside.set_addresses(&[IpCidr::Ipv4(Ipv4Cidr::new(Self::INSIDE, 16))])?;
        // The tunnel is the only way there is.
        inside.set_gateway(Some(Self::INSIDE))?;
        Ok(Self {
            tunnel: TunnelEnd::new(PRIVATE_KEY, branch_key),
            web: WebServer::new(Self::INSIDE, &mut inside)?,
            address,
            inside,
            datagrams: outside.udp(Some(Self::PORT))?,
            branch: None,
        })
    }

    /// Its public key, as a site file has it.
    #[must_use]
    pub fn public_key() -> String {
        tunnel::to_text(tunnel::public_key(PRIVATE_KEY))
    }

    /// Where it is on the Internet.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// It goes on at another address and remembers nobody: whoever wants it has to call.
    pub(super) fn move_to(&mut self, address: Ipv4Addr) {
        self.address = address;
        self.branch = None;
        self.tunnel.restart();
    }

    /// Sends an ICMP echo request through the tunnel.
    ///
    /// # Errors
    /// When the socket cannot be bound.
    pub fn ping(&mut self, target: Ipv4Addr) -> Result<SocketHandle> {
        self.inside.ping(target, 0x4851)
    }

    /// Whether the ping's answer is here.
    pub fn pinged(&mut self, handle: SocketHandle) -> bool {
        self.inside.pinged(handle)
    }

    /// Forgets a ping.
    pub fn close(&mut self, handle: SocketHandle) {
        self.inside.sockets.remove(handle);
    }

    pub(super) fn serve(&mut self, outside: &mut Stack) -> Result<bool> {
        let mut output = Output::default();
        let mut busy = self.receive(outside, &mut output);
        self.tunnel.tick(&mut output);
        let (moved, sent) = self.inside.turn(std::mem::take(&mut output.packets));
        busy |= moved | !sent.is_empty();
        busy |= self.web.serve(&mut self.inside)?;
        for packet in sent {
            self.tunnel.send(&packet, &mut output);
        }
        let Some(branch) = self.branch else { return Ok(busy) };
        let socket = outside.sockets.get_mut::<udp::Socket>(self.datagrams);
        for datagram in output.datagrams {
            socket.send_slice(&datagram, branch).map_err(|e| anyhow!("send to the branch: {e}"))?;
            busy = true;
        }
        Ok(busy)
    }

    fn receive(&mut self, outside: &mut Stack, output: &mut Output) -> bool {
        let mut busy = false;
        let socket = outside.sockets.get_mut::<udp::Socket>(self.datagrams);
        while let Ok((datagram, from)) = socket.recv() {
            busy = true;
            let here = from.local_address == Some(IpAddress::Ipv4(self.address));
            if here && self.tunnel.receive(from.endpoint.addr.into(), datagram, output) {
                self.branch = Some(from);
            }
        }
        busy
    }

    pub(super) fn poll_delay(&mut self) -> Option<Duration> {
        let own = self.inside.poll_delay();
        own.into_iter().chain(self.branch.map(|_| TICK)).min()
    }
}

#[cfg(test)]
mod tests {
    use smoltcp::wire::{EthernetAddress, IpEndpoint};

    use super::*;
    use crate::probe;
    use crate::stack::Plug;
    use crate::wire::Wire;

    const BRANCH_KEY: [u8; 32] = [7; 32];
    const BRANCH_INSIDE: Ipv4Addr = Ipv4Addr::new(10, 255, 0, 2);
    const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];

    fn host(wire: &mut Wire, address: Ipv4Addr, started: Instant) -> Stack {
        let plug = Plug { wire: 0, port: wire.plug_host() };
        let mac = EthernetAddress([2, 0, 0, 0, 0, address.octets()[3]]);
        let mut stack = Stack::new(mac, plug, started);
        stack.set_addresses(&[IpCidr::Ipv4(Ipv4Cidr::new(address, 24))]).unwrap();
        stack
    }

    /// Headquarters, and the same thing as its branch.
    fn both(wire: &mut Wire) -> [(Stack, Headquarters); 2] {
        let started = Instant::now();
        let mut stacks = ADDRESSES.map(|address| host(wire, address, started));
        let public = tunnel::public_key(BRANCH_KEY);
        let mut ends = std::array::from_fn::<_, 2, _>(|number| {
            Headquarters::new(ADDRESSES[number], public, &mut stacks[number], started).unwrap()
        });
        let branch = &mut ends[1];
        branch.tunnel = TunnelEnd::new(BRANCH_KEY, tunnel::public_key(PRIVATE_KEY));
        branch.inside.set_addresses(&[IpCidr::Ipv4(Ipv4Cidr::new(BRANCH_INSIDE, 32))]).unwrap();
        branch.branch = Some(UdpMetadata {
            endpoint: IpEndpoint::new(IpAddress::Ipv4(ADDRESSES[0]), Headquarters::PORT),
            local_address: Some(IpAddress::Ipv4(ADDRESSES[1])),
            meta: smoltcp::phy::PacketMeta::default(),
        });
        let [a, b] = ends;
        let [x, y] = stacks;
        [(x, a), (y, b)]
    }

    fn settle(hosts: &mut [(Stack, Headquarters)], wires: &mut [Wire]) {
        loop {
            let mut busy = false;
            for (stack, end) in &mut *hosts {
                busy |= stack.poll(wires).unwrap() | end.serve(stack).unwrap();
            }
            if !busy {
                return;
            }
        }
    }

    #[test]
    fn pings_go_through_both_ways_and_nothing_else_is_on_the_wire() {
        let directory = tempfile::tempdir().unwrap();
        let mut wires = [Wire::new("internet", directory.path(), Instant::now()).unwrap()];
        let mut hosts = both(&mut wires[0]);
        let ping = hosts[1].1.ping(Headquarters::INSIDE).unwrap();
        settle(&mut hosts, &mut wires);
        assert!(hosts[1].1.pinged(ping), "the branch got no answer");
        let ping = hosts[0].1.ping(BRANCH_INSIDE).unwrap();
        settle(&mut hosts, &mut wires);
        assert!(hosts[0].1.pinged(ping), "headquarters got no answer");
        assert_eq!(hosts[0].1.tunnel.handshakes, 1);
        let inside = [Headquarters::INSIDE, BRANCH_INSIDE].map(|address| address.octets());
        for seen in wires[0].since(0) {
            let clear = inside.iter().any(|octets| seen.frame.windows(4).any(|four| four == octets));
            let tunnel = probe::udp_ports(&seen.frame).is_some_and(|ports| ports.1 == Headquarters::PORT);
            assert!(!clear && (tunnel || seen.frame[12..14] == [8, 6]), "{:02x?}", seen.frame);
        }
    }

    #[test]
    fn whoever_has_moved_knows_nobody_and_is_silent_where_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let mut wires = [Wire::new("internet", directory.path(), Instant::now()).unwrap()];
        let mut hosts = both(&mut wires[0]);
        hosts[0].1.move_to(Ipv4Addr::new(192, 0, 2, 9));
        hosts[1].1.ping(Headquarters::INSIDE).unwrap();
        settle(&mut hosts, &mut wires);
        assert!(hosts[0].1.branch.is_none() && hosts[0].1.tunnel.handshakes == 0);
    }
}

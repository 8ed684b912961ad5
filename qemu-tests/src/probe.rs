//! Frames made by hand: what arrives at a box without anybody inside having asked for it.

use std::net::Ipv4Addr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress, EthernetFrame,
    EthernetProtocol, EthernetRepr, Icmpv4Packet, Icmpv4Repr, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr,
    TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket, UdpRepr,
};

/// Bytes that every probe with a payload carries, to be recognised on another wire.
pub const MARKER: &[u8] = b"kontor-unsolicited-probe";

/// Sender and receiver of a probe.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// Sender's hardware address.
    pub from_mac: [u8; 6],
    /// Receiver's hardware address.
    pub to_mac: [u8; 6],
    /// Sender.
    pub from: Ipv4Addr,
    /// Receiver.
    pub to: Ipv4Addr,
}

/// A TCP connection attempt.
#[must_use]
pub fn tcp_syn(route: Route, port: u16) -> Vec<u8> {
    let tcp = TcpRepr {
        src_port: 40_000,
        dst_port: port,
        control: TcpControl::Syn,
        seq_number: TcpSeqNumber(1),
        ack_number: None,
        window_len: 1024,
        window_scale: None,
        max_seg_size: Some(1460),
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: MARKER,
    };
    let (from, to) = (IpAddress::Ipv4(route.from), IpAddress::Ipv4(route.to));
    ipv4(route, IpProtocol::Tcp, tcp.buffer_len(), |payload| {
        tcp.emit(&mut TcpPacket::new_unchecked(payload), &from, &to, &ChecksumCapabilities::default());
    })
}

/// A datagram.
#[must_use]
pub fn udp(route: Route, port: u16) -> Vec<u8> {
    let udp = UdpRepr { src_port: 40_001, dst_port: port };
    let (from, to) = (IpAddress::Ipv4(route.from), IpAddress::Ipv4(route.to));
    ipv4(route, IpProtocol::Udp, udp.header_len() + MARKER.len(), |payload| {
        let mut packet = UdpPacket::new_unchecked(payload);
        let fill = |bytes: &mut [u8]| bytes.copy_from_slice(MARKER);
        udp.emit(&mut packet, &from, &to, MARKER.len(), fill, &ChecksumCapabilities::default());
    })
}

/// An ICMP echo request.
#[must_use]
pub fn echo_request(route: Route) -> Vec<u8> {
    let echo = Icmpv4Repr::EchoRequest { ident: 0x5052, seq_no: 1, data: MARKER };
    ipv4(route, IpProtocol::Icmp, echo.buffer_len(), |payload| {
        echo.emit(&mut Icmpv4Packet::new_unchecked(payload), &ChecksumCapabilities::default());
    })
}

/// An ARP request of `from` for `target`.
#[must_use]
pub fn arp_request(from_mac: [u8; 6], from: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let arp = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: EthernetAddress(from_mac),
        source_protocol_addr: from,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: target,
    };
    ethernet(from_mac, [0xff; 6], EthernetProtocol::Arp, arp.buffer_len(), |payload| {
        arp.emit(&mut ArpPacket::new_unchecked(payload));
    })
}

/// Whether `frame` announces to everybody that `address` belongs to `mac` (RFC 5227).
#[must_use]
pub fn announces(frame: &[u8], mac: [u8; 6], address: Ipv4Addr) -> bool {
    let Ok(frame) = EthernetFrame::new_checked(frame) else { return false };
    let packet =
        ArpPacket::new_checked(frame.payload()).ok().filter(|_| frame.ethertype() == EthernetProtocol::Arp);
    let repr = packet.as_ref().and_then(|packet| ArpRepr::parse(packet).ok());
    matches!(repr, Some(ArpRepr::EthernetIpv4 { source_hardware_addr, source_protocol_addr, target_protocol_addr, .. })
        if source_hardware_addr.0 == mac && source_protocol_addr == address && target_protocol_addr == address)
}

/// A DHCPOFFER that `server` broadcasts to some client.
#[must_use]
pub fn dhcp_offer(mac: [u8; 6], server: Ipv4Addr) -> Vec<u8> {
    let offer = DhcpRepr {
        message_type: DhcpMessageType::Offer,
        transaction_id: 0x4b4f,
        secs: 0,
        client_hardware_address: EthernetAddress([2, 0, 0, 0, 0, 0x77]),
        client_ip: Ipv4Addr::UNSPECIFIED,
        your_ip: Ipv4Addr::new(10, 66, 0, 7),
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: None,
        subnet_mask: None,
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: true,
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(server),
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: Some(3600),
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    let mut message = vec![0; offer.buffer_len()];
    // The buffer has the length the representation asked for; it always fits.
    let _ = offer.emit(&mut DhcpPacket::new_unchecked(&mut message));
    let route = Route { from_mac: mac, to_mac: [0xff; 6], from: server, to: Ipv4Addr::BROADCAST };
    let udp = UdpRepr { src_port: 67, dst_port: 68 };
    let (from, to) = (IpAddress::Ipv4(route.from), IpAddress::Ipv4(route.to));
    ipv4(route, IpProtocol::Udp, udp.header_len() + message.len(), |payload| {
        let fill = |bytes: &mut [u8]| bytes.copy_from_slice(&message);
        let checksums = ChecksumCapabilities::default();
        udp.emit(&mut UdpPacket::new_unchecked(payload), &from, &to, message.len(), fill, &checksums);
    })
}

/// The hardware address in an ARP reply to `asked_by`, if `frame` is one.
#[must_use]
pub fn arp_reply_to(frame: &[u8], asked_by: [u8; 6]) -> Option<[u8; 6]> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    let is_ours = frame.dst_addr().0 == asked_by && frame.ethertype() == EthernetProtocol::Arp;
    let packet = ArpPacket::new_checked(frame.payload()).ok().filter(|_| is_ours)?;
    match ArpRepr::parse(&packet).ok()? {
        ArpRepr::EthernetIpv4 { operation: ArpOperation::Reply, source_hardware_addr, .. } => {
            Some(source_hardware_addr.0)
        }
        _ => None,
    }
}

/// Source and destination of an IPv4 frame.
#[must_use]
pub fn ipv4_addresses(frame: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    if frame.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
    Some((packet.src_addr(), packet.dst_addr()))
}

/// The server that sent a DHCP answer (option 54), if `frame` is one.
#[must_use]
pub fn dhcp_server_of(frame: &[u8]) -> Option<Ipv4Addr> {
    let message = udp_payload(frame, 68)?;
    let packet = DhcpPacket::new_checked(message).ok()?;
    DhcpRepr::parse(&packet).ok()?.server_identifier
}

/// Whether `frame` is a DHCPDISCOVER of the host with this hardware address.
#[must_use]
pub fn is_dhcp_discover_of(frame: &[u8], mac: [u8; 6]) -> bool {
    let packet = udp_payload(frame, 67).and_then(|message| DhcpPacket::new_checked(message).ok());
    let request = packet.as_ref().and_then(|packet| DhcpRepr::parse(packet).ok());
    request.is_some_and(|request| {
        request.message_type == DhcpMessageType::Discover && request.client_hardware_address.0 == mac
    })
}

/// The content of a datagram to `port`.
fn udp_payload(frame: &[u8], port: u16) -> Option<&[u8]> {
    let datagram = datagram(frame)?;
    (datagram.dst_port() == port).then(|| datagram.payload())
}

/// Source and destination port of a datagram, if `frame` is one.
#[must_use]
pub fn udp_ports(frame: &[u8]) -> Option<(u16, u16)> {
    datagram(frame).map(|datagram| (datagram.src_port(), datagram.dst_port()))
}

fn datagram(frame: &[u8]) -> Option<UdpPacket<&[u8]>> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    if frame.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
    if packet.next_header() != IpProtocol::Udp {
        return None;
    }
    UdpPacket::new_checked(packet.payload()).ok()
}

/// Whether a frame carries [`MARKER`] anywhere.
#[must_use]
pub fn is_marked(frame: &[u8]) -> bool {
    frame.windows(MARKER.len()).any(|window| window == MARKER)
}

fn ipv4(route: Route, protocol: IpProtocol, length: usize, fill: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let ip = Ipv4Repr {
        src_addr: route.from,
        dst_addr: route.to,
        next_header: protocol,
        payload_len: length,
        hop_limit: 64,
    };
    let total = ip.buffer_len() + length;
    ethernet(route.from_mac, route.to_mac, EthernetProtocol::Ipv4, total, |payload| {
        let mut packet = Ipv4Packet::new_unchecked(payload);
        ip.emit(&mut packet, &ChecksumCapabilities::default());
        fill(packet.payload_mut());
    })
}

fn ethernet(
    from: [u8; 6],
    to: [u8; 6],
    ethertype: EthernetProtocol,
    length: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    let header = EthernetRepr { src_addr: EthernetAddress(from), dst_addr: EthernetAddress(to), ethertype };
    let mut bytes = vec![0; header.buffer_len() + length];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    header.emit(&mut frame);
    fill(frame.payload_mut());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: Route = Route {
        from_mac: [2, 0, 0, 0, 0, 1],
        to_mac: [2, 0, 0, 0, 0, 2],
        from: Ipv4Addr::new(203, 0, 113, 9),
        to: Ipv4Addr::new(198, 51, 100, 10),
    };

    #[test]
    fn probes_are_whole_and_marked() {
        for frame in [tcp_syn(ROUTE, 22), udp(ROUTE, 53), echo_request(ROUTE)] {
            assert_eq!(ipv4_addresses(&frame), Some((ROUTE.from, ROUTE.to)));
            assert!(is_marked(&frame));
        }
    }

    #[test]
    fn an_offer_names_its_server_and_is_no_question() {
        let frame = dhcp_offer(ROUTE.from_mac, ROUTE.from);
        assert_eq!(dhcp_server_of(&frame), Some(ROUTE.from));
        assert!(!is_dhcp_discover_of(&frame, [2, 0, 0, 0, 0, 0x77]));
    }

    #[test]
    fn only_an_arp_reply_to_the_asker_is_one() {
        let request = arp_request(ROUTE.from_mac, ROUTE.from, ROUTE.to);
        assert_eq!(arp_reply_to(&request, [0xff; 6]), None);
        let mut reply = request;
        reply[..6].copy_from_slice(&ROUTE.from_mac);
        reply[21] = 2;
        assert_eq!(arp_reply_to(&reply, ROUTE.from_mac), Some(ROUTE.from_mac));
        assert_eq!(arp_reply_to(&reply, ROUTE.to_mac), None);
    }
}

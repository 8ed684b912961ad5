//! The kernel's WireGuard devices: one look at one, and changes to it, by generic netlink (linux/wireguard.h).
//!
//! Asked over a socket of our own; the routing socket's crate does not speak to this part of the kernel. The private key goes to
//! the kernel here and nowhere else.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use ipnet::Ipv4Net;
use kontor_wireguard::{Change, Device, Peer, PeerChange, PrivateKey, PublicKey};
use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable, ParseableParametrized,
};
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use netlink_packet_wireguard::{
    WireguardAddressFamily, WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAttribute, WireguardCmd,
    WireguardMessage, WireguardPeer, WireguardPeerAttribute, WireguardPeerFlags,
};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// The kernel answers within the request, however long that waits for somebody else who changes a link: the supervisor's watchdog
/// is the limit of that. This one is for an answer that got lost.
const TIMEOUT_S: i64 = 2;
/// The kernel fills one page, or what the reader's buffer has, up to 32 KiB (`netlink_dump`).
const BUFFER: usize = 32 << 10;

/// A socket for requests, and the number of WireGuard's family.
pub(super) struct WireGuard {
    socket: OwnedFd,
    family: u16,
    sequence: u32,
}

impl WireGuard {
    /// Opens the socket. The family is there once the module is, which the first link of the kind loads.
    ///
    /// # Errors
    /// Any of the kernel.
    pub(super) fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkGeneric,
        )?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(TIMEOUT_S))?;
        let mut opened = Self { socket, family: 0, sequence: 0 };
        let nlas = vec![GenlCtrlAttrs::FamilyName(WireguardMessage::family_name().to_owned())];
        let answers = opened.request(GenlCtrl { cmd: GenlCtrlCmd::GetFamily, nlas }, NLM_F_ACK)?;
        let mut attributes = answers.into_iter().flat_map(|answer| answer.nlas);
        let family = attributes.find_map(|attribute| match attribute {
            GenlCtrlAttrs::FamilyId(family) => Some(family),
            _ => None,
        });
        opened.family = family.ok_or_else(|| io::Error::other("the kernel does not know WireGuard"))?;
        Ok(opened)
    }

    /// Looks at one device.
    ///
    /// # Errors
    /// Any of the kernel; there is no such device.
    pub(super) fn device(&mut self, interface: &str) -> io::Result<Device> {
        let attributes = vec![WireguardAttribute::IfName(interface.to_owned())];
        let question = WireguardMessage { cmd: WireguardCmd::GetDevice, attributes };
        let mut device = Device::default();
        // A device with many peers comes in several messages; so may one peer with many networks.
        for answer in self.request(question, NLM_F_DUMP)? {
            answer.attributes.into_iter().for_each(|attribute| add(&mut device, attribute));
        }
        Ok(device)
    }

    /// Changes a device, in as much of it as the kernel takes: the next comparison finds the rest.
    ///
    /// # Errors
    /// Any of the kernel; a port that is taken, mostly.
    pub(super) fn apply(&mut self, interface: &str, change: &Change) -> io::Result<()> {
        let own = change.private_key.iter().map(|key| WireguardAttribute::PrivateKey(key.octets()));
        let own: Vec<_> = own.chain(change.listen_port.map(WireguardAttribute::ListenPort)).collect();
        let mut outcome = Ok(());
        for attribute in own {
            let is_port = matches!(attribute, WireguardAttribute::ListenPort(_));
            let Err(error) = self.set(interface, vec![attribute]) else { continue };
            outcome = Err(match change.listen_port {
                Some(port) if is_port => io::Error::other(format!("UDP port {port}: {error}")),
                _ => error,
            });
            // Whoever holds the port may want ours: two tunnels that change places.
            if is_port {
                self.set(interface, vec![WireguardAttribute::ListenPort(0)])?;
            }
        }
        // Each peer in a message of its own: an attribute holds 64 KiB.
        for peer in &change.peers {
            let peer = WireguardAttribute::Peers(vec![WireguardPeer(attributes(peer))]);
            outcome = outcome.and(self.set(interface, vec![peer]));
        }
        outcome
    }

    fn set(&mut self, interface: &str, attributes: Vec<WireguardAttribute>) -> io::Result<()> {
        let name = WireguardAttribute::IfName(interface.to_owned());
        let attributes = std::iter::once(name).chain(attributes).collect();
        self.request(WireguardMessage { cmd: WireguardCmd::SetDevice, attributes }, NLM_F_ACK).map(drop)
    }

    /// Sends one message and collects the answers up to the kernel's last word on it.
    fn request<F>(&mut self, payload: F, flags: u16) -> io::Result<Vec<F>>
    where
        F: GenlFamily + Emitable + ParseableParametrized<[u8], GenlHeader> + Debug,
        GenlMessage<F>: NetlinkSerializable + NetlinkDeserializable,
    {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = GenlMessage::from_payload(payload);
        message.set_resolved_family_id(self.family);
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        sendto(self.socket.as_raw_fd(), &bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        self.answers()
    }

    fn answers<F>(&self) -> io::Result<Vec<F>>
    where
        F: GenlFamily + Emitable + ParseableParametrized<[u8], GenlHeader> + Debug,
        GenlMessage<F>: NetlinkDeserializable,
    {
        let mut answers = Vec::new();
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            let mut rest = &buffer[..length];
            while !rest.is_empty() {
                let message =
                    NetlinkMessage::<GenlMessage<F>>::deserialize(rest).map_err(io::Error::other)?;
                let taken = (message.header.length as usize).next_multiple_of(4).min(rest.len());
                rest = &rest[taken.max(1)..];
                // The answer to a question that was given up.
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer.payload),
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    NetlinkPayload::Done(done) if done.code != 0 => {
                        return Err(io::Error::from_raw_os_error(-done.code));
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(answers),
                    _ => {}
                }
            }
        }
    }
}

fn attributes(change: &PeerChange) -> Vec<WireguardPeerAttribute> {
    match change {
        PeerChange::Remove(key) => vec![
            WireguardPeerAttribute::PublicKey(key.0),
            WireguardPeerAttribute::Flags(WireguardPeerFlags::RemoveMe),
        ],
        PeerChange::Set { public_key, endpoint, persistent_keepalive, allowed_ips } => {
            let mut attributes = vec![WireguardPeerAttribute::PublicKey(public_key.0)];
            attributes.extend(endpoint.map(WireguardPeerAttribute::Endpoint));
            attributes.extend(persistent_keepalive.map(WireguardPeerAttribute::PersistentKeepalive));
            if let Some(networks) = allowed_ips {
                attributes.push(WireguardPeerAttribute::Flags(WireguardPeerFlags::ReplaceAllowedIps));
                attributes
                    .push(WireguardPeerAttribute::AllowedIps(networks.iter().map(allowed_ip).collect()));
            }
            attributes
        }
    }
}

fn allowed_ip(network: &Ipv4Net) -> WireguardAllowedIp {
    WireguardAllowedIp(vec![
        WireguardAllowedIpAttr::Family(WireguardAddressFamily::Ipv4),
        WireguardAllowedIpAttr::IpAddr(network.addr().into()),
        WireguardAllowedIpAttr::Cidr(network.prefix_len()),
    ])
}

fn add(device: &mut Device, attribute: WireguardAttribute) {
    match attribute {
        WireguardAttribute::PrivateKey(key) if key != [0; 32] => {
            device.private_key = Some(PrivateKey::new(key))
        }
        WireguardAttribute::PublicKey(key) if key != [0; 32] => device.public_key = Some(PublicKey(key)),
        WireguardAttribute::ListenPort(port) => device.listen_port = port,
        WireguardAttribute::Peers(peers) => peers.iter().for_each(|attributes| add_peer(device, attributes)),
        _ => {}
    }
}

/// The rest of a peer that did not fit into one message comes with its key and more networks.
fn add_peer(device: &mut Device, attributes: &[WireguardPeerAttribute]) {
    let key = attributes.iter().find_map(|attribute| match attribute {
        WireguardPeerAttribute::PublicKey(key) => Some(PublicKey(*key)),
        _ => None,
    });
    let Some(public_key) = key else { return };
    if device.peers.last().is_none_or(|last| last.public_key != public_key) {
        device.peers.push(Peer::new(public_key));
    }
    let Some(peer) = device.peers.last_mut() else { return };
    for attribute in attributes {
        match attribute {
            WireguardPeerAttribute::Endpoint(endpoint) => peer.endpoint = Some(*endpoint),
            WireguardPeerAttribute::PersistentKeepalive(seconds) => peer.persistent_keepalive = *seconds,
            WireguardPeerAttribute::LastHandshake(at) => {
                let at = u64::try_from(at.seconds).ok().zip(u32::try_from(at.nano_seconds).ok());
                peer.latest_handshake = at.filter(|at| *at != (0, 0)).map(|(s, ns)| Duration::new(s, ns));
            }
            WireguardPeerAttribute::RxBytes(octets) => peer.received = *octets,
            WireguardPeerAttribute::TxBytes(octets) => peer.sent = *octets,
            WireguardPeerAttribute::AllowedIps(networks) => peer.allowed_ips.extend(allowed_ips(networks)),
            _ => {}
        }
    }
}

fn allowed_ips(networks: &[WireguardAllowedIp]) -> BTreeSet<Ipv4Net> {
    let network = |attributes: &WireguardAllowedIp| {
        let (mut address, mut prefix) = (None, None);
        for attribute in attributes.iter() {
            match attribute {
                WireguardAllowedIpAttr::IpAddr(IpAddr::V4(found)) => address = Some(*found),
                WireguardAllowedIpAttr::Cidr(found) => prefix = Some(*found),
                _ => {}
            }
        }
        Ipv4Net::new(address?, prefix?).ok()
    };
    networks.iter().filter_map(network).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(networks: &[&str], first: bool) -> Vec<WireguardAttribute> {
        let networks: Vec<Ipv4Net> = networks.iter().map(|network| network.parse().unwrap()).collect();
        let mut peer = vec![WireguardPeerAttribute::PublicKey([7; 32])];
        if first {
            let at = netlink_packet_wireguard::WireguardTimeSpec { seconds: 9, nano_seconds: 5 };
            peer.push(WireguardPeerAttribute::LastHandshake(at));
            peer.push(WireguardPeerAttribute::RxBytes(3));
        }
        peer.push(WireguardPeerAttribute::AllowedIps(networks.iter().map(allowed_ip).collect()));
        vec![WireguardAttribute::ListenPort(51_820), WireguardAttribute::Peers(vec![WireguardPeer(peer)])]
    }

    #[test]
    fn a_peer_in_two_messages_is_one() {
        let mut device = Device::default();
        for (networks, first) in [(["10.1.0.0/16"], true), (["10.2.0.0/16"], false)] {
            answer(&networks, first).into_iter().for_each(|attribute| add(&mut device, attribute));
        }
        let [peer] = device.peers.as_slice() else { panic!("{device:?}") };
        assert_eq!((peer.received, peer.latest_handshake), (3, Some(Duration::new(9, 5))));
        assert_eq!((peer.allowed_ips.len(), device.listen_port), (2, 51_820));
    }

    #[test]
    fn a_device_without_key_has_none() {
        let mut device = Device::default();
        add(&mut device, WireguardAttribute::PrivateKey([0; 32]));
        add(&mut device, WireguardAttribute::PublicKey([0; 32]));
        assert_eq!(device, Device::default());
    }
}

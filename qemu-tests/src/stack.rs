//! One smoltcp network stack on one plug of a wire.

use std::collections::VecDeque;
use std::time::{Duration, Instant as Clock};

use anyhow::{Context, Result, anyhow};
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{self, ChecksumCapabilities, Device, DeviceCapabilities, Medium};
use smoltcp::socket::{icmp, tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{
    EthernetAddress, HardwareAddress, Icmpv4Packet, Icmpv4Repr, IpAddress, IpCidr, Ipv4Address,
};

use crate::line::{Change, Line, LineOptions};
use crate::wire::{PortId, Wire};

/// Ethernet header and 1500 bytes.
const MTU: usize = 1514;
/// Buffer of a TCP socket in each direction.
const TCP_BUFFER: usize = 65_535;
/// Buffer of a UDP socket in each direction.
const UDP_BUFFER: usize = 16_384;

/// Which wire of the world, and which plug of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plug {
    /// Index of the wire.
    pub wire: usize,
    /// Plug of that wire.
    pub port: PortId,
}

/// A network stack.
pub struct Stack {
    /// Addresses and routes.
    pub iface: Interface,
    /// Its sockets.
    pub sockets: SocketSet<'static>,
    /// Where it is plugged in, unless it is inside a tunnel.
    plug: Option<Plug>,
    device: Queues,
    /// What its frames have to pass on their way to the wire and back; without one they do at once.
    line: Option<Line>,
    started: Clock,
    next_port: u16,
    /// TCP sockets given up, each until its peer has been told.
    leaving: Vec<SocketHandle>,
}

impl Stack {
    /// A stack without addresses.
    #[must_use]
    pub fn new(mac: EthernetAddress, plug: Plug, started: Clock) -> Self {
        // Initial sequence numbers and transaction ids: different for each host, equal in each run.
        let seed = mac.0.iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte));
        Self::over(Queues::new(Medium::Ethernet, MTU), mac.into(), Some(plug), seed, started)
    }

    /// A stack whose packets, of at most `mtu` octets, somebody else carries: [`Self::turn`].
    #[must_use]
    pub fn in_tunnel(mtu: usize, started: Clock) -> Self {
        Self::over(Queues::new(Medium::Ip, mtu), HardwareAddress::Ip, None, 1, started)
    }

    fn over(
        mut device: Queues,
        address: HardwareAddress,
        plug: Option<Plug>,
        random_seed: u64,
        started: Clock,
    ) -> Self {
        let mut config = Config::new(address);
        config.random_seed = random_seed;
        let iface = Interface::new(config, &mut device, Instant::ZERO);
        let sockets = SocketSet::new(Vec::new());
        Self { iface, sockets, plug, device, line: None, started, next_port: 49_152, leaving: Vec::new() }
    }

    /// Time as smoltcp wants it.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::from_micros(i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX))
    }

    /// Replaces all addresses.
    ///
    /// # Errors
    /// When there are more than smoltcp was built for.
    pub fn set_addresses(&mut self, addresses: &[IpCidr]) -> Result<()> {
        let mut full = false;
        self.iface.update_ip_addrs(|current| {
            current.clear();
            full = addresses.iter().any(|address| current.push(*address).is_err());
        });
        if full { Err(anyhow!("smoltcp has no room for {} addresses", addresses.len())) } else { Ok(()) }
    }

    /// Replaces the default route.
    ///
    /// # Errors
    /// When smoltcp's route table is full.
    pub fn set_gateway(&mut self, gateway: Option<Ipv4Address>) -> Result<()> {
        let routes = self.iface.routes_mut();
        routes.remove_default_ipv4_route();
        if let Some(gateway) = gateway {
            routes.add_default_ipv4_route(gateway).map_err(|_| anyhow!("smoltcp's route table is full"))?;
        }
        Ok(())
    }

    /// Moves frames between the wire and the sockets; whether anything happened.
    ///
    /// # Errors
    /// When the wire's capture cannot be written.
    pub fn poll(&mut self, wires: &mut [Wire]) -> Result<bool> {
        let plug = self.plug.context("plugged into no wire")?;
        let wire = wires.get_mut(plug.wire).context("plugged into no wire")?;
        let elapsed = self.started.elapsed();
        let arrived = std::iter::from_fn(|| wire.receive(plug.port));
        let arrived: Vec<_> = match &mut self.line {
            Some(line) => line.up(elapsed, arrived).into_iter().collect(),
            None => arrived.collect(),
        };
        let (mut busy, sent) = self.turn(arrived);
        let sent: Vec<_> = match &mut self.line {
            Some(line) => line.down(elapsed, sent.into_iter()),
            None => sent.into(),
        };
        for frame in sent {
            wire.send(plug.port, frame)?;
            busy = true;
        }
        Ok(busy)
    }

    /// Takes what has arrived; whether anything happened, and what is to be sent.
    pub fn turn(&mut self, arrived: Vec<Vec<u8>>) -> (bool, VecDeque<Vec<u8>>) {
        self.device.received.extend(arrived);
        let mut busy = !self.device.received.is_empty();
        let now = self.now();
        busy |= self.iface.poll(now, &mut self.device, &mut self.sockets) == PollResult::SocketStateChanged;
        let Self { leaving, sockets, .. } = self;
        // smoltcp forgets the peer of an aborted connection once the reset is out.
        leaving.retain(|handle| {
            let told = sockets.get::<tcp::Socket>(*handle).remote_endpoint().is_none();
            if told {
                sockets.remove(*handle);
            }
            !told
        });
        (busy, std::mem::take(&mut self.device.sent))
    }

    /// Gives a TCP connection up at once. The peer is told, or it would keep its half for ever.
    pub fn hang_up(&mut self, handle: SocketHandle) {
        self.sockets.get_mut::<tcp::Socket>(handle).abort();
        self.leaving.push(handle);
    }

    /// How long nothing needs to be done unless a frame arrives.
    pub fn poll_delay(&mut self) -> Option<Duration> {
        let now = self.now();
        let own = self.iface.poll_delay(now, &self.sockets).map(Into::into);
        let line = self.line.as_ref().and_then(|line| line.delay(self.started.elapsed()));
        own.into_iter().chain(line).min()
    }

    /// Puts a line between it and the wire.
    pub fn set_line(&mut self, options: LineOptions) {
        self.line = Some(Line::new(options, self.started.elapsed()));
    }

    /// That line.
    #[must_use]
    pub fn line(&self) -> Option<&Line> {
        self.line.as_ref()
    }

    /// Lets the line fail or come back when it is time.
    pub fn turn_line(&mut self) -> Option<Change> {
        self.line.as_mut()?.turn(self.started.elapsed())
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// When there is no route or address.
    pub fn connect(&mut self, address: Ipv4Address, port: u16) -> Result<SocketHandle> {
        let mut socket = tcp_socket();
        let local = self.local_port();
        let remote = (IpAddress::Ipv4(address), port);
        socket.connect(self.iface.context(), remote, local).map_err(|e| anyhow!("connect: {e}"))?;
        Ok(self.sockets.add(socket))
    }

    /// Sends an ICMP echo request.
    ///
    /// # Errors
    /// When the socket cannot be bound.
    pub fn ping(&mut self, target: Ipv4Address, ident: u16) -> Result<SocketHandle> {
        let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 8], vec![0; 2048]);
        let mut socket = icmp::Socket::new(buffer(), buffer());
        socket.bind(icmp::Endpoint::Ident(ident)).map_err(|e| anyhow!("bind for a ping: {e}"))?;
        let echo = Icmpv4Repr::EchoRequest { ident, seq_no: 1, data: b"kontor" };
        let space = socket
            .send(echo.buffer_len(), IpAddress::Ipv4(target))
            .map_err(|e| anyhow!("send a ping: {e}"))?;
        echo.emit(&mut Icmpv4Packet::new_unchecked(space), &ChecksumCapabilities::default());
        Ok(self.sockets.add(socket))
    }

    /// Whether the ping's answer is here.
    pub fn pinged(&mut self, handle: SocketHandle) -> bool {
        self.sockets.get_mut::<icmp::Socket>(handle).recv().is_ok()
    }

    /// A UDP socket on `port`, or on the next free one.
    ///
    /// # Errors
    /// When `port` is 0.
    pub fn udp(&mut self, port: Option<u16>) -> Result<SocketHandle> {
        let port = port.unwrap_or_else(|| self.local_port());
        let mut socket = udp::Socket::new(packet_buffer(), packet_buffer());
        socket.bind(port).map_err(|e| anyhow!("bind UDP port {port}: {e}"))?;
        Ok(self.sockets.add(socket))
    }

    /// Ports are never used twice, so that no late packet meets a new socket.
    fn local_port(&mut self) -> u16 {
        self.next_port = self.next_port.checked_add(1).unwrap_or(49_152);
        self.next_port
    }
}

/// A TCP socket that answers and acknowledges at once.
#[must_use]
pub fn tcp_socket() -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(vec![0; TCP_BUFFER]);
    let mut socket = tcp::Socket::new(buffer(), buffer());
    socket.set_ack_delay(None);
    socket.set_nagle_enabled(false);
    socket
}

fn packet_buffer() -> udp::PacketBuffer<'static> {
    udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 64], vec![0; UDP_BUFFER])
}

/// Frames between the stack and the wire, or packets inside a tunnel.
#[derive(Debug)]
struct Queues {
    medium: Medium,
    mtu: usize,
    received: VecDeque<Vec<u8>>,
    sent: VecDeque<Vec<u8>>,
}

impl Queues {
    fn new(medium: Medium, mtu: usize) -> Self {
        Self { medium, mtu, received: VecDeque::new(), sent: VecDeque::new() }
    }
}

impl Device for Queues {
    type RxToken<'a> = Received;
    type TxToken<'a> = Send<'a>;

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = self.medium;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }

    fn receive(&mut self, _now: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Received(frame), Send(&mut self.sent)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Self::TxToken<'_>> {
        Some(Send(&mut self.sent))
    }
}

#[doc(hidden)]
#[derive(Debug)]
pub struct Received(Vec<u8>);

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

#[doc(hidden)]
#[derive(Debug)]
pub struct Send<'a>(&'a mut VecDeque<Vec<u8>>);

impl phy::TxToken for Send<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut frame = vec![0; length];
        let result = write(&mut frame);
        self.0.push_back(frame);
        result
    }
}

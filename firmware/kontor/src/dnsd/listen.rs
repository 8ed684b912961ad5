//! Where queries come in: one UDP and one TCP socket per own address, and the answers that leave there.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};

use kontor_sys::udp::{SendBatch, ServerSocket};

use super::poller::{Interest, Mark, Poller};
use super::tcp::listen_on;

/// The sockets of one own address.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) address: Ipv4Addr,
    pub(crate) udp: ServerSocket,
    pub(crate) tcp: TcpListener,
    /// Answers collected in this turn.
    pub(crate) out: SendBatch,
}

/// All listeners, by number.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    open: HashMap<u64, Listener>,
    next: u64,
}

impl Listeners {
    /// Opens and closes sockets until exactly `wanted` are listened on. What could not be opened is in the
    /// list returned, with the reason.
    pub(crate) fn set(&mut self, poller: &Poller, wanted: &[Ipv4Addr], port: u16) -> Vec<String> {
        self.open.retain(|_, listener| wanted.contains(&listener.address));
        let mut problems = Vec::new();
        for &address in wanted {
            if self.open.values().any(|listener| listener.address == address) {
                continue;
            }
            if let Err(error) = self.open(poller, address, port) {
                problems.push(format!("cannot listen on {address} port {port}: {error}"));
            }
        }
        problems
    }

    fn open(&mut self, poller: &Poller, address: Ipv4Addr, port: u16) -> io::Result<()> {
        let udp = ServerSocket::bind(SocketAddrV4::new(address, port))?;
        // With port 0 (tests) TCP gets the number that UDP got.
        let port = udp.local_addr()?.port();
        let tcp = listen_on(SocketAddrV4::new(address, port))?;
        self.next += 1;
        poller.add(&udp, Mark::UdpListener(self.next), Interest::READ)?;
        poller.add(&tcp, Mark::TcpListener(self.next), Interest::READ)?;
        self.open.insert(self.next, Listener { address, udp, tcp, out: SendBatch::new() });
        Ok(())
    }

    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut Listener> {
        self.open.get_mut(&number)
    }

    /// The number of the listener on `address`.
    #[cfg(test)]
    pub(crate) fn number_on(&self, address: Ipv4Addr) -> Option<u64> {
        self.open.iter().find(|(_, listener)| listener.address == address).map(|(&number, _)| number)
    }

    /// The listener on `address`.
    #[cfg(test)]
    pub(crate) fn on(&self, address: Ipv4Addr) -> Option<&Listener> {
        self.open.values().find(|listener| listener.address == address)
    }

    /// Sends what has been collected.
    pub(crate) fn flush(&mut self) {
        for listener in self.open.values_mut().filter(|listener| !listener.out.is_empty()) {
            listener.out.flush(&listener.udp);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}
